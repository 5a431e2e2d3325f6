"""All sides of documents and queries: what the model says, what the words say, and how rare they are in this collection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from text2token.search.bm25 import idf, impacts, split_words
from text2token.search.engine import Rows
from text2token.search.index_folder import TOKENIZER
from text2token.search.store import DocumentStore, Word
from text2token.search.vectors import TokenSpace, TokenVectors
from text2token.settings.search import Side, VectorSettings

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search.parts import PartEncoder


class Vectorizer:
    """Vectors of one collection.

    Args:
        folder: Of the index, with the tokenizer.
        store: Of the index, with the collection's frequencies.
        model: Opens that of the index. It is asked, and torch imported, only where a text is encoded.
    """

    def __init__(self, folder: Path, store: DocumentStore, model: Callable[[], Embedder]) -> None:
        self._store, self._model = store, model
        self._tokens = _token_vectors(folder, store) if "sparse" in store.fact("sides") else None

    @cached_property
    def parts(self) -> PartEncoder:
        """The model, for documents of any length."""
        from text2token.search.parts import PartEncoder

        return PartEncoder(self._model(), "document")

    @cached_property
    def query_parts(self) -> PartEncoder:
        """The model, for queries of any length."""
        from text2token.search.parts import PartEncoder

        return PartEncoder(self._model(), "query")

    def count(self, texts: Sequence[str], sign: int) -> None:
        """Add texts to the collection's frequencies, or (``sign`` -1) take them from these."""
        words = split_words(texts)
        frequencies = Counter(word for own in words for word in set(own))
        self._store.count_words({word: sign * number for word, number in frequencies.items()})
        changes = {"documents": len(texts), "words": sum(map(len, words)), "tokens": 0}
        if self._tokens is not None:
            counts = self._tokens.space.count(list(texts))
            changes["tokens"] = int(counts.sum())
            self._store.count_columns(sign * np.bincount(counts.indices, minlength=self._tokens.space.width))
        self._store.note(**{name: self._store.fact(name, 0) + sign * change for name, change in changes.items()})

    def settle_averages(self) -> None:
        """Fix the average lengths, which stand in every weight, to those of the documents counted so far."""
        if self._store.fact("average_words") is None:
            documents = max(self._store.fact("documents", 0), 1)
            self._store.note(
                **{f"average_{kind}": self._store.fact(kind, 0) / documents for kind in ("words", "tokens")}
            )

    def documents(self, texts: Sequence[str]) -> dict[Side, Rows]:
        """Vectors of documents, all sides from one pass of the model."""
        embeddings, owners = self.parts.embed(texts)
        vectors: dict[Side, Rows] = {
            "dense": self.parts.dense(embeddings, owners, len(texts)),
            "bm25": self._word_impacts(split_words(texts)),
        }
        if self._tokens is not None:
            counts, k = self._tokens.space.count(list(texts)), self._tokens.settings.document_k
            aligned = self.parts.aligned(self._tokens, embeddings, owners, len(texts), k)
            vectors["sparse"] = self._tokens.documents(counts, aligned, self._store.fact("average_tokens"))
        return vectors

    def queries(self, texts: Sequence[str], sides: Collection[Side], *, inference_free: bool) -> dict[Side, Rows]:
        """Vectors of queries on the sides asked for.

        Args:
            texts: None of them empty.
            sides: Of the collection.
            inference_free: Encode no query: the sparse side is made of its literal tokens alone, and there is no dense side.
        """
        vectors: dict[Side, Rows] = {}
        aligned, tokens = None, self._tokens if "sparse" in sides else None
        if not inference_free and ("dense" in sides or (tokens and tokens.settings.query_m)):
            embeddings, owners = self.query_parts.embed(texts)
            if "dense" in sides:
                vectors["dense"] = self.query_parts.dense(embeddings, owners, len(texts))
            if tokens:
                aligned = self.query_parts.aligned(tokens, embeddings, owners, len(texts), tokens.settings.query_m)
        documents = self._store.fact("documents", 0)  # after the model's work, at the moment of the frequencies
        if "bm25" in sides:
            vectors["bm25"] = self._word_queries(split_words(texts), documents)
        if tokens:
            counts = tokens.space.count(list(texts))
            frequencies = self._store.column_frequencies(tokens.space.width)
            vectors["sparse"] = tokens.queries(counts, aligned, frequencies, documents)
        return vectors

    @property
    def column_names(self) -> Sequence[str]:
        """Texts of the sparse side's columns."""
        return self._tokens.space.names if self._tokens else []

    def word_weights(self, text: str) -> tuple[dict[int, float], dict[int, str]]:
        """The BM25 vector of a document, weight by word number, and the words by number."""
        (words,) = split_words([text])
        known = self._store.words(set(words))
        row = self._word_impacts([words])
        weights = dict(zip(row.indices.tolist(), row.data.tolist(), strict=True))
        return weights, {number: word for word, (number, _) in known.items()}

    def _word_impacts(self, words: Sequence[Sequence[str]]) -> csr_array:
        counts = _counts(words, self._store.words(_distinct(words)), self._store.word_count())
        lengths = np.array([len(own) for own in words], np.float32)
        return impacts(counts, lengths, self._store.fact("average_words"))

    def _word_queries(self, words: Sequence[Sequence[str]], documents: int) -> csr_array:
        """Term frequencies of known words times their idf."""
        known = self._store.words(_distinct(words))
        counts = _counts(words, known, self._store.word_count())
        frequencies = dict(known.values())
        counts.data *= idf(np.array([frequencies[number] for number in counts.indices], np.int64), documents)
        return counts


def _token_vectors(folder: Path, store: DocumentStore) -> TokenVectors:
    settings = VectorSettings(**store.fact("settings"))
    try:
        backend = Tokenizer.from_file(str(folder / TOKENIZER / "tokenizer.json"))
    except Exception as error:  # tokenizers raises nothing narrower
        raise ValueError(f"no tokenizer: {error}") from error
    backend.no_truncation()
    backend.no_padding()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    return TokenVectors(TokenSpace(tokenizer, store.fact("vocabulary"), settings.merge_forms), settings)


def _distinct(words: Sequence[Sequence[str]]) -> set[str]:
    return {word for own in words for word in own}


def _counts(words: Sequence[Sequence[str]], known: Mapping[str, Word], width: int) -> csr_array:
    places = [(row, known[word].number) for row, own in enumerate(words) for word in own if word in known]
    rows, columns = np.array(places, np.int64).reshape(-1, 2).T
    counts = csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(len(words), width))
    counts.sum_duplicates()
    return counts
