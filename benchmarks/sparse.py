"""Measure search on three collections: BM25, dense, sparse and hybrid, with and without a model at the query, and the costs.

    python benchmarks/sparse.py --data DATA --ours MODEL --llm2vec MODEL       # 'make bench-quality' trains such models

Every finished part stays in ``--runs``, so a stopped run continues. The benchmark writes sparse.json after every part, then
search_settings.json and search_speed.json.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import mean, median
from typing import Any

import bm25s
import click
import Stemmer

import search_speed
from runner import data_checksums, kept, write_results
from sparse_trials import DEPTH, Collection, KeptEmbedder, Ranking, Trial, beir, known_items, measure, ndcg, span_items
from text2token.cli.options import quiet_libraries
from text2token.evaluation.encoders import hash_key
from text2token.model.embedder import Embedder
from text2token.model.packaged import REFERENCES
from text2token.search import HYBRID, Fusion, Index, ScoredId
from text2token.search.encoder import TextEncoder
from text2token.search.engines.base import Matrix
from text2token.search.fusion import fuse, search
from text2token.settings.recipe import Recipe
from text2token.settings.search import Calibration, FieldName, FusionMethod, VectorSettings

SETS = {"SciFact": "mteb/scifact", "NFCorpusFiltered": "extra/NFCorpusFiltered", "CISI": "extra/CISI"}
PARAGRAPHS = "corpus/wiki-paragraphs.jsonl"
SWEPT_K, SWEPT_M = (8, 16, 32, 64, 128, 256, 512), (0, 4, 8, 16, 32, 64, 128)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
SPANS = 100  # known items of a collection in the comparison of fusions
TIMED = 50  # queries that are timed
RECIPES = {  # models that learn the means of token logits from the documents
    "PromptEOL": Recipe(template="eol", calibration_texts=300),
    "LLM2Vec": Recipe(correction="none", calibration_texts=300),
}


class Model:
    """A model of the benchmark.

    Args:
        name: Name for readers.
        path: Folder or name, as ``text2token index`` takes it.
        runs: Folder for its embeddings, its indexes and the finished parts.
    """

    def __init__(self, name: str, path: str, runs: Path) -> None:
        self.name, self.path, self.runs = name, path, runs
        self.recipe = RECIPES.get(name, Recipe())

    @cached_property
    def embedder(self) -> KeptEmbedder:
        """The opened model. LLM2Vec's recipe is read with the head of its backbone, which its folder does not hold."""
        opened = (
            Embedder.open(self.path, head="original", corrected=False)
            if self.name == "LLM2Vec"
            else Embedder.open(self.path, **self.recipe.embedder_settings())
        )
        return KeptEmbedder.of(opened, self.runs / "vectors" / f"{self.name}.sqlite")

    def folder(self, collection: Collection) -> Path:
        """Folder of the index of a collection."""
        return self.runs / "index" / f"{self.name}-{collection.name}"

    def index(self, collection: Collection) -> tuple[Index, float]:
        """Build an index of a collection. Returns it with the seconds that the build took without encoding."""
        folder = self.folder(collection)
        shutil.rmtree(folder, ignore_errors=True)
        calibration = Calibration(correction=self.recipe.correction, texts=self.recipe.calibration_texts)
        encoder = self.recipe.embedder_settings()
        index = Index.create(folder, self.path, encoder=encoder, calibration=calibration, embedder=self.embedder)
        TextEncoder(self.embedder, "document").embed([d.content for d in collection.documents], progress=True)
        started = time.perf_counter()
        index.add(collection.documents)
        return index, time.perf_counter() - started

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """Return a measurement that stays valid as long as the model and the default settings are the same."""
        click.echo(f"{name} …", err=True)
        settings = [HYBRID, VectorSettings().model_dump(), WEIGHTS, SHARES, SWEPT_K, SWEPT_M, SPANS]
        key = hash_key(self.embedder.key, json.dumps(settings)).hex()[:8]
        return kept(self.runs / "parts" / f"{name}-{key}.json", compute)


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True, help="folder with the collections")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/sparse"), show_default=True)
@click.option("--ours", type=click.Path(exists=True), help="folder that 'text2token fit' wrote")
@click.option("--llm2vec", type=click.Path(exists=True), help="folder that 'text2token baseline llm2vec' wrote")
@click.option("--models", default="ours,MiniLM,PromptEOL,LLM2Vec", show_default=True, help="models, in this order")
@click.option("--documents", type=click.IntRange(50), help="make a second table with this number of documents")
@click.option("--whole", default="ours,MiniLM", show_default=True, help="models of the first table, if there are two")
@click.option("--tuning", type=click.IntRange(50), default=1_000, show_default=True, help="paragraphs for tuning")
def main(
    data: Path,
    runs: Path,
    ours: str | None,
    llm2vec: str | None,
    models: str,
    documents: int | None,
    whole: str,
    tuning: int,
) -> None:
    """Measure search in whole collections, and the choice of settings with the first model."""
    quiet_libraries()
    paths = {"ours": ours, "MiniLM": next(iter(REFERENCES)), "PromptEOL": Recipe().backbone, "LLM2Vec": llm2vec}
    chosen = {name: Model(name, path, runs) for name in models.split(",") if (path := paths[name]) is not None}
    checksums = data_checksums(data, [*SETS.values(), PARAGRAPHS])
    tables: list[dict[str, Any]] = []
    for limit in (None, documents) if documents else (None,):
        collections = [beir(data / folder, name, limit) for name, folder in SETS.items()]
        tables.append(bm25_table(collections, limit))
        for name, model in chosen.items():
            if limit or not documents or name in whole.split(","):
                for collection in collections:
                    part = f"{name}-{collection.name}-{limit or 'all'}"
                    row = model.once(part, partial(quality, model, collection))
                    for kind in ("quality", "cost"):
                        tables[-1][kind].setdefault(name, {})[collection.name] = row[kind]
                    click.echo(write_results("sparse", 0, checksums, summarise(tables[0]), {"tables": tables}))
    first = next(iter(chosen.values()))
    items = known_items(data / PARAGRAPHS, tuning)
    part = f"tuning-{first.name}-{tuning}-{documents or 'all'}"
    settings = {"settings": VectorSettings().model_dump(), "fusion": HYBRID._asdict()}
    settings["tuning"] = first.once(part, partial(tuned, first, items, collections))
    click.echo(write_results("search_settings", 0, checksums, {}, settings))
    scifact = beir(data / SETS["SciFact"], "SciFact", None)
    vectors = search_speed.Vectors(*Trial(first.embedder, scifact).vectors(VectorSettings()))
    texts = [document.content for document in scifact.documents]
    speed = search_speed.measure(runs, vectors, texts, list(scifact.queries.values()))
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

    def ranked(**options: Any) -> Ranking:
        return dict(zip(collection.queries, index.rank(queries, DEPTH, **options), strict=True))

    rankings = {"dense": ranked(mode="dense"), "hybrid": ranked(mode="hybrid")}
    cost: dict[str, Any] = {"index_seconds_beyond_encoding": seconds}
    if "sparse" in index.fields:
        trial = Trial(index.embedder, collection)
        rankings |= {
            "sparse": ranked(mode="sparse"),
            "sparse, no model at the query": ranked(mode="sparse", inference_free=True),
            "hybrid, no model at the query": ranked(mode="hybrid", inference_free=True),
            "sparse, paper's form": trial.rank_vectors(*trial.paper_vectors()),
        }
        cost["flops_over_dense"] = trial.flops_over_dense(*trial.vectors(VectorSettings()))
        cost["flops_over_dense, paper's form"] = trial.flops_over_dense(*trial.paper_vectors())
    cost["milliseconds"] = _times(index, model.embedder, queries[:TIMED])
    index.close()  # this writes the log of the database into its file
    cost["bytes_a_document"] = _bytes(model, collection)
    return {"quality": {name: measure(collection, ranking) for name, ranking in rankings.items()}, "cost": cost}


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


