"""Hit@K, local and global alignment rate: do embeddings align with the tokens of their texts (arXiv 2406.17378, section 3)?"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor


@dataclass
class AlignmentRates:
    """Alignment of texts that arrive batch by batch; memory is V booleans, whatever the number of texts.

    The released code reads no more than ``k`` aligned tokens for all three metrics, and counts repeated tokens in the depth
    but not in the denominator. ``capped`` does the same; without it the local and the global rate read as many aligned
    tokens as a text has distinct tokens, which is the paper's definition.

    Attributes:
        groups: V unit numbers: ``arange(V)`` for exact ids, or the vocabulary's surface groups.
        k: Of Hit@K. 10 is the paper's.
        capped: Reproduce the released code.
        hits: A boolean a text: is one of its first ``k`` aligned tokens literal?
        local: A share a text: of its distinct tokens, those among as many aligned ones.
    """

    groups: NDArray[np.int64]
    k: int = 10
    capped: bool = False
    hits: list[NDArray[np.bool_]] = field(default_factory=list)
    local: list[NDArray[np.float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._units = int(self.groups.max()) + 1
        self._exact = self._units == len(self.groups)
        self._index = torch.from_numpy(self.groups)
        self._reached = torch.zeros(self._units, dtype=torch.bool)
        self._present = torch.zeros(self._units, dtype=torch.bool)

    def add(self, logits: Tensor, counts: sparse.csr_matrix) -> None:
        """Count a batch.

        Args:
            logits: Token logits, B×V.
            counts: Literal tokens of the same texts, B×V; each has at least one.
        """
        literal = self._literal(counts)
        sizes = literal.sum(dim=1)
        depth = (
            torch.from_numpy(np.asarray(counts.sum(axis=1)).ravel()).long().clamp(max=self.k) if self.capped else sizes
        )
        top = self._by_unit(logits).topk(min(max(int(depth.max()), self.k), self._units), dim=1).indices
        found = literal.gather(1, top)
        within = found & (torch.arange(top.shape[1]) < depth[:, None])
        self.hits.append(found[:, : self.k].any(dim=1).numpy())
        self.local.append((within.sum(dim=1) / sizes).double().numpy())
        self._reached[top[within]] = True
        self._present |= literal.any(dim=0)

    def rates(self) -> dict[str, float]:
        """``hit``, ``local`` and ``global``, shares of 1; the last says how much of the whole vocabulary in use is reached."""
        return {
            "hit": float(np.concatenate(self.hits).mean()),
            "local": float(np.concatenate(self.local).mean()),
            "global": float(self._reached.sum() / self._present.sum()),
        }

    def _by_unit(self, logits: Tensor) -> Tensor:
        """The best logit of each unit, B×U."""
        if self._exact:
            return logits
        best = torch.full((len(logits), self._units), -torch.inf)
        return best.scatter_reduce(1, self._index.expand(len(logits), -1), logits, "amax")

    def _literal(self, counts: sparse.csr_matrix) -> Tensor:
        """Which units are in which text, B×U."""
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        literal = torch.zeros(counts.shape[0], self._units, dtype=torch.bool)
        literal[torch.from_numpy(rows), self._index[torch.from_numpy(counts.indices).long()]] = True
        return literal
