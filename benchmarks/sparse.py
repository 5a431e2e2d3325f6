"""Measure search on three collections: BM25, dense, sparse and hybrid, with and without a model at the query, and the costs.

    python benchmarks/sparse.py --data DATA --ours MODEL --llm2vec MODEL       # 'make bench-quality' trains such models

Every finished part stays in ``--runs``, so a stopped run continues. The benchmark writes sparse.json after every part, then
search_settings.json and search_speed.json.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import bm25s
import click
import numpy as np
import Stemmer
import torch
from scipy.sparse import csr_array
from torch import Tensor

import search_speed
from collection import DEPTH, Collection, Ranking, beir, known_items, measure, ndcg
from paper_form import paper_form
from runner import DATA, PARAGRAPHS, data_checksums, runs_option, write_results
from text2token.cli.options import quiet_libraries
from text2token.evaluation.vector_store import VectorStore, hash_key
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.packaged import REFERENCES
from text2token.search import HYBRID, Index, ScoredId
from text2token.search.encoder import TextEncoder
from text2token.search.engines.base import Matrix
from text2token.search.fusion import search
from text2token.settings.recipe import Recipe
from text2token.settings.search import Calibration, EngineName, FieldName, VectorSettings
from text2token.utils.resume import cached

SETS = {"SciFact": "mteb/scifact", "NFCorpusFiltered": "extra/NFCorpusFiltered", "CISI": "extra/CISI"}
SWEPT = {"document_k": (8, 16, 32, 64, 128, 256, 512), "query_m": (0, 4, 8, 16, 32, 64, 128)}
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
TIMED = 50  # queries that are timed
WAYS: dict[str, dict[str, Any]] = {
    "dense": {"mode": "dense"},
    "hybrid": {"mode": "hybrid"},
    "sparse": {"mode": "sparse"},
    "sparse, no model at the query": {"mode": "sparse", "inference_free": True},
    "hybrid, no model at the query": {"mode": "hybrid", "inference_free": True},
}
ALWAYS = ("ours", "MiniLM")  # models of the first table, if there are two
RECIPES = {  # models that learn the means of token logits from the documents
    "PromptEOL": Recipe(template="eol", calibration_texts=300),
    "LLM2Vec": Recipe(correction="none", calibration_texts=300),
}
_CHUNK = 256  # texts that are encoded between two writes to the file


class KeptEmbedder(Embedder):
    """An embedder that keeps its embeddings in a file, so that a stopped benchmark continues."""

    store: VectorStore
    key: str

    def embed(self, texts: Sequence[str], *, prompt: str | None = None, **_: Any) -> Tensor:
        """Return embeddings from the file, and encode the texts that it lacks."""
        keys = [hash_key(self.key, *([prompt] if prompt else []), text) for text in texts]
        missing = self.store.missing(keys)
        todo = list({key: text for key, text in zip(keys, texts, strict=True) if key in missing}.items())
        for start in range(0, len(todo), _CHUNK):
            new = dict(todo[start : start + _CHUNK])
            self.store.put(list(new), list(super().embed(list(new.values()), prompt=prompt).numpy()))
        return torch.from_numpy(np.stack(self.store.get(keys))) if keys else super().embed(texts)


class Model:
    """A model of the benchmark. ``runs`` keeps its embeddings, its indexes and the finished parts."""

    def __init__(self, name: str, path: str, runs: Path, query_model: str = "none") -> None:
        self.name, self.path, self.runs, self.query_model = name, path, runs, query_model
        self.recipe = RECIPES.get(name, Recipe())

    @cached_property
    def embedder(self) -> KeptEmbedder:
        """The opened model. LLM2Vec's recipe is read with the head of its backbone, which its folder does not hold."""
        own = {"head": "original", "corrected": False} if self.name == "LLM2Vec" else self.recipe.embedder_settings()
        opened = Embedder.open(self.path, **own)
        kept = KeptEmbedder(opened.encoder, opened.head, opened.correction, opened.mean_logits, opened.top_k)
        file = self.runs / "vectors" / f"{self.name}.sqlite"
        file.parent.mkdir(parents=True, exist_ok=True)
        kept.store, kept.key, kept.bf16 = VectorStore(file), embedder_fingerprint(opened), True
        return kept

    def folder(self, collection: Collection, engine: EngineName = "embedded") -> Path:
        """Folder of the index of a collection."""
        return self.runs / "index" / "-".join([self.name, collection.name, *([engine] if engine != "embedded" else [])])

    def index(
        self, collection: Collection, *, engine: EngineName = "embedded", uri: str | None = None, **vectors: Any
    ) -> tuple[Index, float]:
        """Build an index with settings of its sparse vectors, and measure the seconds of the build without encoding."""
        folder = self.folder(collection, engine)
        shutil.rmtree(folder, ignore_errors=True)
        TextEncoder(self.embedder, "document").embed([d.content for d in collection.documents], progress=True)
        index = Index.create(
            folder,
            self.path,
            encoder=self.recipe.embedder_settings(),
            calibration=Calibration(correction=self.recipe.correction, texts=self.recipe.calibration_texts),
            vectors=VectorSettings(**vectors),
            engine=engine,
            uri=uri,
            embedder=self.embedder,
            query_model=self.query_model,
        )
        started = time.perf_counter()
        index.add(collection.documents)
        return index, time.perf_counter() - started

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a measurement that stays valid as long as the model and the default settings are the same."""
        click.echo(f"{name} …", err=True)
        settings = [HYBRID, VectorSettings().model_dump(), SHARES, SWEPT]
        key = hash_key(self.embedder.key, json.dumps(settings)).hex()[:8]
        return cached(self.runs / "parts" / f"{name}-{key}.json", compute)


@click.command()
@DATA
@runs_option("sparse")
@click.option("--ours", type=click.Path(exists=True), required=True, help="folder that 'text2token fit' wrote")
@click.option("--llm2vec", type=click.Path(exists=True), help="folder that 'text2token baseline llm2vec' wrote")
@click.option("--documents", type=click.IntRange(50), help="make a second table with this number of documents")
@click.option("--tuning", type=click.IntRange(50), default=1_000, show_default=True, help="paragraphs for tuning")
def main(data: Path, runs: Path, ours: str, llm2vec: str | None, documents: int | None, tuning: int) -> None:
    """Measure search in whole collections, and the choice of settings with our model."""
    quiet_libraries()
    paths = {"ours": ours, "MiniLM": next(iter(REFERENCES)), "PromptEOL": Recipe().backbone, "LLM2Vec": llm2vec}
    models = {name: Model(name, path, runs) for name, path in paths.items() if path is not None}
    checksums = data_checksums(data, [*SETS.values(), PARAGRAPHS])
    tables: list[dict[str, Any]] = []
    for limit in (None, documents) if documents else (None,):
        collections = [beir(data / folder, name, limit) for name, folder in SETS.items()]
        tables.append(bm25_table(collections, limit))
        shown = [model for name, model in models.items() if limit or not documents or name in ALWAYS]
        for model, collection in product(shown, collections):
            part = f"{model.name}-{collection.name}-{limit or 'all'}"
            row = model.once(part, partial(quality, model, collection))
            for kind in ("quality", "cost"):
                tables[-1][kind].setdefault(model.name, {})[collection.name] = row[kind]
            click.echo(write_results("sparse", 0, checksums, summarise(tables[0]), {"tables": tables}))
    first = models["ours"]
    items = known_items(data / PARAGRAPHS, tuning)
    found = first.once(f"tuning-{tuning}", partial(tuned, first, items))
    settings = {"settings": VectorSettings().model_dump(), "fusion": HYBRID._asdict(), "tuning": found}
    click.echo(write_results("search_settings", 0, checksums, {}, settings))
    scifact = beir(data / SETS["SciFact"], "SciFact", None)
    index, _ = first.index(scifact)
    texts = [document.content for document in scifact.documents], list(scifact.queries.values())
    speed = search_speed.measure(first.once, sparse_vectors(index, texts[1]), texts)
    click.echo(write_results("search_speed", 0, checksums, *speed))


def bm25_table(collections: list[Collection], limit: int | None) -> dict[str, Any]:
    """Start a table with the sizes of the collections and with BM25."""
    sizes = {c.name: {"documents": len(c.documents), "queries": len(c.queries)} for c in collections}
    scores = {c.name: {"BM25": measure(c, bm25(c))} for c in collections}
    return {"documents": limit, "collections": sizes, "quality": {"BM25": scores}, "cost": {}}


def quality(model: Model, collection: Collection) -> dict[str, Any]:
    """Measure all ways to search a collection with one model, through the index that a user would make."""
    index, seconds = model.index(collection)
    queries = list(collection.queries.values())
    TextEncoder(model.embedder, "query").embed(queries, progress=True)
    rankings = rank_all(index, collection)
    cost: dict[str, Any] = {"index_seconds_beyond_encoding": seconds}
    if "sparse" in index.fields:
        rankings["sparse, paper's form"] = paper_form(index.embedder, collection)
        cost["flops_over_dense"] = flops_over_dense(index, *sparse_vectors(index, queries))
    cost["milliseconds"] = milliseconds(index, queries[:TIMED])
    index.close()  # this writes the log of the database into its file
    cost["bytes_a_document"] = sizes(model.folder(collection), len(collection.documents))
    return {"quality": {name: measure(collection, ranking) for name, ranking in rankings.items()}, "cost": cost}


def rank_all(index: Index, collection: Collection) -> dict[str, Ranking]:
    """Rank in all ways of :data:`WAYS` that the fields of an index allow."""
    possible = WAYS if "sparse" in index.fields else ("dense", "hybrid")
    return {way: rank(index, collection, **WAYS[way]) for way in possible}


def rank(index: Index, collection: Collection, **options: Any) -> Ranking:
    """Rank the documents of a collection for every query with its index."""
    return dict(zip(collection.queries, index.rank(list(collection.queries.values()), DEPTH, **options), strict=True))


def bm25(collection: Collection) -> Ranking:
    """Rank with BM25: bm25s with its defaults, an English stemmer and stop words."""
    stemmer = Stemmer.Stemmer("english")
    options = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    index = bm25s.BM25()
    index.index(bm25s.tokenize([document.content for document in collection.documents], **options), show_progress=False)
    tokens = bm25s.tokenize(list(collection.queries.values()), **options)
    rows, scores = index.retrieve(tokens, k=min(DEPTH, len(collection.documents)), show_progress=False)
    return {
        query: [ScoredId(collection.documents[i].id, float(s)) for i, s in zip(found, values, strict=True) if s > 0]
        for query, found, values in zip(collection.queries, rows, scores, strict=True)
    }


def tuned(model: Model, collection: Collection) -> dict[str, Any]:
    """Score settings of sparse vectors by nDCG@10 on known items: both shares, K and M."""

    def score(**settings: Any) -> float:
        index, _ = model.index(collection, **settings)
        return ndcg(collection, rank(index, collection, mode="sparse"))

    shares = {d: {q: score(document_share=d, query_share=q) for q in SHARES} for d in SHARES}
    sweep = {setting: {value: score(**{setting: value}) for value in values} for setting, values in SWEPT.items()}
    known = {"documents": len(collection.documents), "queries": len(collection.queries)}
    return {"model": model.name, **known, "shares": shares, "sweep": sweep}


def summarise(table: dict[str, Any]) -> dict[str, float]:
    """Compute the figures of our model from the collections that are finished."""
    ours, bar = table["quality"].get("ours", {}), table["quality"]["BM25"]
    scores = {
        name: {way: row["ndcg_cut_10"]["score"] for way, row in (ours[name] | bar[name]).items()} for name in ours
    }
    return {
        "sparse_over_dense_mean": mean(row["sparse"] / row["dense"] for row in scores.values()),
        "hybrid_minus_bm25_min": min(row["hybrid"] - row["BM25"] for row in scores.values()),
        "sparse_flops_over_dense": mean(row["flops_over_dense"] for row in table["cost"]["ours"].values()),
    }


def sparse_vectors(index: Index, queries: list[str]) -> tuple[csr_array, csr_array]:
    """Return the sparse vectors of all documents of an index, and of queries."""
    return index.sample(len(index))[1], csr_array(index.query_vectors(queries, "sparse")["sparse"])


def flops_over_dense(index: Index, documents: csr_array, queries: csr_array) -> float:
    """Divide the operations of an exact sparse search by those of an exact dense one, mean over queries."""
    postings = np.bincount(documents.indices, minlength=queries.shape[1])
    dimension = index.embedder.encoder.get_embedding_dimension()
    return float(postings[queries.indices].sum() / queries.shape[0] / (documents.shape[0] * dimension))


def sizes(folder: Path, documents: int) -> dict[str, float]:
    """Measure the bytes on disk per document, by field of the index."""
    found: dict[str, float] = {}
    for file in folder.rglob("*"):
        if file.is_file() and "tokenizer" not in file.parts:
            kind = file.name.split(".")[0]
            found[kind] = found.get(kind, 0.0) + file.stat().st_size / documents
    return found


def milliseconds(index: Index, queries: list[str]) -> dict[str, list[float]]:
    """Measure the median and largest milliseconds of processor time of each step of a search."""
    taken: dict[str, list[float]] = {}
    for query in queries:
        vectors = index.query_vectors([query])
        searches: dict[str, dict[FieldName, Matrix]] = {field: {field: rows} for field, rows in vectors.items()}
        steps: dict[str, Callable[[], Any]] = {"encode": partial(Embedder.embed, index.embedder, [query])}
        for name, chosen in {**searches, "hybrid": vectors}.items():
            steps[f"search {name}"] = partial(search, index.engine, chosen, 10, HYBRID)
        if "sparse" in index.fields:
            steps["words alone"] = partial(index.rank, [query], 10, mode="sparse", inference_free=True)
        for name, step in steps.items():
            step()  # warm-up
            taken.setdefault(name, []).append(search_speed.milliseconds(step))
    return {name: [median(values), max(values)] for name, values in taken.items()}


if __name__ == "__main__":
    main()
