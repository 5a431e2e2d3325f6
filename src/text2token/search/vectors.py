"""Sparse vectors of documents and queries: the words that are there, and the tokens that the embedding aligns with.

Two forms. ``paper`` (arXiv 2406.17378, section on sparse retrieval): a document is its top-K aligned tokens with their weights,
a query the set of its literal tokens and of its top-M aligned ones. It differs from the paper in taking logits above the corpus
mean, without which every text aligns with the same common tokens first, and only those above 0. ``weighted`` (ours): both are
weighted on both sides, and share their columns: a word of the query meets the same word of a document, or one that the document
only means; and the reverse.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.model.vocabulary import Vocabulary, count_tokens, read_vocabulary
from text2token.search.bm25 import idf, impacts
from text2token.settings.search import VectorSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class TokenSpace:
    """The columns of sparse vectors: vocabulary entries, or groups of those that differ in case and leading space only.

    Attributes:
        tokenizer: The backbone's, which cuts nothing off.
        size: V, the rows of the decoding head.
        merge_forms: Groups?
    """

    tokenizer: PreTrainedTokenizerBase
    size: int
    merge_forms: bool

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """What the entries are."""
        return read_vocabulary(self.tokenizer, self.size)

    @cached_property
    def columns(self) -> NDArray[np.int64]:
        """V column numbers; pieces of characters, which all look alike, are never merged."""
        entries = np.arange(self.size)
        if not self.merge_forms:
            return entries
        groups = self.vocabulary.surface_groups
        apart = np.where(self.vocabulary.byte_piece, groups.max() + 1 + entries, groups)
        return np.unique(apart, return_inverse=True)[1]

    @cached_property
    def width(self) -> int:
        """C, how many columns there are."""
        return int(self.columns.max()) + 1

    @cached_property
    def names(self) -> list[str]:
        """C texts, for people."""
        names = [""] * self.width
        for column, surface in zip(self.columns[::-1], reversed(self.vocabulary.surfaces), strict=True):
            names[column] = surface.strip() if self.merge_forms else surface
        return names

    @cached_property
    def meaningful(self) -> NDArray[np.bool_]:
        """C booleans: has the column a meaningful entry?"""
        found = np.zeros(self.width, bool)
        found[self.columns[self.vocabulary.meaningful]] = True
        return found

    @cached_property
    def _literal(self) -> NDArray[np.bool_]:
        """V booleans: entries that are part of a text: neither control tokens nor white space."""
        return ~self.vocabulary.special & np.array([bool(surface.strip()) for surface in self.vocabulary.surfaces])

    def count(self, texts: list[str]) -> csr_array:
        """Literal tokens: how often each column is there in each text, N×C; control tokens and white space are none.

        A space stands before each text, so that its first word has the tokens that it has inside a sentence; and where columns
        ignore case, so does the cutting of words into tokens.
        """
        read = [" " + (text.lower() if self.merge_forms else text) for text in texts]
        counts = count_tokens(self.tokenizer, read, self.size, None)
        literal = self._literal[counts.indices]
        rows = np.repeat(np.arange(len(texts)), np.diff(counts.indptr))[literal]
        columns = self.columns[counts.indices[literal]]
        merged = csr_array((counts.data[literal], (rows, columns)), shape=(len(texts), self.width))
        merged.sum_duplicates()
        return merged


@dataclass(frozen=True)
class TokenVectors:
    """Makes the sparse vectors of an index.

    Attributes:
        space: Their columns.
        settings: Their form.
    """

    space: TokenSpace
    settings: VectorSettings

    def documents(self, counts: csr_array, aligned: csr_array, average: float) -> csr_array:
        """Vectors of documents, N×C.

        Args:
            counts: Their literal tokens, N×C.
            aligned: Their aligned tokens, N×C, see :meth:`text2token.search.parts.PartEncoder.aligned`.
            average: Mean number of literal tokens of a document.
        """
        if self.settings.form == "paper":
            return aligned
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        return csr_array(impacts(counts, lengths, average) + self.settings.document_share * aligned)

    def queries(
        self, counts: csr_array, aligned: csr_array | None, frequencies: NDArray[np.int64], documents: int
    ) -> csr_array:
        """Vectors of queries, N×C; the words' alone without ``aligned``.

        In the ``weighted`` form stop words and punctuation count only in a query that has nothing else: they cost the longest
        postings and say least.

        Args:
            counts: Their literal tokens, N×C.
            aligned: Their aligned tokens, N×C; None: the queries are not encoded.
            frequencies: C numbers of documents that hold the column.
            documents: How many documents there are.
        """
        if self.settings.form == "paper":
            union = counts.copy() if aligned is None else csr_array(counts + aligned)
            union.data = np.ones_like(union.data, np.float32)
            return union
        literal = self._content(counts)
        weights = literal if aligned is None else csr_array(literal + self.settings.query_share * aligned)
        weights.data *= idf(frequencies[weights.indices], documents)
        return weights

    def _content(self, counts: csr_array) -> csr_array:
        """Counts without stop words and punctuation; a row of nothing else keeps them."""
        says = self.space.meaningful[counts.indices]
        owners = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
        enough = np.bincount(owners, says, minlength=counts.shape[0])[owners] > 0
        content = counts.copy()
        content.data = np.where(enough & ~says, 0, counts.data).astype(np.float32)
        content.eliminate_zeros()
        return content
