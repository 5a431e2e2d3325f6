"""Vectors of documents and queries in all fields, from the model, the words and their frequencies in the index."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from tokenizers import Tokenizer

from text2token.search.batches import Batch
from text2token.search.bm25 import WordSplitter, idf, impacts
from text2token.search.engines.base import Matrix
from text2token.search.format import IndexSettings
from text2token.search.store import TOKENIZER, DocumentStore, Totals, Word
from text2token.search.student import learn, open_student
from text2token.search.vectors import TokenSpace, TokenVectors, summed
from text2token.settings.search import FieldName
from text2token.utils.errors import first_line

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search.index_model import IndexModel


class Vectorizer:
    """Makes the vectors of one index.

    Args:
        folder: Folder of the index, which holds the tokenizer.
        store: Database of the index, which holds the frequencies.
        settings: Settings of the index.
        embedder: The model of the index, if the caller has opened it already.
        model: Where the model is now; None: where it was when the index was made.
        query_model: See :func:`text2token.search.student.open_student`.

    Attributes:
        student: Encodes queries in place of the model, if the index has one.

    Raises:
        ValueError: The tokenizer of the index is damaged.
        UserError: The student cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        store: DocumentStore,
        settings: IndexSettings,
        embedder: Embedder | None = None,
        model: str | None = None,
        query_model: str | Path | None = None,
    ) -> None:
        self.student = open_student(folder, store, query_model)
        self._store, self._model_arguments = store, (folder, store, settings, embedder, model)
        self._words = WordSplitter(settings.language, format_1=settings.format == 1)
        self._tokens = _token_vectors(folder, settings) if "sparse" in settings.fields else None

    @cached_property
    def model(self) -> IndexModel:
        """The model of the index. Only this imports torch, and a search with the words of a query alone does not need it."""
        from text2token.search.index_model import IndexModel

        return IndexModel(*self._model_arguments)

    def count(self, batch: Batch, sign: int) -> None:
        """Add documents to the frequencies of the index (``sign`` 1), or subtract them (``sign`` -1)."""
        texts = batch.texts
        words = self._words.split(texts)
        frequencies = Counter(word for own in words for word in dict.fromkeys(own))  # a set has another order each time
        self._store.count_words({word: sign * number for word, number in frequencies.items()})
        changes = {"documents": len(texts), "words": sum(map(len, words)), "tokens": 0}
        if self._tokens is not None:
            counts = self._literal_tokens(self._tokens, batch)
            changes["tokens"] = int(counts.sum())
            self._store.count_columns(sign * np.bincount(counts.indices, minlength=self._tokens.space.width))
        self._store.set(**{name: self._store.get(name, 0) + sign * change for name, change in changes.items()})

    def fix_averages(self) -> None:
        """Set the average lengths to those of the documents counted so far, once: every stored weight depends on them."""
        if self._store.get("average_words") is None:
            documents = max(self._store.get("documents", 0), 1)
            self._store.set(**{f"average_{kind}": self._store.get(kind, 0) / documents for kind in ("words", "tokens")})

    def forget(self) -> None:
        """Forget the vectors of an unfinished index, and all that was learnt from its documents before they were encoded."""
        self._store.forget_vectors()
        self.model.forget()
        del self.model  # it may be open, with what is forgotten

    def calibrate(self, sample: Callable[[int], list[str]], *, progress: bool) -> None:
        """See :meth:`text2token.search.index_model.IndexModel.calibrate`."""
        self.model.calibrate(sample, progress=progress)

    def teach(self, *, progress: bool) -> None:
        """Let the student learn the documents; see :func:`text2token.search.student.learn`."""
        if self.student is not None:
            self.student = learn(self._store, self.student, progress=progress)

    def documents(self, batch: Batch) -> dict[FieldName, Matrix]:
        """Vectors of documents in all fields, from their embeddings or else from one pass of the model."""
        encoder, texts = self.model.documents, batch.texts
        embedded = batch.embedded
        embeddings, owners = encoder.embed(texts) if embedded is None else (embedded.rows, embedded.owners)
        words = self._words.split(texts)
        vectors: dict[FieldName, Matrix] = {
            "dense": encoder.dense(embeddings, owners, len(texts)),
            "bm25": self._word_impacts(words, self._store.words(_distinct(words))),
        }
        if (tokens := self._tokens) is not None:
            counts = self._literal_tokens(tokens, batch)
            aligned = encoder.aligned(tokens.space, embeddings, owners, len(texts), tokens.settings.document_k)
            vectors["sparse"] = tokens.documents(counts, aligned, self._store.get("average_tokens"))
        return vectors

    def queries(
        self, texts: Sequence[str], fields: Collection[FieldName], *, inference_free: bool
    ) -> dict[FieldName, Matrix]:
        """Vectors of queries.

        Args:
            texts: Queries, none of them empty.
            fields: Fields to make vectors for.
            inference_free: Do not encode the queries. Sparse vectors then have literal tokens only, and there are no dense ones.
        """
        vectors: dict[FieldName, Matrix] = {}
        aligned, tokens = None, self._tokens if "sparse" in fields else None
        if not inference_free and ("dense" in fields or (tokens and tokens.settings.query_m)):
            encode = self._queries_by_model if self.student is None else self._queries_by_student
            dense, aligned = encode(texts, tokens)
            if "dense" in fields:
                vectors["dense"] = dense
        totals = self._store.totals(tokens.space.width if tokens else 0)  # read after encoding, which takes longest
        if "bm25" in fields:
            vectors["bm25"] = self._word_queries(self._words.split(texts), totals)
        if tokens:
            counts = tokens.space.count(list(texts))
            vectors["sparse"] = tokens.queries(counts, aligned, totals.columns, totals.documents)
        return vectors

    def _queries_by_model(
        self, texts: Sequence[str], tokens: TokenVectors | None
    ) -> tuple[NDArray[np.float32], csr_array | None]:
        """Dense vectors and aligned tokens of queries."""
        encoder = self.model.queries
        embeddings, owners = encoder.embed(texts)
        dense = encoder.dense(embeddings, owners, len(texts))
        if tokens is None:
            return dense, None
        return dense, encoder.aligned(tokens.space, embeddings, owners, len(texts), tokens.settings.query_m)

    def _queries_by_student(
        self, texts: Sequence[str], tokens: TokenVectors | None
    ) -> tuple[NDArray[np.float32], csr_array | None]:
        """The same as :meth:`_queries_by_model`, without torch."""
        assert self.student is not None
        dense, entries = self.student.encode(texts)
        return dense, None if tokens is None else tokens.space.strongest(entries, tokens.settings.query_m)

    @property
    def column_names(self) -> Sequence[str]:
        """Text of each column of the sparse field."""
        return self._tokens.space.names if self._tokens else []

    def word_weights(
        self, texts: Sequence[str], wanted: Sequence[int] | None = None
    ) -> tuple[list[dict[int, float]], dict[int, str]]:
        """The BM25 vectors of documents.

        Args:
            texts: N documents.
            wanted: The columns to return; None: all.

        Returns:
            For each document the weight by column, and the word of each column.
        """
        words = self._words.split(texts)
        known = self._store.words(_distinct(words)) if wanted is None else self._store.words_of(wanted)
        rows = self._word_impacts(words, known)
        parts = zip(np.split(rows.indices, rows.indptr[1:-1]), np.split(rows.data, rows.indptr[1:-1]), strict=True)
        weights = [dict(zip(own.tolist(), weights.tolist(), strict=True)) for own, weights in parts]
        return weights, {word.number: name for name, word in known.items()}

    @staticmethod
    def _literal_tokens(tokens: TokenVectors, batch: Batch) -> csr_array:
        """Literal tokens of documents, N×C; they are counted if the batch does not have them."""
        return tokens.space.count(batch.texts) if batch.tokens is None else tokens.space.merge(batch.tokens)

    def _word_impacts(self, words: Sequence[Sequence[str]], known: Mapping[str, Word]) -> csr_array:
        """The columns of the known words in the BM25 vectors of documents."""
        counts = _counts(words, known, self._store.word_count())
        lengths = np.array([len(own) for own in words], np.float32)
        return impacts(counts, lengths, self._store.get("average_words"))

    def _word_queries(self, words: Sequence[Sequence[str]], totals: Totals) -> csr_array:
        """Term frequency times idf of the known words."""
        known = self._store.words(_distinct(words))
        width = 1 + max(
            [totals.words - 1, *(word.number for word in known.values())]
        )  # a word may be newer than the totals
        counts = _counts(words, known, width)
        frequencies = dict(known.values())
        counts.data *= idf(
            np.array([frequencies[number] for number in counts.indices.tolist()], np.int64), totals.documents
        )
        return counts


def _token_vectors(folder: Path, settings: IndexSettings) -> TokenVectors:
    written = (folder / TOKENIZER).read_bytes()
    try:
        tokenizer = Tokenizer.from_buffer(written)
    except Exception as error:  # tokenizers raises bare exceptions
        raise ValueError(f"the tokenizer cannot be read: {first_line(error)}") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return TokenVectors(TokenSpace(tokenizer, settings.vocabulary), settings.vectors)


def _distinct(words: Sequence[Sequence[str]]) -> set[str]:
    return {word for own in words for word in own}


def _counts(words: Sequence[Sequence[str]], known: Mapping[str, Word], width: int) -> csr_array:
    places = [(row, known[word].number) for row, own in enumerate(words) for word in own if word in known]
    rows, columns = np.array(places, np.int64).reshape(-1, 2).T
    return summed(rows, columns, np.ones(len(rows), np.float32), (len(words), width))
