"""Collections to search in: real ones, known items for tuning, and the measures of a ranking."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytrec_eval
from numpy.typing import NDArray

from text2token.data.tables import read_table
from text2token.evaluation import read_qrels, sample_collection
from text2token.evaluation.items import Items, Part
from text2token.search import Document, ScoredId, read_documents

MEASURES = {"ndcg_cut.10": "ndcg_cut_10", "recall.100": "recall_100"}
DEPTH = 100  # documents of a ranking

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
    qrels = next(file for ending in ("jsonl", "tsv") if (file := folder / "qrels" / f"test.{ending}").is_file())
    relevant: dict[str, dict[str, int]] = {}
    for query, judged in read_qrels(qrels).items():
        found = {document: grade for document, grade in judged.items() if grade > 0 and document in documents}
        if found and query in texts:
            relevant[query] = found
    chosen, kept = sorted(relevant), set(documents)
    if limit is not None and limit < len(documents):
        needed = {query: set(found) for query, found in relevant.items()}
        queries, kept = sample_collection(needed, sorted(documents), limit * 2 // 3, fill=False)
        kept |= set(random.Random(0).sample(sorted(documents.keys() - kept), limit - len(kept)))
        chosen = sorted(queries)
    rows = [document for key, document in documents.items() if key in kept]
    return Collection(name, rows, {key: texts[key] for key in chosen}, {key: relevant[key] for key in chosen})


def known_items(file: Path, size: int) -> Collection:
    """Make a known-item search from paragraphs without judgements, to tune settings.

    Half of the queries are titles, half are first sentences. The document that a query must find is the rest of its paragraph.
    Each article gives one paragraph.
    """
    paragraphs = list({row.text("title"): row.text("text") for row in islice(read_table(file), 20 * size)}.items())
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


def best(collection: Collection, scores: NDArray[np.float32]) -> dict[str, list[ScoredId]]:
    """Return the best documents of every query, from scores Q×D. A score of 0 is no hit: the vectors share no token."""
    ids = [document.id for document in collection.documents]
    ranked = {}
    for query, row in zip(collection.queries, scores, strict=True):
        order = np.argsort(-row, kind="stable")[:DEPTH]
        ranked[query] = [ScoredId(ids[i], float(row[i])) for i in order if row[i] != 0]
    return ranked


def measure(collection: Collection, ranking: Ranking) -> dict[str, dict[str, Any]]:
    """Measure nDCG@10 and recall@100, × 100, each with its 95 % bootstrap interval over queries."""
    scored = {name: query_items(values) for name, values in by_query(collection, ranking).items()}
    return {
        name: {"score": 100 * items.score, "interval": [100 * end for end in items.interval()]}
        for name, items in scored.items()
    }


def by_query(collection: Collection, ranking: Ranking) -> dict[str, list[float]]:
    """Measure nDCG@10 and recall@100 of every query, in the order of the queries."""
    run = {query: {hit.id: hit.score for hit in ranking[query]} for query in collection.queries}
    scored = pytrec_eval.RelevanceEvaluator(collection.relevant, set(MEASURES)).evaluate(run)
    return {name: [scored.get(query, {}).get(name, 0.0) for query in collection.queries] for name in MEASURES.values()}


def query_items(values: Sequence[float]) -> Items:
    """Make items of the scores of queries, whose mean has bootstrap intervals."""
    return Items("query", (Part("mean", np.array(values), np.empty(0)),))


def ndcg(collection: Collection, ranking: Ranking) -> float:
    """Measure nDCG@10, × 100."""
    return float(measure(collection, ranking)["ndcg_cut_10"]["score"])
