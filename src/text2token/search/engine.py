"""What every engine does: keep the vectors of documents by id, and rank the documents for a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

Side = Literal["sparse", "dense", "bm25"]
Rows: TypeAlias = csr_array | NDArray[np.float32]
"""Vectors of N texts, N rows: of the dense side an array of unit length rows, of the others a matrix in CSR form."""


class Fusion(NamedTuple):
    """How the rankings of several sides become one.

    Attributes:
        method: ``rrf``: reciprocal ranks, ``Σ w/(60 + rank)`` (Cormack et al. 2009). ``scores``: ``Σ w·s``, with the scores of
            a side divided by its best one.
        weights: ``w`` by side; a side without one has 1.
        depth: Documents of each side that take part.
    """

    method: Literal["rrf", "scores"] = "rrf"
    weights: Mapping[Side, float] = {}
    depth: int = 100


class Hit(NamedTuple):
    """A document and its score, larger is better; of a fused score, what each side gave to it, where it was fused here."""

    id: str
    score: float
    shares: Mapping[Side, float] = MappingProxyType({})


class Engine(Protocol):
    """Scores are inner products of a query vector and document vectors; several sides are fused."""

    def add(self, ids: Sequence[str], vectors: Mapping[Side, Rows]) -> None:
        """Keep documents, all sides of each; one whose id is there already takes its place. Durable when it returns."""

    def delete(self, ids: Sequence[str]) -> None:
        """Forget documents; ids that are not there are passed over."""

    def finish(self) -> None:
        """Make ready for searches what has been added: once after many additions, not after each."""

    def search(self, query: Mapping[Side, Rows], k: int, fusion: Fusion) -> list[Hit]:
        """The ``k`` best documents for a query of one row a side, by falling score; of equal ones the smaller id first.

        Documents that share nothing with the query on a sparse or BM25 side are no hits of it.
        """

    def count(self) -> int:
        """How many documents there are."""
