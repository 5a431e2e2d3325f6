"""Numbers and figure of docs/results-search.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from matplotlib.figure import Figure

from tables import goals
from text2token.utils.figures import figure_style, write_figure

GOALS = {
    "sparse_over_dense_mean": ("sparse over dense, nDCG@10, mean of the collections", "≥ 0.95"),
    "hybrid_minus_bm25_min": ("hybrid minus BM25, points of nDCG@10, worst collection", "≥ 1"),
    "sparse_p50_over_bm25s": ("median time of a sparse search over that of bm25s with its default backend", "≤ 1"),
    "sparse_flops_over_dense": ("operations of a sparse search over those of an exact dense one", "≤ 0.1"),
}
FREE = 1.0  # points that a way to fuse may lose against BM25
BEST, GOOD = 8, 5  # rows of the table of fusions: the best of all, and the best of those that lose less than FREE


def context(results: Mapping[str, Mapping[str, Any]], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page from three results files and draw its figure."""
    result, settings, speed = (results[name] for name in ("sparse", "search_settings", "search_speed"))
    tuning = settings["details"]["tuning"]
    write_figure(draw_sweep(tuning["sweep"]), figures, "search-sweep", ("svg",))
    return {
        "result": result,
        "tuning": tuning,
        "settings": settings["details"],
        "speed": speed["details"],
        "goals_table": goals({**result["figures"], **speed["figures"]}, GOALS),
        "tables": result["details"]["tables"],
        "shares": list(dict.fromkeys(key.split(", ")[0] for key in tuning["shares (document, query)"])),
        "gains": _gains(tuning["fusion"]),
        "free": FREE,
        "good": GOOD,
    }


def _gains(tuning: Mapping[str, Mapping[str, float]]) -> dict[str, list[float]]:
    """Way to fuse → gain over BM25 on each collection, then the mean. Those that lose little anywhere come first."""
    gains: dict[str, list[float]] = {}
    for way in next(iter(tuning.values())):
        gained = [scores[way] - scores["bm25 alone"] for scores in tuning.values()]
        gains[way] = [*gained, mean(gained)]
    del gains["bm25 alone"]
    ordered = sorted(gains.items(), key=lambda pair: -pair[1][-1])
    return dict([pair for pair in ordered if min(pair[1]) > -FREE][:GOOD] + ordered[:BEST])


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
