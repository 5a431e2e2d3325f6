"""Numbers of docs/results.md and of the table in README.md."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from contenders import MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, Scores, by_contender, ranked
from tables import fixed, goals, markdown_table
from text2token.evaluation.comparison import Comparison, Row
from text2token.evaluation.comparison_page import draw
from text2token.utils.figures import write_figure

FRONT = {  # contender → its row on the front page
    "ours": "**text2token**, trained without labels",
    "keywords prompt, filtered": "our prompt and correction, untrained",
    "PromptEOL": "PromptEOL, untrained",
    "LLM2Vec's recipe, filtered": "LLM2Vec's recipe with our correction",
    "plain mean": "plain mean pooling, untrained",
    "BM25": "BM25",
    MINILM_NAME: f"{MINILM_NAME}, another backbone, trained with labels",
}
FRONT_KINDS = ["STS", "Retrieval", "Classification", "Clustering", "PairClassification", OVERALL]
GOALS = {
    "ours_minus_llm2vec_mean": ("ours minus the better of the two LLM2Vec rows, mean over all tasks, points", "≥ 5"),
    "ours_minus_llm2vec_worst_type": ("the same for the type of task where ours is worst", "≥ -1"),
    "judging_over_encoding": ("time that evaluation adds to encoding the texts, as a share", "≤ 0.05"),
    "judging_peak_gib": (f"peak memory of evaluating {MINILM_NAME} on the whole of SciFact, GiB", "≤ 4"),
    "minilm_max_abs_diff": (f"{MINILM_NAME}: largest difference between our score and the known one", "≤ 0.3"),
}
TASKS = {
    "stsb_validation": "STSBenchmark validation",
    "stsb_test": "STSBenchmark test",
    "scifact_ndcg10": "SciFact nDCG@10, dense",
}
SETTINGS = ["plain mean", "PromptEOL", "keywords prompt, corrected", "text2token"]
COST = {
    "train_minutes": "minutes of training, both stages",
    "fit_minutes": "minutes of the whole fit, with targets and measurements",
    "peak_rss_gib": "peak memory of the fit, GiB",
    "targets_vs_tokenize": "speed of making data-driven targets, as a share of the speed of tokenising alone",
}


def context(main_job: Mapping[str, Any], quality: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    if comparison := quality["details"]["comparison"]:
        write_figure(draw(read_comparison(comparison)), figures, "quality", ("svg",))
    return front_page(main_job, quality) | _main_job(main_job) | quality_part(quality)


def front_page(main_job: Mapping[str, Any], quality: Mapping[str, Any]) -> dict[str, Any]:
    """Make the table of the main results."""
    rows = by_contender(quality["figures"])
    bm25 = {"BM25": ranked(rows)["BM25"]} if "BM25" in rows else {}
    shown = {label: (rows | bm25)[name] for name, label in FRONT.items() if name in rows}
    heading = ["", *(kind.replace("PairC", "pair c").lower().replace("sts", "STS") for kind in FRONT_KINDS)]
    table = [[name, *(_mean(scores.get(kind)) for kind in FRONT_KINDS)] for name, scores in shown.items()]
    return {"front_table": markdown_table(heading, table), "main_job": main_job, "quality": quality}


def _main_job(result: Mapping[str, Any]) -> dict[str, str]:
    figures = result["figures"]
    rows = []
    for setting in SETTINGS:
        cells = [figures.get(task if setting == "text2token" else f"{task} ({setting})") for task in TASKS]
        rows.append([setting, *(cell or "not measured" for cell in fixed(cells))])
    costs = [[label, f"{figures[key]:.2f}"] for key, label in COST.items()]
    return {
        "main_table": markdown_table(["setting", *TASKS.values()], rows),
        "cost_table": markdown_table(["cost", ""], costs),
    }


def quality_part(result: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the numbers of the part that compares all contenders."""
    figures, details = result["figures"], result["details"]
    rows = by_contender(figures)
    first = {name: scores for name, scores in rows.items() if not name.startswith(SECOND)}
    second = {name: scores for name, scores in rows.items() if name.startswith(SECOND)}
    return {
        "quality": result,
        "goals_table": goals(figures, GOALS),
        "contender_table": _contender_table(first),
        "second_table": _contender_table(second) if second else "",
        **_compared(details["comparison"]),
        "rates_table": _rates_table(details["learning_rates"]),
        "costs_table": _costs_table(details["trained"]),
        "known_table": _known_table(details.get("known_model")),
    }


