"""Semantic textual similarity: how well cosines rank pairs of sentences that have gold scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from text2token.data.sts import ScoredPairs
from text2token.model.embedder import Embedder


@dataclass(frozen=True)
class EmbeddedPairs:
    """Embeddings of pairs, which can be scored under several changes without encoding the texts again.

    Attributes:
        left: Embeddings of the first sentences, N×d.
        right: Embeddings of the second sentences, N×d.
        scores: N gold scores.
    """

    left: Tensor
    right: Tensor
    scores: NDArray[np.float64]

    @classmethod
    def embed(
        cls,
        embedder: Embedder,
        pairs: ScoredPairs,
        *,
        keep: Callable[[Callable[[], Tensor]], Tensor] | None = None,
        progress: bool = False,
    ) -> EmbeddedPairs:
        """Embed N pairs; a sentence that occurs several times is encoded once.

        Args:
            embedder: Computes the embeddings.
            pairs: N pairs.
            keep: Called with the function that computes the embeddings, and returns them, for example from a cache.
            progress: Show a progress bar.
        """
        compute = partial(embedder.embed, [*pairs.first, *pairs.second], progress=progress)
        left, right = (keep(compute) if keep else compute()).split(len(pairs.first))
        return cls(left, right, pairs.scores)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> EmbeddedPairs:
        """Apply the same change to both sides."""
        return EmbeddedPairs(change(self.left), change(self.right), self.scores)

    def spearman(self, shift: Tensor | float = 0.0) -> float:
        """Add ``shift`` (d) to every embedding, and return :func:`cosine_spearman`."""
        return cosine_spearman(self.left + shift, self.right + shift, self.scores)


def cosine_spearman(first: Tensor, second: Tensor, scores: NDArray[np.float64]) -> float:
    """Spearman's ρ, from −1 to 1, between the cosines of two N×d embeddings and N gold scores. MTEB scores STS in this way."""
    return float(spearmanr(torch.cosine_similarity(first, second).numpy(), scores).statistic)