def tuned(model: Model, collection: Collection, others: list[Collection]) -> dict[str, Any]:
    """Score settings by nDCG@10 on known items: shares, K, M and ways to fuse."""
    index, _ = model.index(collection)
    if "sparse" not in index.fields:
        raise click.UsageError(f"{model.name} has no sparse field to tune: name another model first.")
    trial = Trial(index.embedder, collection)

    def score(**changes: Any) -> float:
        return ndcg(collection, trial.rank(VectorSettings(**changes)))

    shares = {f"{d}, {q}": score(document_share=d, query_share=q) for d, q in product(SHARES, SHARES)}

    def paper_score(**changes: int) -> float:
        return ndcg(collection, trial.rank_vectors(*trial.paper_vectors(**changes)))

    sweep = {
        "weighted": {
            "K": {k: score(document_k=k) for k in SWEPT_K},
            "M": {m: score(query_m=m) for m in SWEPT_M},
        },
        "paper": {
            "K": {k: paper_score(document_k=k, query_m=16) for k in SWEPT_K},
            "M": {m: paper_score(query_m=m) for m in SWEPT_M},
        },
    }
    items = [collection, *(span_items(other, SPANS) for other in (collection, *others))]
    return {
        "model": model.name,
        "documents": len(collection.documents),
        "queries": len(collection.queries),
        "shares (document, query)": shares,
        "sweep": sweep,
        "fusion": {known.name: fusions(Trial(index.embedder, known)) for known in items},
    }


