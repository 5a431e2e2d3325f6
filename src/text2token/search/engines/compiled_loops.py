"""Loops over postings that Numba compiles."""

from __future__ import annotations

import heapq

import numba
import numpy as np


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
def accumulate(start, documents, weights, terms, factors, totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Add the weights of all postings of some terms, times the factors of the terms, to the totals of their documents."""
    for i in range(len(terms)):
        for place in range(start[terms[i]], start[terms[i] + 1]):
            totals[documents[place]] += factors[i] * weights[place]


@numba.njit(cache=True, nogil=True)
def nonzero(totals):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Places and values of the totals that are not 0. Collecting them during the sum would add a branch for each posting."""
    rows, values, count = np.empty(len(totals), np.int32), np.empty(len(totals), np.float32), 0
    for row in range(len(totals)):
        rows[count], values[count] = row, totals[row]
        count += totals[row] != 0
    return rows[:count], values[:count]


@numba.njit(cache=True, nogil=True)
def count(start, documents, new_rows, first, last, counts):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Add the number of postings of each term from ``first`` to ``last`` whose documents stay; see ``merge``."""
    for term in range(first, last):
        for place in range(start[term], start[term + 1]):
            if new_rows[documents[place]] >= 0:
                counts[term] += 1


@numba.njit(cache=True, nogil=True)
def copy(start, documents, weights, new_rows, first, last, cursor, out_documents, out_weights):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN201
    """Copy the postings of the terms from ``first`` to ``last`` whose documents stay, each to the place of its term's cursor."""
    for term in range(first, last):
        for place in range(start[term], start[term + 1]):
            row = new_rows[documents[place]]
            if row >= 0:
                out_documents[cursor[term]] = row
                out_weights[cursor[term]] = weights[place]
                cursor[term] += 1