def _contender_table(rows: Mapping[str, Scores]) -> str:
    kinds = [*sorted({kind for scores in rows.values() for kind in scores} - {OVERALL}), OVERALL]
    cells = ([name, *(_span(scores.get(kind)) for kind in kinds)] for name, scores in ranked(rows).items())
    return markdown_table(["contender", *kinds], cells)


def _mean(scores: list[float] | None) -> str:
    return f"{mean(scores):.1f}" if scores else ""


def _span(scores: list[float] | None) -> str:
    """Format the mean over seeds, with the lowest and the highest in brackets."""
    spread = f" ({min(scores):.1f} to {max(scores):.1f})" if scores and len(scores) > 1 else ""
    return _mean(scores) + spread


def read_comparison(comparison: Mapping[str, Any]) -> Comparison:
    """Restore a comparison, whose scores are between 0 and 1, from a results file, whose scores are × 100."""
    tasks, means = ([_read_row(row) for row in comparison[part]] for part in ("tasks", "means"))
    return Comparison(comparison["measured"], [], tasks, means, [])


def _read_row(row: Mapping[str, Any]) -> Row:
    scores = {name: score / 100 for name, score in row["scores"].items()}
    intervals = {name: (low / 100, high / 100) for name, (low, high) in row["intervals"].items()}
    return Row(row["label"], row["type"], scores, intervals)


def _compared(comparison: Mapping[str, Any] | None) -> dict[str, Any]:
    """Make the table by task, and name the tasks where the first contender is worse or lower than another."""
    if comparison is None:
        return {"task_table": "", "worse": [], "lower": []}
    measured = comparison["measured"]
    others = measured[1:]
    heading = ["task", *measured, *(f"ours minus {other}" for other in others)]
    cells = [
        [row["label"], *(_score(row, name) for name in measured), *(_difference(row, name) for name in others)]
        for row in [*comparison["tasks"], *comparison["means"]]
    ]
    negative = [
        (difference["clear"], f"{row['label']} ({difference['points']:.1f} against {other})")
        for row in comparison["tasks"]
        for other, difference in row["differences"].items()
        if difference["points"] < 0
    ]
    return {
        "task_table": markdown_table(heading, cells),
        "worse": [text for clear, text in negative if clear],
        "lower": [text for clear, text in negative if not clear],
    }


def _score(row: Mapping[str, Any], name: str) -> str:
    if name not in row["scores"]:
        return ""
    interval = row["intervals"].get(name)
    return f"{row['scores'][name]:.1f}" + (f" ({interval[0]:.1f} to {interval[1]:.1f})" if interval else "")


def _difference(row: Mapping[str, Any], other: str) -> str:
    found = row["differences"].get(other)
    if not found:
        return ""
    text = f"{found['points']:+.1f} ({found['low']:+.1f} to {found['high']:+.1f})"
    return f"**{text}**" if found["clear"] else text


def _rates_table(grid: Mapping[str, Mapping[str, float]]) -> str:
    rates = list(dict.fromkeys(rate for tried in grid.values() for rate in tried))
    rows: list[list[str]] = []
    for method, tried in grid.items():
        best = max(tried, key=tried.__getitem__)
        shown = {rate: f"**{score:.1f}**" if rate == best else f"{score:.1f}" for rate, score in tried.items()}
        rows.append([NAMES[method], *(shown.get(rate, "") for rate in rates)])
    return markdown_table(["method", *(f"learning rate {rate}" for rate in rates)], rows) if rows else ""


def _costs_table(trained: Mapping[str, Mapping[str, float]]) -> str:
    rows = [
        [
            name,
            *(f"{cost[key]:,.0f}" for key in ("texts", "tokens")),
            *fixed(cost[key] for key in ("minutes", "minutes of the whole run")),
        ]
        for name, cost in trained.items()
    ]
    return markdown_table(
        ["model", "texts", "tokens through the body", "minutes of training", "of the whole run"], rows
    )


def _known_table(scores: Mapping[str, float] | None) -> str:
    """Compare our scores of a published model with the known ones."""
    rows: Iterable[list[str]] = (
        [[task, f"{scores[task]:.2f}", f"{known:.2f}"] for task, known in MINILM.items()] if scores else []
    )
    return markdown_table([MINILM_NAME, "here, whole test splits", "known"], rows) if scores else ""
