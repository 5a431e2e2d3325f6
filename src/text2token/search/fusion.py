"""A search of several sides: each is ranked, and the rankings become one."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from text2token.search.engine import Engine, Hit, RankFusingEngine, Rows, best
from text2token.settings.search import FusionMethod, Side

RANK_OFFSET = 60  # of Cormack et al. 2009: how little the very first ranks stand out


class Fusion(NamedTuple):
    """How the rankings of several sides become one.

    Attributes:
        method: ``rrf``: reciprocal ranks, ``Σ w/(60 + rank)`` (Cormack et al. 2009). ``scores``: ``Σ w·s``, with the scores of
            a side divided by its best one.
        weights: ``w`` by side; a side without one has 1.
        depth: Documents of each side that take part, or ``k``, where that is more.
    """

    method: FusionMethod = "rrf"
    weights: Mapping[Side, float] = {}
    depth: int = 100


def search(engine: Engine, query: Mapping[Side, Rows], k: int, fusion: Fusion) -> list[Hit]:
    """The ``k`` best documents of one side, or of several, fused: by the engine where it can, else here.

    Args:
        engine: Has the documents.
        query: One row per side.
        k: How many documents to return, at most.
        fusion: Of several sides.
    """
    if len(query) == 1:
        ((side, rows),) = query.items()
        return engine.search(side, rows, k)
    depth = max(fusion.depth, k)
    if fusion.method == "rrf" and not fusion.weights and isinstance(engine, RankFusingEngine):
        return engine.hybrid(query, k, depth)
    return fuse({side: engine.search(side, rows, depth) for side, rows in query.items()}, k, fusion)


def fuse(rankings: Mapping[Side, Sequence[Hit]], k: int, fusion: Fusion) -> list[Hit]:
    """The ``k`` best documents of several rankings, by falling fused score; of equal ones the smaller id first.

    A document that a side does not rank gets nothing from it. By ``scores``, neither does one whose score is negative, so that
    a side where all are so has no say: nothing there resembles the query, and the sign would turn its order around.

    Args:
        rankings: Hits of each side, best first; all of them take part.
        k: How many documents to return, at most.
        fusion: Method and weights.
    """
    shares: dict[str, dict[Side, float]] = defaultdict(dict)
    for side, hits in rankings.items():
        weight = fusion.weights.get(side, 1.0)
        for hit, value in zip(hits, _values(hits, fusion), strict=True):
            shares[hit.id][side] = weight * value
    # Exact sums, so that equal shares tie in whatever order they come.
    return best([Hit(name, math.fsum(own.values()), own) for name, own in shares.items()], k)


def _values(hits: Sequence[Hit], fusion: Fusion) -> list[float]:
    if fusion.method == "rrf":
        return [1 / (RANK_OFFSET + rank) for rank in range(1, len(hits) + 1)]
    largest = max((hit.score for hit in hits), default=0.0)
    return [max(hit.score, 0.0) / largest if largest > 0 else 0.0 for hit in hits]
