"""What every engine does: keep the vectors of documents by id, and rank the documents on one side for a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.settings.search import Side

Rows: TypeAlias = csr_array | NDArray[np.float32]
"""Vectors of N texts, N rows: of the dense side an array of unit length rows, of the others a matrix in CSR form."""


class Hit(NamedTuple):
    """A document and its score, larger is better; of a fused score, what each side gave to it, where it was fused here."""

    id: str
    score: float
    shares: Mapping[Side, float] = MappingProxyType({})


def best(hits: Sequence[Hit], k: int) -> list[Hit]:
    """The ``k`` hits of the largest scores; of equal ones the smaller id first."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


class Engine(Protocol):
    """Scores are inner products of a query vector and document vectors."""

    def add(self, ids: Sequence[str], vectors: Mapping[Side, Rows]) -> None:
        """Keep documents, all their sides; a known id is replaced. No kill undoes it once it has returned."""

    def delete(self, ids: Sequence[str]) -> None:
        """Forget documents; ids that are not there are passed over."""

    def finish(self) -> None:
        """Make ready for searches what has been added: once after many additions, not after each."""

    def search(self, side: Side, query: Rows, k: int) -> list[Hit]:
        """The ``k`` best documents on one side for a query of one row, by falling score; of equal ones the smaller id first.

        Documents that share nothing with the query on a sparse or BM25 side are no hits of it.
        """

    def count(self) -> int:
        """How many documents there are."""


@runtime_checkable
class RankFusingEngine(Engine, Protocol):
    """An engine that can fuse sides itself, by reciprocal ranks of equal weight."""

    def hybrid(self, query: Mapping[Side, Rows], k: int, depth: int) -> list[Hit]:
        """The ``k`` best documents for a query of one row per side, from the first ``depth`` of each; without shares."""
