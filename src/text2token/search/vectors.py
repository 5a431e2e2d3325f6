"""Sparse vectors of documents and queries: their literal tokens, and the tokens that their embedding aligns with (ours).

Queries and documents put literal words and aligned tokens into the same columns. So a query word also matches a document that is
aligned with it without containing it, and an aligned token of the query matches a document that contains it.

The idea of aligned tokens as sparse vectors is from arXiv 2406.17378; weights and idf are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from text2token.model.query_table import Entries
from text2token.model.tokens import count_tokens, flat_token_ids
from text2token.model.vocabulary import Vocabulary, read_vocabulary
from text2token.search.bm25 import idf, impacts
from text2token.settings.search import VectorSettings
from text2token.utils.arrays import sum_by_key

_FORMS = 4  # entries read for each column that is kept: most columns have fewer forms among the strongest entries


@dataclass(frozen=True)
class TokenSpace:
    """The columns of sparse vectors: groups of vocabulary entries that differ only in case and leading space.

    Attributes:
        tokenizer: Tokenizer of the backbone. It must not truncate.
        size: V, number of rows of the decoding head.
    """

    tokenizer: Tokenizer
    size: int

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """Properties of each vocabulary entry."""
        return read_vocabulary(self.tokenizer, self.size)

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """Column of each of V entries.

        The columns of byte pieces are the last ones, and all blank entries share one, as in indexes that were made before.
        """
        groups = self.vocabulary.surface_groups
        groups = np.where(self._blank, groups[self._blank].min(initial=groups.max()), groups)
        last = groups.max() + 1 + np.arange(self.size)
        return np.unique(np.where(self.vocabulary.byte_piece, last, groups), return_inverse=True)[1]

    @cached_property
    def width(self) -> int:
        """C, number of columns."""
        return int(self.columns.max()) + 1

    @cached_property
    def names(self) -> list[str]:
        """Text of each of C columns."""
        names = [""] * self.width
        for column, surface in zip(self.columns[::-1], reversed(self.vocabulary.surfaces), strict=True):
            names[column] = surface.strip()
        return names

    @cached_property
    def meaningful(self) -> NDArray[np.bool_]:
        """C booleans: True for columns with a meaningful entry."""
        found = np.zeros(self.width, bool)
        found[self.columns[self.vocabulary.meaningful]] = True
        return found

    @cached_property
    def _blank(self) -> NDArray[np.bool_]:
        """V booleans: True for white space and ids without a token, which no vector holds."""
        return np.array([not surface.strip() for surface in self.vocabulary.surfaces])

    @cached_property
    def _literal(self) -> NDArray[np.bool_]:
        """V booleans: False for control tokens and white space."""
        return ~self.vocabulary.special & ~self._blank

    def count(self, texts: list[str]) -> csr_array:
        """Number of occurrences of each column in each text, N×C, without control tokens and white space."""
        ids, ends = flat_token_ids(self.tokenizer, _lowered(texts), self.size, None)
        literal = self._literal[ids]
        rows = np.repeat(np.arange(len(texts)), ends[1:] - ends[:-1])[literal]
        return summed(rows, self.columns[ids[literal]], np.ones(len(rows), np.float32), (len(texts), self.width))

    def merge(self, counts: csr_array) -> csr_array:
        """The counts of columns, N×C, from those of vocabulary entries, N×V; see :func:`raw_counts`."""
        literal = self._literal[counts.indices]
        columns = self.columns[counts.indices[literal]]
        return summed(row_numbers(counts)[literal], columns, counts.data[literal], (counts.shape[0], self.width))

    def strongest(self, entries: Sequence[Entries], k: int) -> csr_array:
        """The ``k`` strongest columns of N texts, N×C, each row divided by its largest weight.

        Args:
            entries: For each text, vocabulary entries and their weights. Only meaningful entries count, and a column has the
                largest weight of its entries.
            k: Columns kept for each text.
        """
        rows = []
        for ids, weights in entries:
            columns, largest = self._largest(ids, weights, _FORMS * k)
            if len(columns) < k:  # so few columns have the strongest entries
                columns, largest = self._largest(ids, weights, len(ids))
            top = np.argsort(-largest, kind="stable")[:k]
            rows.append((columns[top], largest[top] / max(largest.max(initial=0), 1e-9)))
        ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        columns, weights = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        found = csr_array((weights, columns, ends), shape=(len(rows), self.width))
        found.eliminate_zeros()
        return found

    def _largest(
        self, ids: NDArray[np.int64], weights: NDArray[np.float32], strongest: int
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The columns of the strongest meaningful entries, and the largest weight of each."""
        meaningful = self.vocabulary.meaningful[ids]
        ids, weights = ids[meaningful], weights[meaningful]
        if strongest < len(ids):
            enough = weights >= np.partition(weights, -strongest)[-strongest]
            ids, weights = ids[enough], weights[enough]
        columns, places = np.unique(self.columns[ids], return_inverse=True)
        largest = np.zeros(len(columns), np.float32)
        np.maximum.at(largest, places.ravel(), weights)
        return columns, largest


