"""Data-driven token targets: the meaningful tokens of a text, weighted by corpus statistics.

Text2Token (arXiv 2510.10224, abstract) describes this kind of target. The weightings are standard in the field. The choice among
them is ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from scipy import sparse

from text2token.model.tokens import count_tokens
from text2token.model.vocabulary import Vocabulary
from text2token.settings.choices import Weighting
from text2token.targets.base import Targets, checksum, from_matrix

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_BM25_K1, _BM25_B = 1.2, 0.75  # the usual setting, Robertson & Zaragoza 2009, section 3.4
_BATCH = 1024  # texts tokenised at once: enough for all threads of the tokenizer, little memory


@dataclass(frozen=True)
class CorpusStatistics:
    """Token counts of a corpus. Their size is V and does not depend on the corpus.

    Attributes:
        texts: Number of texts.
        document_frequency: For each of V tokens, the number of texts that contain it.
        collection_frequency: For each of V tokens, the number of its occurrences.
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
    """Count tokens in one streaming pass. Only the first ``max_tokens`` tokens of a text count."""
    total, document, collection = 0, np.zeros(size, np.int64), np.zeros(size, np.int64)
    for batch in chunked(texts, _BATCH):
        counts = count_tokens(tokenizer, batch, size, max_tokens)
        total += len(batch)
        document += np.bincount(counts.indices, minlength=size)
        collection += np.bincount(counts.indices, counts.data, minlength=size).astype(np.int64)
    return CorpusStatistics(total, document, collection)


def form_sharing(vocabulary: Vocabulary) -> sparse.csr_matrix:
    """V×V matrix whose row i spreads the weight of token i equally over the meaningful tokens of its surface group.

    Under a prompt, a decoding head predicts "Cat" or "cat" for a text that contains " cat". The concept is the same, so the
    target should not depend on the form (ours).
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
    alone = np.flatnonzero(np.diff(shared.indptr) == 0)  # groups without a meaningful token: each keeps its own weight
    keep = sparse.csr_matrix((np.ones(len(alone), np.float32), (alone, alone)), shape=(size, size))
    return (shared + keep).tocsr().astype(np.float32)


@dataclass(frozen=True)
class DataDriven:
    """Builds targets from a text's own tokens.

    Attributes:
        tokenizer: The backbone's tokenizer.
        statistics: Token counts of the corpus.
        keep: V booleans, the tokens that may be targets: meaningful and not too frequent.
        special: V booleans, the special tokens. They are never targets.
        forms: V×V, see :func:`form_sharing`. None leaves each weight with its own token.
        weighting: ``uniform``; ``tf-idf`` (logarithmic tf × idf); ``bm25`` (idf × saturated, length-normalised tf); ``pmi``
            (positive pointwise mutual information of token and text).
        max_tokens: Only the first tokens of a text count, as many as the backbone reads.
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
        """Everything except text and tokenizer that the targets depend on."""
        return {
            "builder": "data-driven",
            "weighting": self.weighting,
            "max_tokens": self.max_tokens,
            "merge_forms": self.forms is not None,
            "keep": checksum(self.keep),
            "statistics": self.statistics.checksum,
        }

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Build the targets of a batch. A text without allowed tokens gets all its tokens except special ones."""
        counts = count_tokens(self.tokenizer, texts, len(self.keep), self.max_tokens)
        weights = counts.copy()
        weights.data = self._weights(counts) * self.keep[counts.indices]
        lost = np.asarray(weights.sum(axis=1)).ravel() == 0
        of_lost = np.repeat(lost, np.diff(counts.indptr))
        weights.data[of_lost] = ~self.special[counts.indices[of_lost]]
        return from_matrix(weights if self.forms is None else weights @ self.forms)

    def _weights(self, counts: sparse.csr_matrix) -> NDArray[np.float64]:
        """Compute a weight for each stored count."""
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
