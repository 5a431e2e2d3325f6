"""Choose the fields to search, and fuse their rankings into one."""

from __future__ import annotations

import heapq
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from itertools import chain, repeat
from typing import NamedTuple, get_args

from text2token.search.engines.base import Engine, Matrix, ScoredId
from text2token.search.filters import Filter
from text2token.settings.search import HYBRID_WEIGHTS, FieldName, FusionMethod, Mode
from text2token.utils.errors import UserError, check_choice

_RANK_OFFSET = 60  # Cormack et al. 2009; a larger offset makes the first ranks stand out less


class Fusion(NamedTuple):
    """A way to fuse the rankings of several fields.

    Attributes:
        method: ``rrf`` adds reciprocal ranks, ``Σ w/(60 + rank)`` (Cormack et al. 2009). ``scores`` adds scores, ``Σ w·s``, after
            the scores of each field are divided by the largest one.
        weights: Weight ``w`` of each field; a field without an entry has weight 1.
        depth: Documents of each field that take part; at least ``k`` always do.
    """

    method: FusionMethod = "rrf"
    weights: Mapping[FieldName, float] = {}
    depth: int = 100


HYBRID = Fusion("scores", HYBRID_WEIGHTS)
"""Default of hybrid searches. Fusing scores was some points better than fusing ranks on known items."""


def fields_to_search(
    mode: Mode, available: Sequence[FieldName], fusion: Fusion, *, inference_free: bool
) -> list[FieldName]:
    """Return the fields to search.

    Args:
        mode: One field, or ``hybrid``: all fields with a weight above 0.
        available: Fields of the index.
        fusion: Weights of a hybrid search.
        inference_free: The query is not encoded, so the dense field is left out.

    Raises:
        UserError: There is no such mode, no field is left, or the fusion names a method or a field that does not exist.
    """
    if fusion.method not in get_args(FusionMethod):
        raise UserError(f"There is no fusion {fusion.method!r}: choose {' or '.join(get_args(FusionMethod))}.")
    if unknown := set(fusion.weights).difference(get_args(FieldName)):
        raise UserError(
            f"There is no field {min(unknown)!r} to weight: the fields are {', '.join(get_args(FieldName))}."
        )
    check_choice("mode", mode, get_args(Mode))
    if mode != "hybrid" and mode not in available:
        reason = "model has no decoding head" if mode == "sparse" else "engine keeps none"
        raise UserError(f"This index has no {mode} field, since its {reason}: choose another `mode`.")
    weighted: list[FieldName] = [field for field in available if fusion.weights.get(field, 1.0) > 0]
    if not weighted:
        raise UserError("All fields have weight 0: give at least one of them a larger weight.")
    fields = weighted if mode == "hybrid" else [mode]
    if inference_free and fields == ["dense"]:
        raise UserError("A dense search needs the model: choose another `mode`, or do not set inference_free.")
    return [field for field in fields if field != "dense" or not inference_free]


def search(
    engine: Engine,
    query: Mapping[FieldName, Matrix],
    k: int,
    fusion: Fusion,
    filters: Sequence[Filter] = (),
    lost: list[str] | None = None,
) -> list[ScoredId]:
    """The ``k`` best documents of one field, or of several fields after fusion.

    Args:
        engine: Holds the documents.
        query: Vector of the query in each field, one row each.
        k: Largest number of hits.
        fusion: How several fields are fused.
        filters: Conditions on the metadata of the documents.
        lost: Ask for a partial answer, and receives the names of shards that did not answer; None: such a shard is an error.
    """
    if len(query) == 1:
        ((field, rows),) = query.items()
        return engine.search(field, rows, k, filters, lost)
    depth = max(fusion.depth, k)

    def ranked(field: FieldName) -> list[ScoredId]:
        return engine.search(field, query[field], depth, filters, lost)

    if not engine.in_process:
        return fuse({field: ranked(field) for field in query}, k, fusion)
    first, *others = query  # the dense field, which takes longest, if it is searched
    waiting = _second_thread(os.getpid()).submit(ranked, first)
    rankings = {field: ranked(field) for field in others}
    return fuse({first: waiting.result(), **rankings}, k, fusion)


@cache
def _second_thread(process: int) -> ThreadPoolExecutor:
    """A thread beside that of the caller; a forked process needs its own."""
    return ThreadPoolExecutor(1, f"search-{process}")


def fuse(rankings: Mapping[FieldName, Sequence[ScoredId]], k: int, fusion: Fusion) -> list[ScoredId]:
    """Fuse the rankings of several fields. The result is ordered by fused score, and equal scores by id.

    A field contributes 0 to a document that it does not rank. With ``scores``, negative scores count as 0: dividing by a negative
    maximum would reverse the ranking.

    Args:
        rankings: Hits of each field, best first; all of them take part.
        k: Largest number of hits.
        fusion: Method and weights.
    """
    shares = {field: _shares(hits, fusion, fusion.weights.get(field, 1.0)) for field, hits in rankings.items()}
    names = list(dict.fromkeys(chain.from_iterable(shares.values())))
    of_fields = zip(*(map(own.get, names, repeat(0.0)) for own in shares.values()), strict=True)
    # fsum is exact, so equal shares give equal sums in any order of the fields
    totals = zip((-total for total in map(math.fsum, of_fields)), names, strict=True)
    return [
        ScoredId(name, -total, {field: own[name] for field, own in shares.items() if name in own})
        for total, name in heapq.nsmallest(k, totals)
    ]


def _shares(hits: Sequence[ScoredId], fusion: Fusion, weight: float) -> dict[str, float]:
    """What a field contributes to each document: its weight times the reciprocal rank, or times the score from 0 to 1."""
    if fusion.method == "rrf":
        return {hit.id: weight * (1 / (_RANK_OFFSET + rank)) for rank, hit in enumerate(hits, start=1)}
    largest = max((hit.score for hit in hits), default=0.0)
    return {name: weight * (score / largest if score > 0 else 0.0) for name, score, _ in hits}
