"""The items that a task's score is computed from: queries, pairs or texts. Intervals and paired comparisons need them.

The bootstrap draws items with replacement. Its intervals therefore describe other queries or pairs of the same kind, not other
seeds or tasks. Two models are compared on the same draws.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score

from text2token.utils.files import atomic_write

DRAWS = 1_000  # 25 draws lie outside either end of a 95 % interval; twice as many moved no end by more than a tenth of its width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """The items of one split and subset.

    Attributes:
        kind: How to compute the score: ``mean`` of the values, or ``spearman`` or ``average_precision`` of values and gold.
        values: One number per item: its own score, or the similarity of a pair.
        gold: The true scores or labels of pairs; empty for ``mean``.
    """

    kind: str
    values: Floats
    gold: Floats

    def score(self, drawn: NDArray[np.intp]) -> float:
        """The score of a draw: places of items, with repetitions."""
        return _SCORES[self.kind](self.values[drawn], self.gold[drawn] if len(self.gold) else self.gold)

    def matches(self, other: Part) -> bool:
        """Are these the same items, perhaps evaluated with another model?"""
        same = self.kind == other.kind and len(self.values) == len(other.values)
        return same and np.array_equal(self.gold, other.gold)


@dataclass(frozen=True)
class Items:
    """The items of one task; its score is the mean over its parts.

    Attributes:
        unit: The word for one item: query, pair, text, clustering or document.
        parts: One part per split and subset.
    """

    unit: str
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.values) for part in self.parts)

    @property
    def score(self) -> float:
        """The score of all items, between 0 and 1; it equals mteb's main score."""
        return self._score([np.arange(len(part.values)) for part in self.parts])

    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval of the score."""
        return percentile_interval(self.draws())

    def draws(self, seed: int = 0) -> Floats:
        """Scores of ``DRAWS`` samples of the items with replacement; all models of a task get the same samples.

        Args:
            seed: Use a different one for each task, so that the draws of different tasks are independent.
        """
        rng = np.random.default_rng(seed)
        sizes = [len(part.values) for part in self.parts]
        return np.array([self._score([rng.integers(size, size=size) for size in sizes]) for _ in range(DRAWS)])

    def matches(self, other: Items) -> bool:
        """Are these the same items, perhaps evaluated with another model?"""
        same = len(self.parts) == len(other.parts)
        return same and all(mine.matches(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True))

    def save(self, file: Path) -> None:
        """Write as ``.npz``."""
        arrays: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            arrays |= {f"values{number}": part.values, f"gold{number}": part.gold}
        with atomic_write(file) as whole, whole.open("wb") as stream:
            np.savez_compressed(stream, unit=self.unit, kinds=[part.kind for part in self.parts], **arrays)

    @classmethod
    def load(cls, file: Path) -> Items:
        """Read a file that :meth:`save` wrote."""
        with np.load(file) as found:
            parts = [Part(str(kind), found[f"values{i}"], found[f"gold{i}"]) for i, kind in enumerate(found["kinds"])]
            return cls(str(found["unit"]), tuple(parts))

    def _score(self, drawn: list[NDArray[np.intp]]) -> float:
        return float(np.mean([part.score(places) for part, places in zip(self.parts, drawn, strict=True)]))


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)


def spearman(values: Floats, gold: Floats) -> float:
    """Spearman's ρ of N values and N gold scores."""
    return float(np.corrcoef(rankdata(values), rankdata(gold))[0, 1])


_SCORES: dict[str, Callable[[Floats, Floats], float]] = {
    "mean": lambda values, _: float(values.mean()),
    "spearman": spearman,
    "average_precision": lambda values, gold: float(average_precision_score(gold, values)) if gold.any() else math.nan,
}
