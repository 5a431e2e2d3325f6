"""Collections to search in, embeddings that are kept, and many settings of sparse vectors over one pass of a model."""

from __future__ import annotations

import json
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
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.vocabulary import count_tokens
from text2token.search import Document, read_documents
from text2token.search.encoder import TextEncoder, untruncated
from text2token.search.engines.base import ScoredId
from text2token.search.vectors import TokenSpace, TokenVectors
from text2token.settings.search import VectorSettings
from text2token.utils.progress import track

MEASURES = {"ndcg_cut.10": "ndcg_cut_10", "recall.100": "recall_100"}
DEPTH = 100
_MOST_TOKENS = 512  # of a text, among which every K and M of a sweep are
_ITEM_WORDS = 40  # that a document is long enough to lose a span
_CHUNK = 32  # texts between two commits
_BATCH_CHARACTERS = 8_000  # of a batch: about what the caches of a CPU hold

Ranking = Mapping[str, Sequence[ScoredId]]


@dataclass(frozen=True)
class Collection:
    """Documents, queries by id, and relevance by query and document."""

    name: str
    documents: list[Document]
    queries: dict[str, str]
    relevant: dict[str, dict[str, int]]


def beir(folder: Path, name: str, limit: int | None) -> Collection:
    """A collection in BEIR's layout, or a part of it.

    Args:
        folder: With corpus.jsonl, queries.jsonl and qrels/test.
        name: For people.
        limit: Documents kept at most: all judged ones of as many queries as leave a third for others. None: all.
    """
    documents = {document.id: document for document in read_documents(folder / "corpus.jsonl")}
    texts = {query.id: query.text for query in read_documents(folder / "queries.jsonl")}
    relevant: dict[str, dict[str, int]] = {}
    for query, document, score in _judgements(folder / "qrels"):
        if score > 0 and document in documents and query in texts:
            relevant.setdefault(query, {})[document] = score
    rng = random.Random(0)
    chosen = sorted(relevant)
    kept = set(documents)
    if limit is not None and limit < len(documents):
        rng.shuffle(chosen)
        kept, fitting = set(), []
        for query in chosen:
            if len(kept | relevant[query].keys()) <= limit * 2 // 3:
                kept |= relevant[query].keys()
                fitting.append(query)
        others = sorted(documents.keys() - kept)
        kept |= set(rng.sample(others, limit - len(kept)))
        chosen = sorted(fitting)
    rows = [document for key, document in documents.items() if key in kept]
    return Collection(name, rows, {key: texts[key] for key in chosen}, {key: relevant[key] for key in chosen})


