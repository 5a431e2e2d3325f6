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
from text2token.model.vocabulary import Vocabulary, count_tokens, read_vocabulary
from text2token.search.bm25 import idf, impacts
from text2token.settings.search import VectorSettings


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
        """Column of each of V entries. Entries that are only part of a character look alike, so each has its own column."""
        groups = self.vocabulary.surface_groups
        separate = groups.max() + 1 + np.arange(self.size)
        return np.unique(np.where(self.vocabulary.byte_piece, separate, groups), return_inverse=True)[1]

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
    def _literal(self) -> NDArray[np.bool_]:
        """V booleans: False for control tokens and white space."""
        return ~self.vocabulary.special & np.array([bool(surface.strip()) for surface in self.vocabulary.surfaces])

    def count(self, texts: list[str]) -> csr_array:
        """Number of occurrences of each column in each text, N×C, without control tokens and white space."""
        return self.merge(raw_counts(self.tokenizer, texts, self.size))

    def merge(self, counts: csr_array) -> csr_array:
        """The counts of columns, N×C, from those of vocabulary entries, N×V; see :func:`raw_counts`."""
        literal = self._literal[counts.indices]
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))[literal]
        columns = self.columns[counts.indices[literal]]
        merged = csr_array((counts.data[literal], (rows, columns)), shape=(counts.shape[0], self.width))
        merged.sum_duplicates()
        return merged

    def strongest(self, entries: Sequence[Entries], k: int) -> csr_array:
        """The ``k`` strongest columns of N texts, N×C, each row divided by its largest weight.

        Args:
            entries: For each text, vocabulary entries and their weights. Only meaningful entries count, and a column has the
                largest weight of its entries.
            k: Columns kept for each text.
        """
        rows = []
        for ids, weights in entries:
            meaningful = self.vocabulary.meaningful[ids]
            columns, places = np.unique(self.columns[ids[meaningful]], return_inverse=True)
            largest = np.zeros(len(columns), np.float32)
            np.maximum.at(largest, places.ravel(), weights[meaningful])
            top = np.argsort(-largest, kind="stable")[:k]
            rows.append((columns[top], largest[top] / max(largest.max(initial=0), 1e-9)))
        ends = np.cumsum([0, *(len(columns) for columns, _ in rows)])
        columns, weights = (np.concatenate(parts) for parts in zip(*rows, strict=True))
        found = csr_array((weights, columns, ends), shape=(len(rows), self.width))
        found.eliminate_zeros()
        return found


def raw_counts(tokenizer: Tokenizer, texts: Sequence[str], size: int) -> csr_array:
    """Number of occurrences of each of ``size`` vocabulary entries in each text, N×V.

    A space is put before each text, so that its first word has the same tokens as inside a sentence. Texts are lower-cased,
    since words in capitals are cut into other tokens and the columns ignore case.
    """
    return csr_array(count_tokens(tokenizer, [f" {text.lower()}" for text in texts], size, None))


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
        literal = self._without_stop_words(counts)
        weights = literal if aligned is None else csr_array(literal + self.settings.query_share * aligned)
        weights.data *= idf(frequencies[weights.indices], documents)
        return weights

    def _without_stop_words(self, counts: csr_array) -> csr_array:
        """Counts without stop words and punctuation; a row that has nothing else stays as it is."""
        meaningful = self.space.meaningful[counts.indices]
        rows = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        row_has_more = np.bincount(rows, meaningful, minlength=counts.shape[0])[rows] > 0
        content = counts.copy()
        content.data = np.where(row_has_more & ~meaningful, 0, counts.data).astype(np.float32)
        content.eliminate_zeros()
        return content
