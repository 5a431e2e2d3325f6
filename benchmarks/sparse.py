"""Search measured: BM25, dense, sparse, hybrid and model-free queries on three collections, and what they cost.

    python benchmarks/sparse.py --data DATA --ours MODEL --llm2vec MODEL       # models as 'make bench-quality' trains them

Each embedding is kept in runs/sparse, so that a stopped run continues. Writes benchmarks/results/sparse.json after every finished
part; figures and pages are made of it by benchmarks/search_page.py.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import bm25s
import click
import numpy as np
import Stemmer

import search_speed
from runner import data_checksums, kept, write_results
from sparse_trials import DEPTH, Collection, KeptEmbedder, Ranking, Trial, beir, known_items, measure, ndcg, span_items
from text2token.cli.options import quiet_libraries
from text2token.evaluation.encoders import hash_key
from text2token.model.embedder import Embedder
from text2token.model.packaged import REFERENCES
from text2token.search import HYBRID, Fusion, Index
from text2token.search.encoder import TextEncoder
from text2token.search.engines.base import Matrix, ScoredId
from text2token.search.fusion import fuse, search
from text2token.settings.recipe import Recipe
from text2token.settings.search import Calibration, FieldName, FusionMethod, VectorSettings
from text2token.utils.provenance import file_checksum

SETS = {"SciFact": "mteb/scifact", "NFCorpusFiltered": "extra/NFCorpusFiltered", "CISI": "extra/CISI"}
SWEPT_K, SWEPT_M = (8, 16, 32, 64, 128, 256, 512), (0, 4, 8, 16, 32, 64, 128)
SHARES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.8)
WEIGHTS = (0.0, 0.25, 0.5, 1.0, 2.0)
SPANS = 100  # known items of a collection, for fusion
TIMED = 50  # queries
UNTRAINED = {  # means of token logits are learnt from the documents
    "PromptEOL": Recipe(template="eol", calibration_texts=300),
    "LLM2Vec": Recipe(correction="none", calibration_texts=300),
}


@dataclass(frozen=True)
class Bench:
    """Where data and finished parts are."""

    data: Path
    runs: Path

    def once(self, name: str, model: Model, compute: Callable[[], Any]) -> Any:
        """A measurement, kept in a file as long as model and default settings are the same."""
        click.echo(f"{name} …", err=True)
        grid = [WEIGHTS, SHARES, SWEPT_K, SWEPT_M, SPANS]
        settings = json.dumps([HYBRID, VectorSettings().model_dump(), grid])
        depends = hash_key(model.embedder.key, settings).hex()[:8]
        return kept(self.runs / "parts" / f"{name}-{depends}.json", compute)

    def collections(self, limit: int | None) -> list[Collection]:
        """All of them, of so many documents."""
        return [beir(self.data / folder, name, limit) for name, folder in SETS.items()]


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/sparse"), show_default=True)
@click.option("--ours", type=click.Path(exists=True), help="a folder that 'text2token fit' wrote")
@click.option("--llm2vec", type=click.Path(exists=True), help="a folder that 'text2token baseline llm2vec' wrote")
@click.option("--backbone", default="smollm2-135m", show_default=True, help="of PromptEOL, untrained")
@click.option("--models", default="ours,MiniLM,PromptEOL,LLM2Vec", show_default=True, help="which, in this order")
@click.option("--documents", type=click.IntRange(50), help="a second table, of so many documents, judged ones first")
@click.option("--whole", default="ours,MiniLM", show_default=True, help="models of the first table, if there are two")
@click.option(
    "--tuning", type=click.IntRange(50), default=1_000, show_default=True, help="paragraphs of the tuning text"
)
def main(
    data: Path,
    runs: Path,
    ours: str | None,
    llm2vec: str | None,
    backbone: str,
    models: str,
    documents: int | None,
    whole: str,
    tuning: int,
) -> None:
    """Measure search in whole collections, and settings on the tuning text with the first model."""
    quiet_libraries()
    bench = Bench(data, runs)
    named = {"ours": ours, "MiniLM": next(iter(REFERENCES)), "PromptEOL": backbone, "LLM2Vec": llm2vec}
    chosen = {n: Model(n, path, bench) for n in models.split(",") if (path := named[n]) is not None}
    checksums = data_checksums(data, list(SETS.values()))
    checksums["corpus/wiki-paragraphs.jsonl"] = file_checksum(data / "corpus" / "wiki-paragraphs.jsonl")
    tables: list[dict[str, Any]] = []
    details = {"settings": VectorSettings().model_dump(), "fusion": HYBRID._asdict(), "tables": tables}
    figures: dict[str, float] = {}

    def finished() -> None:
        """What is finished is never lost."""
        figures.update(summarise(tables[0]))
        click.echo(write_results("sparse", 0, checksums, figures, details))

    for limit in (None, documents) if documents else (None,):
        collections = bench.collections(limit)
        tables.append(bare_table(collections, limit))
        for name, model in chosen.items():
            if limit or not documents or name in whole.split(","):
                for collection in collections:
                    part = f"{name}-{collection.name}-{limit or 'all'}"
                    row = bench.once(part, model, partial(quality, model, collection))
                    for kind in ("quality", "cost"):
                        tables[-1][kind].setdefault(name, {})[collection.name] = row[kind]
                    finished()
    first = next(iter(chosen.values()))
    items = known_items(data / "corpus" / "wiki-paragraphs.jsonl", tuning)
    part = f"tuning-{first.name}-{tuning}-{documents or 'all'}"
    details["tuning"] = bench.once(part, first, partial(tuned, first, items, collections))
    finished()
    speed, details["speed"] = speed_of(first, bench.collections(None)[0])
    figures |= speed
    finished()


def bare_table(collections: list[Collection], limit: int | None) -> dict[str, Any]:
    """Collections of at most ``limit`` documents, and BM25 in them; models come later."""
    sizes = {c.name: {"documents": len(c.documents), "queries": len(c.queries)} for c in collections}
    bar = {c.name: {"BM25": measure(c, bm25(c))} for c in collections}
    return {"documents": limit, "collections": sizes, "quality": {"BM25": bar}, "cost": {}}


def speed_of(model: Model, collection: Collection) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures of speed, with the vectors of a model."""
    vectors = search_speed.Vectors(*Trial(model.embedder, collection).vectors(VectorSettings()))
    texts = [document.content for document in collection.documents]
    return search_speed.measure(model.runs, vectors, texts, list(collection.queries.values()))


