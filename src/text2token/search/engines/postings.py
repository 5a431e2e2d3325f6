"""An exact inverted index: for each term the documents that contain it, and their weights."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


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
        terms = query.indices[known].astype(np.int64)
        totals = np.zeros(documents, np.float32)
        touched = np.empty(documents, np.int32)
        count = _accumulate(*self, terms, query.data[known].astype(np.float32), totals, touched)
        found = touched[:count]
        return found, totals[found]


def merge(parts: Sequence[Postings], new_rows: Sequence[NDArray[np.int32]], out: Postings) -> None:
    """Copy the postings of several indexes into one.

    Args:
        parts: The indexes.
        new_rows: For each index the new row of each of its documents; -1 leaves a document out.
        out: Receives the postings. Its ``start`` is already set, and its other arrays may be memory-mapped.
    """
    cursor = out.start[:-1].copy()
    for part, rows in zip(parts, new_rows, strict=True):
        _copy(*part, rows, cursor, out.documents, out.weights)


def merged_start(parts: Sequence[Postings], new_rows: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """The ``start`` of the index that :func:`merge` fills."""
    terms = max(len(part.start) for part in parts) - 1
    counts = np.zeros(terms, np.int64)
    for part, rows in zip(parts, new_rows, strict=True):
        _count(part.start, part.documents, rows, counts)
    return np.concatenate([[0], np.cumsum(counts)])


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
def _accumulate(start, documents, weights, terms, factors, totals, touched):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    count = 0
    for i in range(len(terms)):
        for place in range(start[terms[i]], start[terms[i] + 1]):
            document, product = documents[place], factors[i] * weights[place]
            if totals[document] == 0 and product != 0:  # the product of two tiny weights can be 0
                touched[count] = document
                count += 1
            totals[document] += product
    return count


@numba.njit(cache=True, nogil=True)
def _count(start, documents, new_rows, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(len(start) - 1):
        for place in range(start[term], start[term + 1]):
            if new_rows[documents[place]] >= 0:
                counts[term] += 1


@numba.njit(cache=True, nogil=True)
def _copy(start, documents, weights, new_rows, cursor, out_documents, out_weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(len(start) - 1):
        for place in range(start[term], start[term + 1]):
            row = new_rows[documents[place]]
            if row >= 0:
                out_documents[cursor[term]] = row
                out_weights[cursor[term]] = weights[place]
                cursor[term] += 1
