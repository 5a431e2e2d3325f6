"""BM25 in two halves, so that documents can be added and deleted: term weights in the documents, idf in the query.

The variant is Lucene's (Kamphuis et al. 2020): ``Σ idf(t) · tf/(tf + k₁·(1 − b + b·length/average))``. Document frequencies are
those at the time of the query. The average length is part of every stored weight, so it stays that of the first documents.
"""

from __future__ import annotations

from collections.abc import Sequence

import bm25s
import numpy as np
import Stemmer
from numpy.typing import NDArray
from scipy.sparse import csr_array

K1, B = 1.5, 0.75  # defaults of bm25s, which mteb's baseline uses too


def split_words(texts: Sequence[str]) -> list[list[str]]:
    """Stemmed English words of each text, without stop words: bm25s' tokenizer with Snowball's stemmer, as mteb's baseline."""
    words: list[list[str]] = bm25s.tokenize(
        list(texts), stopwords="en", stemmer=Stemmer.Stemmer("english"), return_ids=False, show_progress=False
    )
    return words


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