def fusions(trial: Trial) -> dict[str, float]:
    """Measure nDCG@10 of each field alone and of all ways to fuse them. BM25 weighs 1."""
    collection = trial.collection
    fields: dict[FieldName, Ranking] = {
        "bm25": bm25(collection),
        "dense": trial.rank_dense(),
        "sparse": trial.rank(VectorSettings()),
    }
    scores = {f"{field} alone": ndcg(collection, ranking) for field, ranking in fields.items()}
    methods: tuple[FusionMethod, ...] = ("rrf", "scores")
    for method, sparse, dense in product(methods, WEIGHTS, WEIGHTS):
        fusion = Fusion(method, {"bm25": 1.0, "sparse": sparse, "dense": dense})
        ranking = {
            q: fuse({field: found[q] for field, found in fields.items()}, DEPTH, fusion) for q in collection.queries
        }
        scores[f"{method}, sparse {sparse}, dense {dense}"] = ndcg(collection, ranking)
    return scores


def summarise(table: dict[str, Any]) -> dict[str, float]:
    """Figures of our model, from the collections that are finished."""
    scores = table["quality"]
    done = [name for name in SETS if name in scores.get("ours", {})]
    if not done:
        return {}

    def score(model: str, collection: str, way: str) -> float:
        return float(scores[model][collection][way]["ndcg_cut_10"]["score"])

    return {
        "sparse_over_dense_mean": mean(score("ours", c, "sparse") / score("ours", c, "dense") for c in done),
        "hybrid_minus_bm25_min": min(score("ours", c, "hybrid") - score("BM25", c, "BM25") for c in done),
        "sparse_flops_over_dense": mean(table["cost"]["ours"][c]["flops_over_dense"] for c in done),
    }


def _bytes(model: Model, collection: Collection) -> dict[str, float]:
    """Bytes on disk per document, by field of the index."""
    folder = model.folder(collection)
    sizes: dict[str, float] = {}
    for file in folder.rglob("*"):
        if file.is_file() and "tokenizer" not in file.parts:
            kind = file.name.split(".")[0]
            sizes[kind] = sizes.get(kind, 0.0) + file.stat().st_size / len(collection.documents)
    return sizes


def _times(index: Index, embedder: KeptEmbedder, queries: list[str]) -> dict[str, list[float]]:
    """Median and largest milliseconds of each step of a search."""
    taken: dict[str, list[float]] = {}
    for query in queries:
        vectors = index.query_vectors([query])
        searches: dict[str, dict[FieldName, Matrix]] = {field: {field: rows} for field, rows in vectors.items()}
        steps: dict[str, Callable[[], Any]] = {
            "encode": partial(embedder.embed_now, [query]),
            **{
                f"search {name}": partial(search, index.engine, chosen, 10, HYBRID)
                for name, chosen in {**searches, "hybrid": vectors}.items()
            },
        }
        if "sparse" in index.fields:
            steps["words alone"] = partial(index.rank, [query], 10, mode="sparse", inference_free=True)
        for name, step in steps.items():
            step()  # warm-up
            taken.setdefault(name, []).append(_milliseconds(step))
    return {name: [median(values), max(values)] for name, values in taken.items()}


def _milliseconds(work: Callable[[], Any]) -> float:
    """Milliseconds of processor time, which other processes do not disturb."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


if __name__ == "__main__":
    main()
