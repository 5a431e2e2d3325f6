"""What kind of tokens embeddings align with: the two key kinds of Text2Token (arXiv 2510.10224), and what is left over.

The abstract names tokens in the text and tokens derived beyond it; how a token is told to be one of them is ours.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from text2token.model.vocabulary import Vocabulary

CATEGORIES = ("literal, meaningful", "literal, meaningless", "derived", "noise")


@dataclass
class TokenCategories:
    """Categories of the first ``depth`` aligned tokens of texts that arrive batch by batch.

    A token is literal when the text has a token of its surface form (" Cat", "cat"). One that is not is derived when it is
    meaningful, no fragment of a word, and aligned with at most ``common`` of all texts; the rest is noise: what fits every
    text says nothing of one.

    Attributes:
        vocabulary: Of the backbone.
        depth: Aligned tokens of a text that count. 10, as Hit@10.
        common: Share of the texts beyond which a token that is not literal is noise. A tenth, as the filter of targets.
        ids: N×depth aligned tokens.
        mass: N×depth softmax probabilities.
        literal: N×depth booleans.
    """

    vocabulary: Vocabulary
    depth: int = 10
    common: float = 0.1
    ids: list[NDArray[np.int64]] = field(default_factory=list)
    mass: list[NDArray[np.float32]] = field(default_factory=list)
    literal: list[NDArray[np.bool_]] = field(default_factory=list)

    def add(self, logits: Tensor, counts: sparse.csr_matrix) -> None:
        """Take in a batch: token logits B×V and literal tokens B×V."""
        best = logits.topk(self.depth, dim=1)
        groups = self.vocabulary.surface_groups
        ids = best.indices.numpy()
        texts = np.split(counts.indices, counts.indptr[1:-1])
        self.ids.append(ids)
        self.mass.append((best.values - logits.logsumexp(dim=1, keepdim=True)).exp().numpy())
        self.literal.append(
            np.stack([np.isin(groups[row], groups[text]) for row, text in zip(ids, texts, strict=True)])
        )

    def shares(self) -> dict[str, float]:
        """Share of each category in the mass of the aligned tokens; they sum to 1."""
        mass = np.concatenate(self.mass)
        kinds = self._kinds()
        return {name: float(mass[kinds == number].sum() / mass.sum()) for number, name in enumerate(CATEGORIES)}

    def by_rank(self) -> dict[str, list[float]]:
        """Share of the texts whose aligned token of each rank is of a category; each rank sums to 1."""
        kinds = self._kinds()
        return {name: (kinds == number).mean(axis=0).tolist() for number, name in enumerate(CATEGORIES)}

    def _kinds(self) -> NDArray[np.int64]:
        """Numbers of CATEGORIES, N×depth."""
        ids, literal = np.concatenate(self.ids), np.concatenate(self.literal)
        meaningful = self.vocabulary.meaningful
        texts = np.bincount(ids.ravel(), minlength=len(meaningful))
        derived = meaningful & ~self.vocabulary.fragment & (texts <= max(1, self.common * len(ids)))
        return np.where(literal, np.where(meaningful[ids], 0, 1), np.where(derived[ids], 2, 3))
