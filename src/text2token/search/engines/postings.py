"""An exact inverted index: for each term the documents that contain it, and their weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_AT_ONCE = 2**22  # postings copied in a step, 32 MB
# NumPy needs less than a millisecond for so many postings or values; to load the compiled loops takes half a second.
_FEW = 2**16


class Postings(NamedTuple):
    """Weights of N documents, grouped by term. The postings of term ``t`` are at ``start[t]:start[t + 1]``.

    Attributes:
        start: First posting of each of T terms and the number of all postings, int64.
        documents: Row of the document of each posting, int32; within a term in any order.
        weights: Weight of each posting, float32, above 0.
    """

    start: NDArray[np.int64]
    documents: NDArray[np.int32]
    weights: NDArray[np.float32]

    @classmethod
    def of(cls, rows: csr_array) -> Postings:
        """The postings of a matrix of documents, N×T."""
        columns = rows.tocsc()
        columns.eliminate_zeros()
        return cls(columns.indptr.astype(np.int64), columns.indices.astype(np.int32), columns.data.astype(np.float32))

    def scores(self, query: csr_array, documents: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows of the documents that share a term with a query, and their inner products with it.

        The search is exact. It does one multiplication and one addition for each posting of the query's terms.

        Args:
            query: One row.
            documents: Number of documents, N.
        """
        known = query.indices < len(self.start) - 1
        return self.sums(query.indices[known].astype(np.int64), query.data[known].astype(np.float32), documents)

    def sums(
        self, terms: NDArray[np.int64], factors: NDArray[np.float32], documents: int
    ) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
        """Rows of the documents that have one of some terms, and the sums of their weights times the factors of the terms."""
        totals = np.zeros(documents, np.float32)
        places = [slice(self.start[term], self.start[term + 1]) for term in terms]
        if sum(own.stop - own.start for own in places) > _FEW:
            _compiled().accumulate(*self, terms, factors, totals)
            return _compiled().nonzero(totals)
        for own, factor in zip(places, factors, strict=True):
            np.add.at(totals, self.documents[own], factor * self.weights[own])
        rows = np.flatnonzero(totals).astype(np.int32)
        return rows, totals[rows]


def merge(parts: Sequence[Postings], new_rows: Sequence[NDArray[np.int32]], out: Postings) -> Iterator[None]:
    """Copy the postings of several indexes into one. Each step copies some terms and yields.

    Args:
        parts: The indexes.
        new_rows: For each index the new row of each of its documents; -1 leaves a document out.
        out: Receives the postings. Its ``start`` is already set, and its other arrays may be memory-mapped.
    """
    cursor = out.start[:-1].copy()
    for first, last in _portions(out.start):
        for part, rows in zip(parts, new_rows, strict=True):
            _compiled().copy(*part, rows, first, min(last, len(part.start) - 1), cursor, out.documents, out.weights)
        yield


def merged_start(
    parts: Sequence[Postings], new_rows: Sequence[NDArray[np.int32]], start: NDArray[np.int64]
) -> Iterator[None]:
    """Compute the ``start`` of the index that :func:`merge` fills, in steps as well.

    Args:
        parts: The indexes.
        new_rows: See :func:`merge`.
        start: Receives the result; zeros, one more than the largest number of terms.
    """
    for part, rows in zip(parts, new_rows, strict=True):
        for first, last in _portions(part.start):
            _compiled().count(part.start, part.documents, rows, first, last, start[1:])
            yield
    np.cumsum(start, out=start)


def kth_largest(values: NDArray[np.float32], k: int) -> np.float32:
    """Return the ``k``-th largest of at least ``k`` values."""
    found: np.float32 = _compiled().kth_largest(values, k) if len(values) > _FEW else np.partition(values, -k)[-k]
    return found


def _compiled() -> Any:
    """Return the compiled loops. Numba is loaded when they are needed first."""
    from text2token.search.engines import compiled_loops

    return compiled_loops


def _portions(start: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms that have about ``_AT_ONCE`` postings together, or one term each."""
    first, terms = 0, len(start) - 1
    while first < terms:
        last = max(first + 1, int(np.searchsorted(start, start[first] + _AT_ONCE, "right")) - 1)
        yield first, min(last, terms)
        first = last
