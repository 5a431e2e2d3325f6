"""Collections to search in, embeddings that are kept, and trials of many settings with one pass of a model."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from text2token.data.tables import read_table
from text2token.evaluation.encoders import VectorStore, hash_key
from text2token.evaluation.items import Items, Part
from text2token.evaluation.qrels import read_qrels
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.vocabulary import count_tokens
from text2token.search import Document, ScoredId, read_documents
from text2token.search.encoder import TextEncoder, untruncated
from text2token.search.vectors import TokenSpace, TokenVectors
from text2token.settings.search import VectorSettings

MEASURES = {"ndcg_cut.10": "ndcg_cut_10", "recall.100": "recall_100"}
DEPTH = 100  # documents of a ranking
_MOST_TOKENS = 512  # aligned tokens that a trial keeps; a sweep tries no larger K or M
_SPAN_DOCUMENT = 40  # words that a document needs so that a span can be cut out of it
_CHUNK = 256  # texts that are encoded between two writes to the file

Ranking = Mapping[str, Sequence[ScoredId]]
"""Query id → hits, best first."""


@dataclass(frozen=True)
class Collection:
    """Documents, queries by id, and for each query the relevance of its judged documents."""

    name: str
    documents: list[Document]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def beir(folder: Path, name: str, limit: int | None) -> Collection:
    """Read a collection in BEIR's layout.

    Args:
        folder: Folder with ``corpus.jsonl``, ``queries.jsonl`` and ``qrels/test.tsv`` or ``qrels/test.jsonl``.
        name: Name for readers.
        limit: Largest number of documents. Random queries are kept as long as their relevant documents fill at most two thirds;
            random other documents fill the rest. None: everything.
    """
    documents = {document.id: document for document in read_documents(folder / "corpus.jsonl")}
    texts = {query.id: query.text for query in read_documents(folder / "queries.jsonl")}
    relevant: dict[str, dict[str, int]] = {}
    for query, judged in _judgements(folder / "qrels").items():
        found = {document: grade for document, grade in judged.items() if grade > 0 and document in documents}
        if found and query in texts:
            relevant[query] = found
    chosen, kept = sorted(relevant), set(documents)
    if limit is not None and limit < len(documents):
        rng = random.Random(0)
        rng.shuffle(chosen)
        kept, fitting = set(), []
        for query in chosen:
            if len(kept | relevant[query].keys()) <= limit * 2 // 3:
                kept |= relevant[query].keys()
                fitting.append(query)
        kept |= set(rng.sample(sorted(documents.keys() - kept), limit - len(kept)))
        chosen = sorted(fitting)
    rows = [document for key, document in documents.items() if key in kept]
    return Collection(name, rows, {key: texts[key] for key in chosen}, {key: relevant[key] for key in chosen})


def _judgements(folder: Path) -> dict[str, dict[str, int]]:
    if not (folder / "test.jsonl").is_file():
        return read_qrels(folder / "test.tsv")
    judged: dict[str, dict[str, int]] = {}
    for row in read_table(folder / "test.jsonl"):
        judged.setdefault(row.id("query-id"), {})[row.id("corpus-id")] = int(row.value("score"))
    return judged


def known_items(file: Path, size: int) -> Collection:
    """Make a known-item search from paragraphs without judgements, to tune settings.

    Half of the queries are titles, half are first sentences. The document that a query must find is the rest of its paragraph.
    Each article gives one paragraph.
    """
    rows = {row.text("title"): row.text("text") for row in islice(read_table(file), 20 * size)}
    paragraphs = list(rows.items())
    random.Random(0).shuffle(paragraphs)
    documents: list[Document] = []
    queries: dict[str, str] = {}
    for title, text in paragraphs:
        first, stop, rest = text.partition(". ")
        if stop and len(rest.split()) >= 30 and len(first.split()) >= 6 and len(documents) < size:
            name = str(len(documents))
            queries[name] = title if len(documents) % 2 else first
            documents.append(Document(name, "", rest))
    asked = dict(islice(queries.items(), size // 2))
    return Collection("known items", documents, asked, {key: {key: 1} for key in asked})


def span_items(collection: Collection, size: int) -> Collection:
    """Make a known-item search from the documents of a collection, without its queries and judgements.

    A query is a span of 3 to 12 words, cut out of the document that it must find (inverse cloze task, Lee et al. 2019).
    """
    rng = random.Random(0)
    documents = {document.id: document for document in collection.documents}
    long = [document for document in collection.documents if len(document.text.split()) >= _SPAN_DOCUMENT]
    queries: dict[str, str] = {}
    for document in rng.sample(long, min(size, len(long))):
        words, length = document.text.split(), rng.randint(3, 12)
        start = rng.randrange(5, len(words) - length)
        queries[document.id] = " ".join(words[start : start + length])
        rest = " ".join([*words[:start], *words[start + length :]])
        documents[document.id] = Document(document.id, document.title, rest)
    relevant = {query: {query: 1} for query in queries}
    return Collection(f"spans of {collection.name}", list(documents.values()), queries, relevant)


class KeptEmbedder(Embedder):
    """An embedder that keeps its embeddings in a file, so that a stopped benchmark continues."""

    store: VectorStore
    key: str

    @classmethod
    def of(cls, embedder: Embedder, file: Path) -> KeptEmbedder:
        """Copy an embedder and give it a file. It encodes in bf16 where the hardware has it."""
        kept = cls(embedder.encoder, embedder.head, embedder.correction, embedder.mean_logits, embedder.top_k)
        file.parent.mkdir(parents=True, exist_ok=True)
        kept.store, kept.key = VectorStore(file), embedder_fingerprint(embedder)
        kept.bf16 = True
        return kept

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, **_: Any) -> Tensor:
        """Return embeddings from the file, and encode the texts that it lacks."""
        keys = [hash_key(self.key, *([prompt] if prompt else []), text) for text in texts]
        missing = self.store.missing(keys)
        todo = list({key: text for key, text in zip(keys, texts, strict=True) if key in missing}.items())
        for start in range(0, len(todo), _CHUNK):
            new = dict(todo[start : start + _CHUNK])
            self.store.put(list(new), list(self.embed_now(list(new.values()), prompt).numpy()))
        return torch.from_numpy(np.stack(self.store.get(keys)))

    def embed_now(self, texts: Sequence[str], prompt: str | None = None) -> Tensor:
        """Encode texts without the file."""
        return super().embed(texts, prompt=prompt)


class Trial:
    """One model on one collection. The texts are encoded once for all settings of sparse vectors.

    Args:
        embedder: Embedder that knows the mean token logits of a corpus.
        collection: Collection to search in.
    """

    def __init__(self, embedder: Embedder, collection: Collection) -> None:
        self.collection = collection
        self._embedder = embedder
        self._parts = TextEncoder(embedder, "document"), TextEncoder(embedder, "query")
        self._texts = [document.content for document in collection.documents], list(collection.queries.values())
        self._tokenizer = untruncated(embedder.tokenizer).backend_tokenizer

    @cached_property
    def _embedded(self) -> list[tuple[Tensor, NDArray[np.int64]]]:
        return [parts.embed(texts) for parts, texts in zip(self._parts, self._texts, strict=True)]

    @cached_property
    def _space(self) -> TokenSpace:
        return TokenSpace(self._tokenizer, self._embedder.vocabulary_size)

    @cached_property
    def _aligned(self) -> list[csr_array]:
        return [
            encoder.aligned(self._space, *embedded, len(texts), _MOST_TOKENS)
            for encoder, embedded, texts in zip(self._parts, self._embedded, self._texts, strict=True)
        ]

    @cached_property
    def _logits(self) -> list[csr_array]:
        """The largest logits above the corpus mean over the parts of each text, N×V."""
        allowed = torch.from_numpy(~self._space.vocabulary.special)
        found = []
        for (embeddings, owners), texts in zip(self._embedded, self._texts, strict=True):
            pooled = torch.zeros(len(texts), self._space.size)
            for rows, numbers in zip(embeddings.split(128), torch.from_numpy(owners).split(128), strict=True):
                logits = self._embedder.logits(rows).relu() * allowed
                pooled.scatter_reduce_(0, numbers[:, None].expand_as(logits), logits, "amax")
            found.append(largest(csr_array(pooled.numpy()), _MOST_TOKENS))
        return found

    def vectors(self, settings: VectorSettings) -> tuple[csr_array, csr_array]:
        """Make the sparse vectors of documents and queries as an index makes them."""
        maker = TokenVectors(self._space, settings)
        of_documents, of_queries = self._aligned
        counts = [maker.space.count(texts) for texts in self._texts]
        documents = maker.documents(
            counts[0], largest(of_documents, settings.document_k), float(counts[0].sum()) / counts[0].shape[0]
        )
        frequencies = np.bincount(counts[0].indices, minlength=maker.space.width)
        aligned = largest(of_queries, settings.query_m)
        return documents, maker.queries(counts[1], aligned, frequencies, counts[0].shape[0])

    def paper_vectors(self, document_k: int = 128, query_m: int = 32) -> tuple[csr_array, csr_array]:
        """Sparse vectors in the form of arXiv 2406.17378, section on sparse retrieval, from logits above the corpus mean.

        A document is its top-K aligned tokens with their weights. A query is the set of its literal and its top-M aligned tokens.
        Without the corpus mean (ours) every text would align with the same common tokens first.
        """
        of_documents, of_queries = self._logits
        counts = count_tokens(self._tokenizer, [f" {text}" for text in self._texts[1]], self._space.size, None)
        blank = np.array([not surface.strip() for surface in self._space.vocabulary.surfaces])
        literal = csr_array(counts)
        literal.data[(self._space.vocabulary.special | blank)[literal.indices]] = 0
        literal.eliminate_zeros()
        queries = csr_array(literal + largest(of_queries, query_m))
        queries.data = np.ones_like(queries.data, np.float32)
        return largest(of_documents, document_k), queries

    def rank(self, settings: VectorSettings) -> dict[str, list[ScoredId]]:
        """Rank documents for every query by sparse vectors."""
        return self.rank_vectors(*self.vectors(settings))

    def rank_vectors(self, documents: csr_array, queries: csr_array) -> dict[str, list[ScoredId]]:
        """Rank documents for every query by inner products."""
        return best(self.collection, (queries @ documents.T).toarray())

    def rank_dense(self) -> dict[str, list[ScoredId]]:
        """Rank documents for every query by dense vectors."""
        documents, queries = (
            parts.dense(*embedded, len(texts))
            for parts, embedded, texts in zip(self._parts, self._embedded, self._texts, strict=True)
        )
        return best(self.collection, queries @ documents.T, negative=True)

    def flops_over_dense(self, documents: csr_array, queries: csr_array) -> float:
        """Operations of an exact sparse search over those of an exact dense one, mean over queries."""
        postings = np.bincount(documents.indices, minlength=documents.shape[1])
        dimension = self._parts[1].dense(*self._embedded[1], len(self._texts[1])).shape[1]
        return float(postings[queries.indices].sum() / queries.shape[0] / (documents.shape[0] * dimension))


def largest(rows: csr_array, k: int) -> csr_array:
    """Keep the ``k`` largest values of each row."""
    ranks = np.empty(rows.nnz, np.int64)
    for start, end in zip(rows.indptr, rows.indptr[1:], strict=False):
        ranks[start:end][np.argsort(-rows.data[start:end], kind="stable")] = np.arange(end - start)
    kept = rows.copy()
    kept.data = np.where(ranks < k, rows.data, 0)
    kept.eliminate_zeros()
    return kept


def best(collection: Collection, scores: NDArray[np.float32], *, negative: bool = False) -> dict[str, list[ScoredId]]:
    """Return the best documents of every query.

    Args:
        collection: Collection with Q queries and D documents.
        scores: Scores, Q×D.
        negative: Whether a document with a score of 0 or less is a hit. Cosines can be negative; a sparse score of 0 means that
            query and document share no token.
    """
    ids = [document.id for document in collection.documents]
    ranked = {}
    for query, row in zip(collection.queries, scores, strict=True):
        order = np.argsort(-row, kind="stable")[:DEPTH]
        ranked[query] = [ScoredId(ids[i], float(row[i])) for i in order if negative or row[i] > 0]
    return ranked


def measure(collection: Collection, ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Measure nDCG@10 and recall@100, × 100, each with its 95 % bootstrap interval over queries."""
    measured = {}
    for name, items in _by_query(collection, ranking).items():
        measured[name] = {"score": 100 * items.score, "interval": [100 * end for end in items.interval()]}
    return measured


def ndcg(collection: Collection, ranking: Ranking) -> float:
    """Measure nDCG@10, × 100."""
    return 100 * _by_query(collection, ranking)["ndcg_cut_10"].score


def _by_query(collection: Collection, ranking: Ranking) -> dict[str, Items]:
    """Values of each query, whose mean is the measure."""
    run = {query: {hit.id: hit.score for hit in ranking[query]} for query in collection.queries}
    scored = pytrec_eval.RelevanceEvaluator(collection.relevant, set(MEASURES)).evaluate(run)
    found = {}
    for name in MEASURES.values():
        values = np.array([scored.get(query, {}).get(name, 0.0) for query in collection.queries])
        found[name] = Items("query", (Part("mean", values, np.empty(0)),))
    return found