class Model:
    """A model by name.

    Args:
        name: For people.
        path: As ``text2token index`` takes it.
        bench: Where its embeddings are kept.
    """

    def __init__(self, name: str, path: str, bench: Bench) -> None:
        self.name, self.path, self.runs = name, path, bench.runs
        self.recipe = UNTRAINED.get(name, Recipe())

    @cached_property
    def embedder(self) -> KeptEmbedder:
        """As it is in its folder; that of LLM2Vec's recipe with the head of its backbone, which the folder does not hold."""
        opened = (
            Embedder.open(self.path, head="original", corrected=False)
            if self.name == "LLM2Vec"
            else Embedder.open(self.path, **self.recipe.embedder_settings())
        )
        return KeptEmbedder.of(opened, self.runs / "vectors" / f"{self.name}.sqlite")

    def folder(self, collection: Collection) -> Path:
        """Of its index of a collection."""
        return self.runs / "index" / f"{self.name}-{collection.name}"

    def index(self, collection: Collection) -> tuple[Index, float]:
        """An index of a collection, made anew, and the seconds that it took beyond encoding."""
        folder = self.folder(collection)
        shutil.rmtree(folder, ignore_errors=True)
        recipe = self.recipe
        encoder = recipe.embedder_settings()
        calibration = Calibration(correction=recipe.correction, texts=recipe.calibration_texts)
        index = Index.create(folder, self.path, encoder=encoder, calibration=calibration, embedder=self.embedder)
        TextEncoder(self.embedder, "document").embed([d.content for d in collection.documents], progress=True)
        started = time.perf_counter()
        index.add(collection.documents)
        return index, time.perf_counter() - started


def quality(model: Model, collection: Collection) -> dict[str, Any]:
    """All ways to search a collection with one model, through the index that a user would make."""
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
    index.close()  # which writes its log into the file of documents
    cost["bytes_a_document"] = _bytes(model, collection)
    return {"quality": {name: measure(collection, ranking) for name, ranking in rankings.items()}, "cost": cost}


def bm25(collection: Collection) -> Ranking:
    """BM25 by bm25s with its defaults, English stemmer and stop words: the bar."""
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
    """What the defaults were chosen by: weights, K and M, surface forms and fusion, by nDCG@10 of known items."""
    index, _ = model.index(collection)
    if "sparse" not in index.fields:
        raise click.UsageError(f"{model.name} has no sparse side to tune: name another model first.")
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
    """nDCG@10 of each side alone, and of all ways to fuse them; BM25 weighs 1."""
    collection = trial.collection
    sides: dict[FieldName, Ranking] = {
        "bm25": bm25(collection),
        "dense": trial.rank_dense(),
        "sparse": trial.rank(VectorSettings()),
    }
    scores = {f"{side} alone": ndcg(collection, ranking) for side, ranking in sides.items()}
    methods: tuple[FusionMethod, ...] = ("rrf", "scores")
    for method, sparse, dense in product(methods, WEIGHTS, WEIGHTS):
        fusion = Fusion(method, {"bm25": 1.0, "sparse": sparse, "dense": dense})
        ranking = {
            q: fuse({side: found[q] for side, found in sides.items()}, DEPTH, fusion) for q in collection.queries
        }
        scores[f"{method}, sparse {sparse}, dense {dense}"] = ndcg(collection, ranking)
    return scores


def summarise(table: dict[str, Any]) -> dict[str, float]:
    """The figures with goals, of our model, from the collections that are finished for it."""
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
    """Of the index on disk, by side and for the documents themselves."""
    folder = model.folder(collection)
    sides: dict[str, float] = {}
    for file in folder.rglob("*"):
        if file.is_file() and "tokenizer" not in file.parts:
            kind = file.name.split(".")[0]
            sides[kind] = sides.get(kind, 0.0) + file.stat().st_size / len(collection.documents)
    return sides


def _times(index: Index, embedder: KeptEmbedder, queries: list[str]) -> dict[str, list[float]]:
    """Median and most of encoding a query, of searching with its vectors, and of all that a search without the model does."""
    taken: dict[str, list[float]] = {}
    for query in queries:
        vectors = index.query_vectors([query])
        searches: dict[str, dict[FieldName, Matrix]] = {side: {side: rows} for side, rows in vectors.items()}
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
    return {name: [float(np.median(values)), max(values)] for name, values in taken.items()}


def _milliseconds(work: Callable[[], Any]) -> float:
    """Of the processor, which a shared machine does not disturb."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


if __name__ == "__main__":
    main()