def raw_counts(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> csr_array:
    """Number of occurrences of each of ``size`` vocabulary entries in each text, N×V."""
    return csr_array(count_tokens(tokenizer, _lowered(texts), size, None))


def _lowered(texts: Sequence[str]) -> list[str]:
    """Texts in which the same words have the same tokens.

    A space is put before each text, so that its first word has the same tokens as inside a sentence. Texts are lower-cased,
    since words in capitals are cut into other tokens and the columns ignore case.
    """
    return [f" {text.lower()}" for text in texts]


def row_numbers(matrix: csr_array) -> NDArray[np.int64]:
    """The row of each entry of a sparse matrix."""
    return np.repeat(np.arange(matrix.shape[0]), matrix.indptr[1:] - matrix.indptr[:-1])


def summed(
    rows: NDArray[np.int64], columns: NDArray[np.int64], weights: NDArray[np.float32], shape: tuple[int, int]
) -> csr_array:
    """A sparse matrix, in which entries of the same place are added. For a query SciPy takes several times as long."""
    places, totals = sum_by_key(rows * shape[1] + columns, weights)
    ends = np.searchsorted(places, np.arange(shape[0] + 1) * shape[1])
    return csr_array((totals.astype(np.float32), places % shape[1], ends), shape=shape)


@dataclass(frozen=True)
class TokenVectors:
    """Combines literal and aligned tokens into sparse vectors.

    Attributes:
        space: Columns of the vectors.
        settings: Weights of aligned tokens.
    """

    space: TokenSpace
    settings: VectorSettings

    def documents(self, counts: csr_array, aligned: csr_array, average: float) -> csr_array:
        """Vectors of documents, N×C.

        Args:
            counts: Literal tokens, N×C.
            aligned: Aligned tokens, N×C; see :meth:`text2token.search.encoder.TextEncoder.aligned`.
            average: Mean number of literal tokens of a document.
        """
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        return csr_array(impacts(counts, lengths, average) + self.settings.document_share * aligned)

    def queries(
        self, counts: csr_array, aligned: csr_array | None, frequencies: NDArray[np.int64], documents: int
    ) -> csr_array:
        """Vectors of queries, N×C.

        Stop words and punctuation count only in a query that has nothing else. They have the longest postings and say least.

        Args:
            counts: Literal tokens, N×C.
            aligned: Aligned tokens, N×C; None if the queries are not encoded.
            frequencies: Number of documents that contain each column, C.
            documents: Number of documents.
        """
        rows, columns, weights = self._without_stop_words(counts)
        if aligned is not None:
            rows = np.concatenate([rows, row_numbers(aligned)])
            columns = np.concatenate([columns, aligned.indices])
            weights = np.concatenate([weights, np.float32(self.settings.query_share) * aligned.data])
        found = summed(rows, columns, weights, counts.shape)
        found.data *= idf(frequencies[found.indices], documents)
        return found

    def _without_stop_words(
        self, counts: csr_array
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        """Rows, columns and counts without stop words and punctuation; a row that has nothing else stays as it is."""
        meaningful = self.space.meaningful[counts.indices]
        rows = row_numbers(counts)
        row_has_more = np.bincount(rows, meaningful, minlength=counts.shape[0])[rows] > 0
        kept = meaningful | ~row_has_more
        return rows[kept], counts.indices[kept], counts.data[kept]
