"""Measure what it gives to fit on the documents that are searched, beside Wikipedia, BM25 and MiniLM, on three collections.

    python benchmarks/own_corpus.py --data DATA

Every finished part stays in ``--runs``, so a stopped run continues. The benchmark writes its results after every collection.
Whole collections take hours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import click

from collection import Collection, beir, by_query, query_items
from contenders import OURS
from curve_points import COUNTED
from runner import DATA, SENTENCES, data_checksums, runs_option, write_results, write_texts
from sparse import SETS, Model, bm25, rank_all
from text2token.cli.options import quiet_libraries
from text2token.data.corpus import open_corpus, sample
from text2token.evaluation.items import Floats, percentile_interval
from text2token.model.packaged import REFERENCES
from text2token.search.encoder import TextEncoder
from trained import cost, texts_for, tokens_of_a_text, train

OWN, WIKIPEDIA, CONTINUED = "own", "wikipedia", "continued"
BM25, MINILM = "BM25", "MiniLM"
NDCG = "ndcg_cut_10"
COMPARED = (  # two rows of a collection's table, each a model and a way to search; the second is subtracted from the first
    ((OWN, "dense"), (WIKIPEDIA, "dense")),
    ((OWN, "sparse"), (WIKIPEDIA, "sparse")),
    ((OWN, "hybrid"), (WIKIPEDIA, "hybrid")),
    ((OWN, "hybrid"), (BM25, BM25)),
    ((OWN, "hybrid"), (MINILM, "hybrid")),
    ((CONTINUED, "dense"), (WIKIPEDIA, "dense")),
    ((CONTINUED, "hybrid"), (WIKIPEDIA, "hybrid")),
)

Scores = dict[str, dict[str, list[float]]]
"""Model → way to search → nDCG@10 of every query, from 0 to 1."""


@click.command()
@DATA
@runs_option("own_corpus")
@click.option("--documents", type=click.IntRange(50), help="cut the collections to this number of documents")
def main(data: Path, runs: Path, documents: int | None) -> None:
    """Measure all collections and write the results."""
    quiet_libraries()
    checksums = data_checksums(data, [*SETS.values(), SENTENCES])
    collections = [beir(data / folder, name, documents) for name, folder in SETS.items()]
    scores: dict[str, Scores] = {}
    details: dict[str, Any] = {"documents": documents, "collections": {}}
    for continued, collection in product((False, True), collections):  # no figure needs the models that continue
        fitted = fit_all(collection, data / SENTENCES, runs, documents, continued)
        scores[collection.name] = score_all(collection, fitted, runs, documents)
        details["collections"][collection.name] = {
            "documents": len(collection.documents),
            "queries": len(collection.queries),
            "trained": {model: cost(folder) for model, folder in fitted.items()},
            **summary(scores[collection.name]),
        }
        click.echo(write_results("own_corpus", 0, checksums, figures(scores), details))


def fit_all(collection: Collection, wikipedia: Path, runs: Path, limit: int | None, continued: bool) -> dict[str, Path]:
    """Fit on the documents, on texts of Wikipedia with as many tokens, and on the documents from the latter model on.

    All have the default recipe and one seed. Each has a folder, which is fitted once. The last one is fitted if ``continued``.
    """

    def folder(start: str) -> Path:
        return runs / "models" / f"{start}-{collection.name}-{limit or 'all'}"

    file = runs / "texts" / f"{collection.name}-{limit or 'all'}.jsonl"
    # title and text together, as the index encodes them
    documents = str(write_texts((document.content for document in collection.documents), file))
    own = train(folder(OWN), documents, OURS)
    of_a_text = tokens_of_a_text(OURS, sample(open_corpus(wikipedia), COUNTED, 0))
    texts = texts_for(cost(own)["tokens"], of_a_text)
    general = train(folder(WIKIPEDIA), str(wikipedia), OURS, max_texts=texts)
    fitted = {OWN: own, WIKIPEDIA: general}
    if continued:
        fitted[CONTINUED] = train(folder(CONTINUED), documents, OURS, backbone=str(general))
    return fitted


def score_all(collection: Collection, fitted: Mapping[str, Path], runs: Path, limit: int | None) -> Scores:
    """Score BM25, and the fitted models and MiniLM in all ways to search."""
    found: Scores = {BM25: {BM25: by_query(collection, bm25(collection))[NDCG]}}
    for name, path in {**fitted, MINILM: next(iter(REFERENCES))}.items():
        part = f"{name}-{collection.name}-{limit or 'all'}"
        model = Model(name if name == MINILM else part, str(path), runs)
        found[name] = model.once(part, partial(score, model, collection))
    return found


def score(model: Model, collection: Collection) -> dict[str, list[float]]:
    """Score a model through the index that a user would make."""
    index, _ = model.index(collection)
    TextEncoder(model.embedder, "query").embed(list(collection.queries.values()), progress=True)
    found = {way: by_query(collection, ranking)[NDCG] for way, ranking in rank_all(index, collection).items()}
    index.close()
    return found


def summary(scores: Scores) -> dict[str, Any]:
    """Return the nDCG@10 of all rows and the paired differences of :data:`COMPARED`, × 100, with 95 % bootstrap intervals."""
    items = {(model, way): query_items(values) for model, ways in scores.items() for way, values in ways.items()}
    rows = [{"model": model, "way": way, **in_points(own.score, own.draws())} for (model, way), own in items.items()]
    differences = [
        {"first": first, "second": second, **in_points(one.score - two.score, one.draws() - two.draws())}
        for first, second in COMPARED
        if first in items
        for one, two in [(items[first], items[second])]  # both draw the same queries
    ]
    return {"ndcg10": rows, "differences": differences}


def in_points(value: float, draws: Floats) -> dict[str, float]:
    """Multiply a score or difference and the ends of its interval by 100."""
    low, high = percentile_interval(draws)
    return {"points": 100 * value, "low": 100 * low, "high": 100 * high}


def figures(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Compute the mean dense gain over Wikipedia, and the smallest lead of hybrid search over BM25 and over hybrid MiniLM."""

    def leads(way: str, other: str, other_way: str) -> Sequence[float]:
        return [100 * (mean(found[OWN][way]) - mean(found[other][other_way])) for found in scores.values()]

    return {
        "own_corpus_dense_gain": mean(leads("dense", WIKIPEDIA, "dense")),
        "own_corpus_hybrid_minus_bm25_min": min(leads("hybrid", BM25, BM25)),
        "own_corpus_hybrid_minus_hybrid_minilm_min": min(leads("hybrid", MINILM, "hybrid")),
    }


if __name__ == "__main__":
    main()
