"""Data-driven token targets: the meaningful literal tokens of a text, weighted by what the corpus says of them.

Text2Token (arXiv 2510.10224) names the kind; the weightings are the field's classics, and the choice among them ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from scipy import sparse

from text2token.model.vocabulary import Vocabulary, count_tokens
from text2token.targets.base import Targets, checksum, from_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Weighting = Literal["uniform", "tf-idf", "bm25", "pmi"]
_BM25_K1, _BM25_B = 1.2, 0.75  # Robertson & Zaragoza 2009, section 3.4: the usual setting
_BATCH = 1024  # texts tokenised at once: keeps the tokenizer's threads busy and little in memory


@dataclass(frozen=True)
class CorpusStatistics:
    """What one streaming pass over a corpus leaves behind; its size is V, whatever the corpus.

    Attributes:
        texts: Number of texts.
        document_frequency: V counts of texts that hold the token.
        collection_frequency: V counts of occurrences.
    """

    texts: int
    document_frequency: NDArray[np.int64]
    collection_frequency: NDArray[np.int64]

    @property
    def checksum(self) -> str:
        """SHA-256 of all counts."""
        return checksum(np.array(self.texts), self.document_frequency, self.collection_frequency)


def corpus_statistics(
    texts: Iterable[str], tokenizer: PreTrainedTokenizerBase, size: int, max_tokens: int
) -> CorpusStatistics:
    """Count tokens in one streaming pass."""
    total, document, collection = 0, np.zeros(size, np.int64), np.zeros(size, np.int64)
    for batch in chunked(texts, _BATCH):
        counts = count_tokens(tokenizer, batch, size, max_tokens)
        total += len(batch)
        document += np.bincount(counts.indices, minlength=size)
        collection += np.bincount(counts.indices, counts.data, minlength=size).astype(np.int64)
    return CorpusStatistics(total, document, collection)


def form_sharing(vocabulary: Vocabulary) -> sparse.csr_matrix:
    """V×V: row i shares the weight of token i equally among the meaningful entries of its surface group.

    A decoding head under a prompt says "Cat" or "cat" where the text has " cat"; the concept is the same, so the target
    should not depend on the form (ours).
    """
    size = len(vocabulary.surfaces)
    members = np.flatnonzero(vocabulary.meaningful)
    groups = vocabulary.surface_groups
    rows = sparse.csr_matrix((np.ones(size, np.float32), groups, np.arange(size + 1)))
    columns = sparse.csr_matrix(
        (np.ones(len(members), np.float32), (groups[members], members)), shape=(rows.shape[1], size)
    )
    counts = np.maximum(np.diff(columns.indptr), 1)
    shared = rows @ sparse.diags_array(1 / counts).tocsr() @ columns
    alone = np.flatnonzero(
        np.diff(shared.indptr) == 0
    )  # entries of groups without a meaningful member keep their weight
    keep = sparse.csr_matrix((np.ones(len(alone), np.float32), (alone, alone)), shape=(size, size))
    return (shared + keep).tocsr().astype(np.float32)


@dataclass(frozen=True)
class DataDriven:
    """Build targets from a text's own tokens: batch of texts → :class:`Targets`.

    Attributes:
        tokenizer: The backbone's.
        statistics: Of the corpus.
        keep: V booleans, the entries that may be targets: meaningful, and not over-frequent.
        special: V booleans, entries that may never be.
        forms: V×V, see :func:`form_sharing`; None leaves each weight with the very token.
        weighting: ``uniform``; ``tf-idf`` (logarithmic tf × idf); ``bm25`` (its impact: idf × saturated,
            length-normalised tf); ``pmi`` (positive pointwise mutual information of token and text).
        max_tokens: Tokens of a text that count: no more than the backbone will see.
    """

    tokenizer: PreTrainedTokenizerBase
    statistics: CorpusStatistics
    keep: NDArray[np.bool_]
    special: NDArray[np.bool_]
    forms: sparse.csr_matrix | None = None
    weighting: Weighting = "tf-idf"
    max_tokens: int = 64

    @property
    def settings(self) -> dict[str, object]:
        """All that the targets depend on but text and tokenizer."""
        return {
            "builder": "data-driven",
            "weighting": self.weighting,
            "max_tokens": self.max_tokens,
            "merge_forms": self.forms is not None,
            "keep": checksum(self.keep),
            "statistics": self.statistics.checksum,
        }

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Targets of a batch; a text without meaningful tokens falls back to its other tokens that are not special."""
        counts = count_tokens(self.tokenizer, texts, len(self.keep), self.max_tokens)
        weights = counts.copy()
        weights.data = self._weights(counts) * self.keep[counts.indices]
        lost = np.asarray(weights.sum(axis=1)).ravel() == 0
        of_lost = np.repeat(lost, np.diff(counts.indptr))
        weights.data[of_lost] = ~self.special[counts.indices[of_lost]]
        return from_matrix(weights if self.forms is None else weights @ self.forms)

    def _weights(self, counts: sparse.csr_matrix) -> NDArray[np.float64]:
        """One weight for each stored count."""
        n, tf = self.statistics.texts, counts.data
        df = self.statistics.document_frequency[counts.indices]
        lengths = np.asarray(counts.sum(axis=1)).ravel()
        length = np.repeat(lengths, np.diff(counts.indptr))
        if self.weighting == "uniform":
            return np.ones(len(tf))
        if self.weighting == "tf-idf":
            return (1 + np.log(tf)) * np.log1p(n / (1 + df))
        if self.weighting == "bm25":
            average = self.statistics.collection_frequency.sum() / n
            saturated = tf * (_BM25_K1 + 1) / (tf + _BM25_K1 * (1 - _BM25_B + _BM25_B * length / average))
            return np.log1p((n - df + 0.5) / (df + 0.5)) * saturated
        share = (
            np.maximum(self.statistics.collection_frequency[counts.indices], 1)
            / self.statistics.collection_frequency.sum()
        )
        return np.maximum(np.log(tf / length / share), 0.0)
