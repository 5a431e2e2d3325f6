"""Alignment rates and token categories: how well aligned tokens match the tokens of a text, and which kinds of tokens they are.

The rates are Hit@K and the local and global alignment rate of arXiv 2406.17378, known to us from its abstract, its released
code and the notes of another reader. The categories follow the two kinds of key tokens in the abstract of Text2Token (arXiv
2510.10224): tokens in the text and tokens derived beyond it. The rules that assign a token to a category are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from text2token.model.vocabulary import Vocabulary

CATEGORIES = ("literal, meaningful", "literal, meaningless", "derived", "noise")


@dataclass
class AlignmentRates:
    """Accumulates the alignment rates of texts, batch by batch. Its memory grows by two numbers per text.

    As we understand the paper, local and global rate read as many aligned tokens as the text has distinct tokens. The released
    code reads at most ``k`` tokens for all three rates, and counts repeated tokens in the depth but not in the
    denominator; ``capped`` reproduces that.

    Attributes:
        groups: V group numbers. Tokens of one group count as one token: ``arange(V)`` compares exact ids, the surface groups of
            the vocabulary ignore case and leading spaces.
        k: Aligned tokens for Hit@K. The paper uses 10.
        capped: Count as the released code does.
        hits: One boolean per text: whether a literal token is among the first ``k`` aligned tokens.
        local: One share per text: distinct literal tokens that are found, out of all distinct literal tokens.
    """

    groups: NDArray[np.int64]
    k: int = 10
    capped: bool = False
    hits: list[NDArray[np.bool_]] = field(default_factory=list)
    local: list[NDArray[np.float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._size = int(self.groups.max()) + 1
        self._exact = self._size == len(self.groups)
        self._index = torch.from_numpy(self.groups)
        self._reached = torch.zeros(self._size, dtype=torch.bool)
        self._present = torch.zeros(self._size, dtype=torch.bool)

    def add(self, logits: Tensor, counts: sparse.csr_matrix) -> None:
        """Count a batch.

        Args:
            logits: Token logits, B×V.
            counts: Literal tokens of the same texts, B×V. Each text has at least one.
        """
        literal = self._literal(counts)
        sizes = literal.sum(dim=1)
        depth = (
            torch.from_numpy(np.asarray(counts.sum(axis=1)).ravel()).long().clamp(max=self.k) if self.capped else sizes
        )
        top = self._by_group(logits).topk(min(max(int(depth.max()), self.k), self._size), dim=1).indices
        found = literal.gather(1, top)
        within = found & (torch.arange(top.shape[1]) < depth[:, None])
        self.hits.append(found[:, : self.k].any(dim=1).numpy())
        self.local.append((within.sum(dim=1) / sizes).double().numpy())
        self._reached[top[within]] = True
        self._present |= literal.any(dim=0)

    def rates(self) -> dict[str, float]:
        """Return ``hit``, ``local`` and ``global``, each from 0 to 1.

        ``global`` is the share of all tokens in the texts that at least one of their own texts aligns with.
        """
        return {
            "hit": float(np.concatenate(self.hits).mean()),
            "local": float(np.concatenate(self.local).mean()),
            "global": float(self._reached.sum() / self._present.sum()),
        }

    def _by_group(self, logits: Tensor) -> Tensor:
        """The largest logit of each group, B×G."""
        if self._exact:
            return logits
        best = torch.full((len(logits), self._size), -torch.inf)
        return best.scatter_reduce(1, self._index.expand(len(logits), -1), logits, "amax")

    def _literal(self, counts: sparse.csr_matrix) -> Tensor:
        """Whether a text contains a token of a group, B×G booleans."""
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        literal = torch.zeros(counts.shape[0], self._size, dtype=torch.bool)
        literal[torch.from_numpy(rows), self._index[torch.from_numpy(counts.indices).long()]] = True
        return literal


@dataclass
class TokenCategories:
    """Assigns the first ``depth`` aligned tokens of each text to a category, batch by batch.

    A token is *literal* if the text contains a token of the same surface form (" Cat", "cat"). Another token is *derived* if it
    is meaningful, is not a fragment of a word, and at most a share ``common`` of all texts aligns with it. All others are
    *noise*, because a token that fits every text says nothing about one.

    Attributes:
        vocabulary: The vocabulary of the backbone.
        depth: Aligned tokens per text. 10, as for Hit@10.
        common: Largest share of texts that may align with a derived token. 0.1, as in the filter of token targets.
        ids: Aligned tokens, N×depth.
        mass: Their probabilities, N×depth.
        literal: Whether each is literal, N×depth.
    """

    vocabulary: Vocabulary
    depth: int = 10
    common: float = 0.1
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    mass: list[NDArray[np.float32]] = field(default_factory=list)
    literal: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, logits: Tensor, counts: sparse.csr_matrix, weighed: Tensor) -> None:
        """Add a batch.

        Args:
            logits: Token logits, B×V. They rank the tokens.
            counts: Literal tokens of the same texts, B×V.
            weighed: Logits whose softmax is the probability of the tokens, B×V.
        """
        best = logits.topk(self.depth, dim=1)
        groups = self.vocabulary.surface_groups
        ids = best.indices.numpy()
        texts = np.split(counts.indices, counts.indptr[1:-1])
        self.ids.append(ids)
        self.mass.append((weighed.gather(1, best.indices) - weighed.logsumexp(dim=1, keepdim=True)).exp().numpy())
        self.literal.append(
            np.stack([np.isin(groups[row], groups[text]) for row, text in zip(ids, texts, strict=True)])
        )

    def shares(self) -> dict[str, float]:
        """Share of each category in the total probability mass of the aligned tokens; the shares sum to 1."""
        mass = np.concatenate(self.mass)
        numbers = self._numbers()
        return {name: float(mass[numbers == number].sum() / mass.sum()) for number, name in enumerate(CATEGORIES)}

    def by_rank(self) -> dict[str, list[float]]:
        """For each category and rank, the share of texts whose token at that rank has the category."""
        numbers = self._numbers()
        return {name: (numbers == number).mean(axis=0).tolist() for number, name in enumerate(CATEGORIES)}

    def _numbers(self) -> NDArray[np.int64]:
        """Positions in CATEGORIES, N×depth."""
        ids, literal = np.concatenate(self.ids), np.concatenate(self.literal)
        meaningful = self.vocabulary.meaningful
        texts = np.bincount(ids.ravel(), minlength=len(meaningful))
        derived = meaningful & ~self.vocabulary.fragment & (texts <= max(1, self.common * len(ids)))
        return np.where(literal, np.where(meaningful[ids], 0, 1), np.where(derived[ids], 2, 3))
