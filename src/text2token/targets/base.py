"""Token targets, the interface of their builders, and conversions to and from sparse matrices."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import sparse


class Targets(NamedTuple):
    """Token targets ``q`` of a batch of texts: one ragged row of ids and weights per text.

    The weights of a row are positive and sum to 1. A text without any token to predict has an empty row.
    """

    ids: list[NDArray[np.int32]]
    weights: list[NDArray[np.float32]]


class TargetBuilder(Protocol):
    """Builds targets for a batch of texts.

    ``settings`` contains everything except text and tokenizer that the targets depend on. A target store is only reused if
    they are equal.
    """

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Build the targets of a batch."""
        ...

    @property
    def settings(self) -> dict[str, object]:
        """Everything except text and tokenizer that the targets depend on."""
        ...


def checksum(*arrays: NDArray[Any]) -> str:
    """SHA-256 of arrays that are too long to be written into the settings."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(array.tobytes())
    return digest.hexdigest()


def texts_checksum(texts: Sequence[str]) -> str:
    """SHA-256 of texts in their order, with a null byte between them."""
    digest = hashlib.sha256()
    for number, text in enumerate(texts):
        digest.update(f"\0{text}".encode() if number else text.encode())
    return digest.hexdigest()


def from_matrix(matrix: sparse.csr_matrix) -> Targets:
    """Scale each row of a non-negative B×V matrix to sum 1 and return its non-zero entries as targets."""
    matrix.eliminate_zeros()
    sizes = np.diff(matrix.indptr)
    totals = np.add.reduceat(np.append(matrix.data, 0.0), matrix.indptr[:-1]) if len(sizes) else np.empty(0)
    weights = (matrix.data / np.repeat(totals, sizes)).astype(np.float32)
    cuts = matrix.indptr[1:-1]
    return Targets(np.split(matrix.indices.astype(np.int32), cuts), np.split(weights, cuts))


def to_matrix(targets: Targets, vocabulary_size: int) -> sparse.csr_matrix:
    """Write targets as a B×V matrix, the inverse of :func:`from_matrix`."""
    indptr = np.cumsum([0, *map(len, targets.ids)])
    flat = (np.concatenate(targets.weights), np.concatenate(targets.ids), indptr)
    return sparse.csr_matrix(flat, shape=(len(targets.ids), vocabulary_size))


def mass_beyond(targets: Targets, counts: sparse.csr_matrix, groups: NDArray[np.int64]) -> NDArray[np.float32]:
    """Share of each text's target mass on tokens beyond the text; 0 for an empty target.

    A token is beyond the text if no literal token has its surface form. "Cat" is not beyond a text that contains " cat".

    Args:
        targets: N rows.
        counts: Term frequencies of the same texts, N×V.
        groups: V surface groups, see :attr:`text2token.model.vocabulary.Vocabulary.surface_groups`.
    """
    literal = np.split(counts.indices, counts.indptr[1:-1])
    rows = zip(targets.ids, targets.weights, literal, strict=True)
    return np.array([w[~np.isin(groups[ids], groups[tokens])].sum() for ids, w, tokens in rows], dtype=np.float32)
