"""The student in the benchmark of speed: what it costs, what it keeps alone, and what it keeps as the query side of an index.

    python benchmarks/speed_student.py --data DATA --model MODEL                    # whole collections: hours
    python benchmarks/speed_student.py --data DATA --model MODEL --documents 500    # cuts

The student learns from Wikipedia texts and from documents of the collections, without queries or judgements. The
teacher's vectors stay in ``--runs``, so a stopped run continues.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import Any

import click

from collection import Collection, beir, best, ndcg
from runner import DATA, PARAGRAPHS, SENTENCES, bf16, runs_option, text2token, write_texts
from sparse import SETS, WAYS, Model, rank
from text2token.analysis.sts import EmbeddedPairs
from text2token.cli.options import quiet_libraries
from text2token.data.sts import read_sts
from text2token.data.tables import read_table
from text2token.model.embedder import Embedder
from text2token.search import Index
from text2token.search.encoder import TextEncoder
from turns import seconds

VALIDATION = "mteb/stsbenchmark-sts/validation.jsonl"
FILES = (*SETS.values(), PARAGRAPHS, SENTENCES, VALIDATION)
READ = {"sentences": 2_000, "paragraphs": 1_000, "documents": 500}  # texts of each kind; documents of each collection
TIMED = 50  # queries that are timed
ENCODED = {"teacher": 64, "student": 6_400}  # texts that are timed


def measure(data: Path, runs: Path, model: str, limit: int | None = None) -> dict[str, Any]:
    """Return ``figures`` and ``details`` of the student.

    Args:
        data: Folder with corpus/, mteb/ and extra/.
        runs: Keeps the student, the vectors of the teacher, the indexes and the finished parts.
        model: The teacher, a folder that ``fit`` wrote.
        limit: Documents of a collection; None: all.
    """
    collections = [beir(data / folder, name, limit) for name, folder in SETS.items()]
    student = runs / "student"
    if not student.is_dir():
        texts = write_texts(lessons(data, collections), runs / "texts.jsonl")
        text2token("distill", model, str(texts), "--output", str(student))
    taught = Model("teacher", model, runs, query_model=str(student))
    alone = Embedder.open(student)

    def once(name: str, compute: Callable[[], Any]) -> Any:
        return taught.once(f"{name}-{limit or 'all'}", compute)

    scores = {own.name: once(own.name, partial(compare, taught, alone, own)) for own in collections}
    speed = once("speed", partial(speedup, taught, alone, runs / "texts.jsonl"))
    latency = once("latency", partial(latencies, taught, collections[0]))
    sts = once("sts", partial(similarity, alone, data / VALIDATION))
    return {
        "figures": figures(scores, speed, latency, sts),
        "details": {"ndcg": scores, "tokens_a_second": speed, "documents": limit},
    }


def figures(
    scores: dict[str, dict[str, float]], speed: dict[str, float], latency: dict[str, float], sts: float
) -> dict[str, float]:
    """Compute the figures; ratios and differences are means over the collections."""
    rows = scores.values()
    return {
        "student_speedup": speed["student"] / speed["teacher"],
        "student_stsb_validation": sts,
        "student_alone_ndcg_kept": mean(row["student alone"] / row["dense"] for row in rows),
        "student_query_dense_kept": mean(row["dense, student"] / row["dense"] for row in rows),
        "student_query_ndcg_kept": mean(row["hybrid, student"] / row["hybrid"] for row in rows),
        "student_query_gain": mean(row["hybrid, student"] - row["hybrid, no model"] for row in rows),
        "query_ms_p50_teacher": latency["teacher"],
        "query_ms_p50_student": latency["student"],
    }


def lessons(data: Path, collections: list[Collection]) -> list[str]:
    """Return the texts that the student learns from."""
    sentences = (data / SENTENCES).read_text(encoding="utf-8").splitlines()[: READ["sentences"]]
    paragraphs = [row.text("text") for row in islice(read_table(data / PARAGRAPHS), READ["paragraphs"])]
    documents = [
        document.content
        for own in collections
        for document in random.Random(0).sample(own.documents, min(READ["documents"], len(own.documents)))
    ]
    return [*sentences, *paragraphs, *documents]


def compare(taught: Model, alone: Embedder, collection: Collection) -> dict[str, float]:
    """Measure nDCG@10 of a collection: queries by the teacher, by the student and by words, and the student on both sides."""
    index, _ = taught.index(collection)
    ways = {way: WAYS[way] for way in ("dense", "hybrid")}
    found = {f"{way}, student": rank(index, collection, **options) for way, options in ways.items()}
    found["hybrid, no model"] = rank(index, collection, **WAYS["hybrid, no model at the query"])
    index.close()
    index = Index.open(taught.folder(collection), embedder=taught.embedder, query_model="none")
    TextEncoder(taught.embedder, "query").embed(list(collection.queries.values()), progress=True)
    found |= {way: rank(index, collection, **options) for way, options in ways.items()}
    index.close()
    queries, documents = (
        alone.encode(list(collection.queries.values())),
        alone.encode([d.content for d in collection.documents]),
    )
    found["student alone"] = best(collection, queries @ documents.T)
    return {way: ndcg(collection, ranking) for way, ranking in found.items()}


def speedup(taught: Model, alone: Embedder, texts: Path) -> dict[str, float]:
    """Measure tokens a second of teacher and student on texts of mixed length."""
    rows = [row.text("text") for row in read_table(texts)]
    random.Random(1).shuffle(rows)
    teacher = Embedder.open(taught.path)
    teacher.bf16 = bf16()
    found = {}
    for name, embedder in {"teacher": teacher, "student": alone}.items():
        own = [f"{rows[i % len(rows)]} {i}" for i in range(ENCODED[name])]  # distinct texts
        embedder.encode(own[:8])  # warm-up
        taken = seconds(partial(embedder.encode, own))
        found[name] = sum(len(ids) for ids in teacher.tokenizer(own)["input_ids"]) / taken
    return found


def latencies(taught: Model, collection: Collection) -> dict[str, float]:
    """Measure the median wall clock, in ms, of encoding a query and searching all fields, top 10.

    The index sets the precision of the teacher: that in which it encoded the documents.
    """
    teacher = Embedder.open(taught.path)
    queries = list(collection.queries.values())[:TIMED]
    found = {}
    for name, query_model in {"teacher": "none", "student": None}.items():
        index = Index.open(taught.folder(collection), embedder=teacher, query_model=query_model)
        index.rank(queries[:5], 10)  # warm-up
        found[name] = 1000 * median(seconds(partial(index.rank, [query], 10)) for query in queries)
        index.close()
    return found


def similarity(alone: Embedder, file: Path) -> float:
    """Measure Spearman's correlation with the scores of STSBenchmark validation, × 100."""
    return 100 * EmbeddedPairs.embed(alone, read_sts(file)).mapped(alone.densify).spearman()


@click.command()
@DATA
@runs_option("student")
@click.option("--model", type=click.Path(exists=True), required=True, help="folder that 'text2token fit' wrote")
@click.option("--documents", type=click.IntRange(50), help="cut the collections to this number of documents")
def main(data: Path, runs: Path, model: str, documents: int | None) -> None:
    """Measure the student alone, and print the figures."""
    quiet_libraries()
    click.echo(json.dumps(measure(data, runs, model, documents), indent=1))


if __name__ == "__main__":
    main()
