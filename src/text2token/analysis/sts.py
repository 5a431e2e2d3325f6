"""How well the cosines of embeddings rank pairs of sentences with gold scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from text2token.data.sts import ScoredPairs
from text2token.model.embedder import Embedder


@dataclass(frozen=True)
class EmbeddedPairs:
    """Pairs embedded once, to be scored under any change of the embeddings.

    Attributes:
        left: N×d.
        right: N×d.
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
        """Embed pairs, each distinct sentence once.

        Args:
            embedder: Whose embeddings.
            pairs: N.
            keep: Called with what computes the vectors of the distinct sentences; may have them already.
            progress: Show a bar.
        """
        places = {text: place for place, text in enumerate(dict.fromkeys([*pairs.first, *pairs.second]))}

        def compute() -> Tensor:
            return embedder.embed(list(places), progress=progress)

        vectors = keep(compute) if keep else compute()
        left, right = (vectors[[places[text] for text in side]] for side in (pairs.first, pairs.second))
        return cls(left, right, pairs.scores)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> EmbeddedPairs:
        """The pairs with both sides mapped."""
        return EmbeddedPairs(change(self.left), change(self.right), self.scores)

    def spearman(self, shift: Tensor | float = 0.0) -> float:
        """:func:`cosine_spearman` × 100, after adding ``shift`` (d) to every embedding."""
        return 100 * cosine_spearman(self.left + shift, self.right + shift, self.scores)


def cosine_spearman(first: Tensor, second: Tensor, scores: NDArray[np.float64]) -> float:
    """Spearman correlation of the cosines of embeddings, both N×d, with the gold scores, as MTEB scores STS."""
    return float(spearmanr(torch.cosine_similarity(first, second).numpy(), scores).statistic)
