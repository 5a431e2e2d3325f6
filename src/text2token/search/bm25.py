"""BM25 in two halves, so that documents can be added and deleted: term weights in the documents, idf in the query.

The variant is Lucene's (Kamphuis et al. 2020): ``Σ idf(t) · tf/(tf + k₁·(1 − b + b·length/average))``. Document frequencies are
those at the time of the query. The average length is part of every stored weight, so it stays that of the first documents.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
import regex
import Stemmer
from more_itertools import pairwise
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.data.stop_words import stop_list
from text2token.settings.search import LANGUAGES
from text2token.utils.errors import UserError

K1, B = 1.5, 0.75  # defaults of bm25s, which mteb's baseline uses too

UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ー\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
"""Characters of scripts without spaces between words, for a character class of the package ``regex``."""
_TOKEN = regex.compile(rf"(?V1)(?P<run>[{UNSPACED}]+)|(?P<word>[\w--[{UNSPACED}]]{{2,}})")
_FORMAT_1 = re.compile(r"\b\w\w+\b")
# Lucene's English stop words, which bm25s and mteb's baseline use too.
_ENGLISH = frozenset({
    "a", "an", "and", "are", "as", "at", "be", "but", "by", "for", "if", "in", "into", "is", "it", "no", "not",
    "of", "on", "or", "such", "that", "the", "their", "then", "there", "these", "they", "this", "to", "was", "will", "with",
})  # fmt: skip


class WordSplitter:
    """Splits texts into stemmed words without stop words.

    A word has at least two letters or digits. Scripts that write no spaces between words (Chinese, Japanese, Thai and others)
    give overlapping pairs of characters, as in Lucene's CJK analyser. Different Unicode forms of a character are the same.

    Args:
        language: Key of :data:`text2token.settings.search.LANGUAGES`: whose stemmer and stop words are used.
        format_1: Split as indexes of format 1 did: a run of characters without spaces is one word.

    Raises:
        UserError: The language is unknown.
    """

    def __init__(self, language: str = "english", *, format_1: bool = False) -> None:
        if language not in LANGUAGES:
            raise UserError(f"There is no language '{language}': choose among {', '.join(LANGUAGES)}.")
        self._stemmer = None if language == "none" else Stemmer.Stemmer(language)
        code = LANGUAGES[language]
        self._stop_words = _ENGLISH if code == "en" else stop_list(code or "none")
        self._format_1 = format_1

    def split(self, texts: Sequence[str]) -> list[list[str]]:
        """The words of each text, in order."""
        return [self._split(text) for text in texts]

    def _split(self, text: str) -> list[str]:
        words = _FORMAT_1.findall(text.lower()) if self._format_1 else _words_and_pairs(text)
        content = [word for word in words if word.casefold() not in self._stop_words]
        return self._stemmer.stemWords(content) if self._stemmer else content


def _words_and_pairs(text: str) -> list[str]:
    found: list[str] = []
    for token in _TOKEN.finditer(unicodedata.normalize("NFKC", text).lower()):
        if token["word"]:
            found.append(token["word"])
        else:
            characters = regex.findall(r"\X", token["run"])  # with their combining marks
            found += map("".join, pairwise(characters)) if len(characters) > 1 else characters
    return found


def impacts(counts: csr_array, lengths: NDArray[np.float32], average: float) -> csr_array:
    """Document weights, N×T: term frequencies after saturation and length normalisation, from 0 to 1.

    Args:
        counts: Term frequencies, N×T.
        lengths: Number of terms of each document, N.
        average: Mean number of terms of a document.
    """
    length = np.repeat(lengths, np.diff(counts.indptr))
    saturated = counts.data / (counts.data + K1 * (1 - B + B * length / max(average, 1e-9)))
    return csr_array((saturated.astype(np.float32), counts.indices, counts.indptr), shape=counts.shape)


def idf(frequencies: NDArray[np.int64], documents: int) -> NDArray[np.float32]:
    """Inverse document frequencies, always above 0."""
    return np.log1p((documents - frequencies + 0.5) / (frequencies + 0.5)).astype(np.float32)
