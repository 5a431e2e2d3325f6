"""An exact inverted index: for each term the documents that contain it, and their weights."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

_AT_ONCE = 2**22  # postings copied in a step, 32 MB


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
        _accumulate(*self, terms, factors, totals)
        return _nonzero(totals)


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
            _copy(*part, rows, first, min(last, len(part.start) - 1), cursor, out.documents, out.weights)
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
            _count(part.start, part.documents, rows, first, last, start[1:])
            yield
    np.cumsum(start, out=start)


def _portions(start: NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    """Ranges of terms that have about ``_AT_ONCE`` postings together, or one term each."""
    first, terms = 0, len(start) - 1
    while first < terms:
        last = max(first + 1, int(np.searchsorted(start, start[first] + _AT_ONCE, "right")) - 1)
        yield first, min(last, terms)
        first = last


@numba.njit(cache=True, nogil=True)
def kth_largest(values, k):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """The ``k``-th largest of at least ``k`` values, in one pass. ``np.partition`` copies and moves all of them."""
    kept = [values[i] for i in range(k)]
    heapq.heapify(kept)
    for i in range(k, len(values)):
        if values[i] > kept[0]:
            heapq.heapreplace(kept, values[i])
    return kept[0]


@numba.njit(cache=True, nogil=True)
def _accumulate(start, documents, weights, terms, factors, totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for i in range(len(terms)):
        for place in range(start[terms[i]], start[terms[i] + 1]):
            totals[documents[place]] += factors[i] * weights[place]


@numba.njit(cache=True, nogil=True)
def _nonzero(totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    """Places and values of the totals that are not 0. A list that is kept while they grow would cost a branch a posting."""
    rows, values, count = np.empty(len(totals), np.int32), np.empty(len(totals), np.float32), 0
    for row in range(len(totals)):
        rows[count], values[count] = row, totals[row]
        count += totals[row] != 0
    return rows[:count], values[:count]


@numba.njit(cache=True, nogil=True)
def _count(start, documents, new_rows, first, last, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(first, last):
        for place in range(start[term], start[term + 1]):
            if new_rows[documents[place]] >= 0:
                counts[term] += 1


@numba.njit(cache=True, nogil=True)
def _copy(start, documents, weights, new_rows, first, last, cursor, out_documents, out_weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(first, last):
        for place in range(start[term], start[term + 1]):
            row = new_rows[documents[place]]
            if row >= 0:
                out_documents[cursor[term]] = row
                out_weights[cursor[term]] = weights[place]
                cursor[term] += 1
