"""Several rankings of the same documents become one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence

from text2token.search.engine import Fusion, Hit, Side

RANK_OFFSET = 60  # of Cormack et al. 2009: how little the very first ranks stand out


def fuse(rankings: Mapping[Side, Sequence[Hit]], k: int, fusion: Fusion) -> list[Hit]:
    """The ``k`` best documents of several rankings, by falling fused score; of equal ones the smaller id first.

    A document that a side does not rank gets nothing from it. By ``scores``, neither does one whose score is negative, so that
    a side where all are so has no say: nothing there resembles the query, and the sign would turn its order around.

    Args:
        rankings: Hits of each side, best first; the first ``fusion.depth`` take part.
        k: How many documents to return, at most.
        fusion: See :class:`~text2token.search.engine.Fusion`.
    """
    shares: dict[str, dict[Side, float]] = defaultdict(dict)
    for side, hits in rankings.items():
        weight = fusion.weights.get(side, 1.0)
        for hit, value in zip(hits[: fusion.depth], _values(hits[: fusion.depth], fusion), strict=True):
            shares[hit.id][side] = weight * value
    # Exact sums, so that equal shares tie in whatever order they come.
    return best([Hit(name, math.fsum(own.values()), own) for name, own in shares.items()], k)


def best(hits: Sequence[Hit], k: int) -> list[Hit]:
    """The ``k`` hits of the largest scores; of equal ones the smaller id first."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def _values(hits: Sequence[Hit], fusion: Fusion) -> list[float]:
    if fusion.method == "rrf":
        return [1 / (RANK_OFFSET + rank) for rank in range(1, len(hits) + 1)]
    largest = max((hit.score for hit in hits), default=0.0)
    return [max(hit.score, 0.0) / largest if largest > 0 else 0.0 for hit in hits]