def known_items(file: Path, size: int) -> Collection:
    """Known-item search in text without judgements, for tuning: half of the queries are titles, half first sentences.

    The document of a query is the rest of its paragraph, without title or first sentence; one paragraph per article.
    """
    rows = list(
        {row.values["title"]: row.values for row in islice(read_table(file, ["title", "text"]), 20 * size)}.values()
    )
    random.Random(0).shuffle(rows)
    documents: list[Document] = []
    queries: dict[str, str] = {}
    for row in rows:
        first, stop, rest = row["text"].partition(". ")
        if not stop or len(rest.split()) < 30 or len(first.split()) < 6:
            continue
        name = str(len(documents))
        queries[name] = row["title"] if len(documents) % 2 else first
        documents.append(Document(name, "", rest))
        if len(documents) == size:
            break
    asked = dict(islice(queries.items(), size // 2))
    return Collection("known items", documents, asked, {key: {key: 1} for key in asked})


def span_items(collection: Collection, size: int) -> Collection:
    """Known-item search in the documents of a collection, for tuning: its queries and judgements are not looked at.

    A query is a span of 3 to 12 words from inside a document, cut out of it (the inverse cloze task, Lee et al. 2019): harder
    than titles, and as close to the words of the documents as a query can be.
    """
    rng = random.Random(0)
    documents = {document.id: document for document in collection.documents}
    long = [document for document in collection.documents if len(document.text.split()) >= _ITEM_WORDS]
    queries: dict[str, str] = {}
    for document in rng.sample(long, min(size, len(long))):
        words = document.text.split()
        length = rng.randint(3, 12)
        start = rng.randrange(5, len(words) - length)
        queries[document.id] = " ".join(words[start : start + length])
        documents[document.id] = Document(
            document.id, document.title, " ".join([*words[:start], *words[start + length :]])
        )
    relevant = {query: {query: 1} for query in queries}
    return Collection(f"spans of {collection.name}", list(documents.values()), queries, relevant)


class KeptEmbedder(Embedder):
    """An embedder whose embeddings are kept in a file, so that a benchmark that was stopped continues."""

    store: VectorStore
    key: str

    @classmethod
    def of(cls, embedder: Embedder, file: Path) -> KeptEmbedder:
        """The same embedder, with a file."""
        kept = cls(embedder.encoder, embedder.head, embedder.correction, embedder.mean_logits, embedder.top_k)
        file.parent.mkdir(parents=True, exist_ok=True)
        kept.store, kept.key = VectorStore(file), embedder_fingerprint(embedder)
        kept.bf16 = True
        return kept

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, progress: bool = False, **_: Any) -> Tensor:
        """As of any embedder, in bf16 where the hardware has it."""
        keys = [hash_key(self.key, *([prompt] if prompt else []), text) for text in texts]
        new = self.store.missing(keys)
        todo = sorted(
            {key: text for key, text in zip(keys, texts, strict=True) if key in new}.items(), key=lambda p: len(p[1])
        )
        chunks = [todo[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        for chunk in track(chunks, "Encoding", unit="texts", each=_CHUNK, enabled=progress):
            vectors = self.embed_now([text for _, text in chunk], prompt)
            self.store.put([key for key, _ in chunk], list(vectors.numpy()))
        return torch.from_numpy(np.stack(self.store.get(keys)))

    def embed_now(self, texts: Sequence[str], prompt: str | None = None) -> Tensor:
        """Without looking into the file."""
        size = max(8, _BATCH_CHARACTERS // max(map(len, texts)))
        return super().embed(texts, prompt=prompt, batch_size=size)


class Trial:
    """One collection seen by one model: all settings of sparse vectors from the same embeddings.

    Args:
        embedder: Calibrated.
        collection: To search in.
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
        """Sparse vectors of documents and queries, as an index has them."""
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
        """The best documents of every query by sparse vectors."""
        return self.rank_vectors(*self.vectors(settings))

    def rank_vectors(self, documents: csr_array, queries: csr_array) -> dict[str, list[ScoredId]]:
        """The best documents of every query by inner products."""
        return best(self.collection, (queries @ documents.T).toarray())

    def rank_dense(self) -> dict[str, list[ScoredId]]:
        """By dense vectors."""
        documents, queries = (
            parts.dense(*embedded, len(texts))
            for parts, embedded, texts in zip(self._parts, self._embedded, self._texts, strict=True)
        )
        return best(self.collection, queries @ documents.T, negative=True)

    def flops_over_dense(self, documents: csr_array, queries: csr_array) -> float:
        """Multiplications and additions of an exact sparse search over those of a flat dense one, mean over queries."""
        postings = np.bincount(documents.indices, minlength=documents.shape[1])
        dimension = self._parts[1].dense(*self._embedded[1], len(self._texts[1])).shape[1]
        return float(postings[queries.indices].sum() / queries.shape[0] / (documents.shape[0] * dimension))


def largest(rows: csr_array, k: int) -> csr_array:
    """The ``k`` largest values of each row."""
    ranks = np.empty(rows.nnz, np.int64)
    for start, end in zip(rows.indptr, rows.indptr[1:], strict=False):
        ranks[start:end][np.argsort(-rows.data[start:end], kind="stable")] = np.arange(end - start)
    kept = rows.copy()
    kept.data = np.where(ranks < k, rows.data, 0)
    kept.eliminate_zeros()
    return kept


def best(collection: Collection, scores: NDArray[np.float32], *, negative: bool = False) -> dict[str, list[ScoredId]]:
    """The best documents of every query.

    Args:
        collection: Of Q queries and D documents.
        scores: Q×D.
        negative: Is a document without a positive score a hit? By cosines it is; of sparse vectors it shares nothing.
    """
    ids = [document.id for document in collection.documents]
    ranked = {}
    for query, row in zip(collection.queries, scores, strict=True):
        order = np.argsort(-row, kind="stable")[:DEPTH]
        ranked[query] = [ScoredId(ids[i], float(row[i])) for i in order if negative or row[i] > 0]
    return ranked


def measure(collection: Collection, ranking: Ranking) -> dict[str, dict[str, Any]]:
    """nDCG@10 and recall@100, × 100, each with its 95 % bootstrap interval over queries."""
    measured = {}
    for name, items in _by_query(collection, ranking).items():
        measured[name] = {"score": 100 * items.score, "interval": [100 * end for end in items.interval()]}
    return measured


def ndcg(collection: Collection, ranking: Ranking) -> float:
    """nDCG@10, × 100."""
    return 100 * _by_query(collection, ranking)["ndcg_cut_10"].score


def _by_query(collection: Collection, ranking: Ranking) -> dict[str, Items]:
    """What each measure is the mean of."""
    run = {query: {hit.id: hit.score for hit in ranking[query]} for query in collection.queries}
    scored = pytrec_eval.RelevanceEvaluator(collection.relevant, set(MEASURES)).evaluate(run)
    found = {}
    for name in MEASURES.values():
        values = np.array([scored.get(query, {}).get(name, 0.0) for query in collection.queries])
        found[name] = Items("query", (Part("mean", values, np.empty(0)),))
    return found


def _judgements(folder: Path) -> list[tuple[str, str, int]]:
    if (folder / "test.jsonl").is_file():
        rows = [json.loads(line) for line in (folder / "test.jsonl").read_text().splitlines()]
        return [(str(row["query-id"]), str(row["corpus-id"]), int(row["score"])) for row in rows]
    lines = (folder / "test.tsv").read_text().splitlines()[1:]
    return [(query, document, int(score)) for query, document, score in (line.split("\t") for line in lines)]
