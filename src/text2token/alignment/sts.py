"""Pairs of sentences with gold scores, and how well the cosines of their embeddings rank them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

from text2token.corpus import pick, read_table
from text2token.embedder import Embedder
from text2token.errors import UserError

_COLUMNS = ("sentence1", "sentence2", "score")


class ScoredPairs(NamedTuple):
    """N pairs of sentences and their gold scores."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]


def read_sts(file: Path, pairs: int | None = None) -> ScoredPairs:
    """Read pairs from the columns ``sentence1``, ``sentence2`` and ``score``.

    Args:
        file: ``.jsonl``, ``.csv`` or ``.parquet``.
        pairs: Draw so many, always the same ones; None: all.

    Raises:
        UserError: No such file or column, an empty sentence, a score that is no number, or scores that are all the same.
    """
    rows = []
    for row in read_table(file, _COLUMNS):
        if row.values is None:
            continue
        first, second, score = (pick(row, column, "rename the one that holds it") for column in _COLUMNS)
        if not all(isinstance(text, str) and text.strip() for text in (first, second)) or not _is_number(score):
            raise UserError(f"{row.place}: expected two sentences and a number as their score; mend or drop it.")
        rows.append((first, second, float(score)))
    if pairs is not None and len(rows) > pairs:
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:pairs]]
    if len({score for _, _, score in rows}) < 2:
        raise UserError(f"{file} needs pairs of at least two different scores: nothing can be ranked otherwise.")
    return ScoredPairs([a for a, _, _ in rows], [b for _, b, _ in rows], np.array([score for _, _, score in rows]))


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


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
