"""Numbers of docs/results-search.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from tables import fixed, goals, markdown_table
from text2token.utils.figures import figure_style, write_figure

GOALS = {
    "sparse_over_dense_mean": ("sparse over dense, nDCG@10, mean of the collections", "≥ 0.95"),
    "hybrid_minus_bm25_min": ("hybrid minus BM25, points of nDCG@10, worst collection", "≥ 1"),
    "sparse_p50_over_bm25s": ("median time of a sparse search over that of bm25s with its default backend", "≤ 1"),
    "sparse_flops_over_dense": ("operations of a sparse search over those of an exact dense one", "≤ 0.1"),
}
MEASURES = {"ndcg_cut_10": "nDCG@10", "recall_100": "recall@100"}
SIZES = ("sparse", "dense", "bm25", "documents")
STEPS = ("encode", "search sparse", "search dense", "search bm25", "search hybrid", "words alone")
FREE = 1.0  # points that a way to fuse may lose against BM25
BEST, GOOD = 8, 5  # rows of the table of fusions: the best of all, and the best of those that lose less than FREE


def context(results: Mapping[str, Mapping[str, Any]], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page from three results files and draw its figure."""
    result, settings, speed = (results[name] for name in ("sparse", "search_settings", "search_speed"))
    tuning, measured = settings["details"]["tuning"], speed["details"]
    write_figure(draw_sweep(tuning["sweep"]), figures, "search-sweep", ("svg",))
    return {
        "result": result,
        "tuning": tuning,
        "settings": settings["details"],
        "speed": measured,
        "goals_table": goals({**result["figures"], **speed["figures"]}, GOALS),
        "tables": [_measured(table) for table in result["details"]["tables"]],
        "shares_table": _shares_table(tuning["shares (document, query)"]),
        "fusion_table": _fusion_table(tuning["fusion"]),
        "free": FREE,
        "good": GOOD,
        "growth_table": _growth_table(measured["growth"]),
    }


def _measured(table: Mapping[str, Any]) -> dict[str, Any]:
    """Make the tables of quality and cost for one selection of documents."""
    return {
        "limit": table["documents"],
        "collections": table["collections"],
        "quality": {label: _quality_table(table, measure, label) for measure, label in MEASURES.items()},
        "cost": _cost_table(table["cost"]),
    }


def _quality_table(table: Mapping[str, Any], measure: str, label: str) -> str:
    rows = [
        [
            model if model == way else f"{model}, {way}",
            *(_score(by_collection.get(name, {}).get(way), measure) for name in table["collections"]),
        ]
        for model, by_collection in table["quality"].items()
        for way in dict.fromkeys(way for ways in by_collection.values() for way in ways)
    ]
    return markdown_table([label, *table["collections"]], rows)


def _score(measured: Mapping[str, Any] | None, measure: str) -> str:
    if measured is None:
        return ""
    low, high = measured[measure]["interval"]
    return f"{measured[measure]['score']:.1f} ({low:.1f} to {high:.1f})"


def _cost_table(cost: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for model, collections in cost.items():
        for name, row in collections.items():
            sizes = fixed(row["bytes_a_document"].get(kind, 0) / 1000 for kind in SIZES)
            build = f"{row['index_seconds_beyond_encoding']:.0f}"
            times = [" / ".join(fixed(row["milliseconds"].get(step, ()), 2)) for step in STEPS]
            rows.append([model, name, *sizes, build, *times, *fixed([row.get("flops_over_dense")], 3)])
    heading = [
        "model",
        "collection",
        "sparse",
        "dense",
        "BM25",
        "texts",
        "build, s",
        "encode",
        "sparse",
        "dense",
        "BM25",
    ]
    return markdown_table([*heading, "hybrid", "words alone", "operations"], rows)


def _shares_table(shares: Mapping[str, float]) -> str:
    documents, queries = ([*dict.fromkeys(key.split(", ")[side] for key in shares)] for side in (0, 1))
    rows = [[document, *fixed(shares[f"{document}, {query}"] for query in queries)] for document in documents]
    return markdown_table(["document share ↓, query share →", *queries], rows)


def _fusion_table(tuning: Mapping[str, Mapping[str, float]]) -> str:
    """Sort ways to fuse by their mean gain over BM25: first those that lose little anywhere, then the best of all."""
    bars = {name: scores["bm25 alone"] for name, scores in tuning.items()}
    gains = {
        way: [tuning[name][way] - bar for name, bar in bars.items()]
        for way in next(iter(tuning.values()))
        if way != "bm25 alone"
    }
    ordered = sorted(gains.items(), key=lambda pair: -mean(pair[1]))
    shown = [pair for pair in ordered if min(pair[1]) > -FREE][:GOOD] + ordered[:BEST]
    rows = [[way, *(f"{gain:+.1f}" for gain in [*gained, mean(gained)])] for way, gained in dict(shown).items()]
    return markdown_table(["fusion", *(f"{name} ({bar:.1f})" for name, bar in bars.items()), "mean"], rows)


def _growth_table(growth: list[Mapping[str, Any]]) -> str:
    rows = [
        [
            row["engine"],
            f"{row['documents']:,}",
            *fixed([row["build_seconds"], row["bytes_a_document"] / 1000]),
            " / ".join(fixed([row["p50"], row["p99"]], 2)),
            *fixed([row["recall10"]], 3),
        ]
        for row in growth
    ]
    heading = ["engine", "documents", "build of one field, s", "kB per document", "ms per query, median / 99th"]
    return markdown_table([*heading, "recall@10"], rows)


def draw_sweep(sweep: Mapping[str, Any]) -> Figure:
    """Draw nDCG@10 by the number of aligned tokens of a document and of a query."""
    labels = {"weighted": "ours", "paper": "the paper's form"}
    with figure_style():
        figure = Figure(figsize=(8, 3), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, letter, text in zip(panels, "KM", ("document (K)", "query (M)"), strict=True):
            for form, by_letter in sweep.items():
                ticks = list(by_letter[letter])
                axes.plot(range(len(ticks)), list(by_letter[letter].values()), marker="o", label=labels[form])
                axes.set_xticks(range(len(ticks)), ticks)
            axes.set_xlabel(f"aligned tokens of a {text}")
        panels[0].set_ylabel("nDCG@10, known items")
        panels[0].legend()
    return figure
