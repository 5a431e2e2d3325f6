"""An exact inverted index: the documents of each term, in CSC form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array


class Postings(NamedTuple):
    """Weights of N documents by term: those of term ``t`` stand at ``start[t]:start[t + 1]``.

    Attributes:
        start: T+1 places, int64.
        documents: Row of each posting, int32; of any order inside a term.
        weights: Its weight, float32, above 0.
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
        """Documents that share a term with a query of one row, and their inner products with it.

        The work is one multiplication and addition for each posting of the query's terms: exact, and mostly far less than
        there are documents.
        """
        known = query.indices < len(self.start) - 1
        terms = query.indices[known].astype(np.int64)
        totals = np.zeros(documents, np.float32)
        touched = np.empty(documents, np.int32)
        count = _accumulate(*self, terms, query.data[known].astype(np.float32), totals, touched)
        found = touched[:count]
        return found, totals[found]


def merge(parts: Sequence[Postings], places: Sequence[NDArray[np.int32]], out: Postings) -> None:
    """Fill ``out``, whose ``start`` is known, with the postings of several indexes.

    Args:
        parts: The indexes.
        places: For each the new row of each of its documents, or -1 where it is left out.
        out: Arrays of the right size, which may lie on disk.
    """
    cursor = out.start[:-1].copy()
    for part, place in zip(parts, places, strict=True):
        _copy(*part, place, cursor, out.documents, out.weights)


def kept(parts: Sequence[Postings], places: Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
    """The ``start`` of the merged index."""
    terms = max(len(part.start) for part in parts) - 1
    counts = np.zeros(terms, np.int64)
    for part, place in zip(parts, places, strict=True):
        _count(part.start, part.documents, place, counts)
    return np.concatenate([[0], np.cumsum(counts)])


@numba.njit(cache=True, nogil=True)
def _accumulate(start, documents, weights, terms, factors, totals, touched):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    count = 0
    for i in range(len(terms)):
        for place in range(start[terms[i]], start[terms[i] + 1]):
            document, product = documents[place], factors[i] * weights[place]
            if totals[document] == 0 and product != 0:  # which is 0 where two tiny weights meet
                touched[count] = document
                count += 1
            totals[document] += product
    return count


@numba.njit(cache=True, nogil=True)
def _count(start, documents, places, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(len(start) - 1):
        for place in range(start[term], start[term + 1]):
            if places[documents[place]] >= 0:
                counts[term] += 1


@numba.njit(cache=True, nogil=True)
def _copy(start, documents, weights, places, cursor, out_documents, out_weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
    for term in range(len(start) - 1):
        for place in range(start[term], start[term + 1]):
            row = places[documents[place]]
            if row >= 0:
                out_documents[cursor[term]] = row
                out_weights[cursor[term]] = weights[place]
                cursor[term] += 1
