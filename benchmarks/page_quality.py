"""Numbers and figure of docs/results.md and of the table in README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders import MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, Scores, by_contender, ranked
from tables import average, goals
from text2token.evaluation.comparison import Comparison, Row
from text2token.evaluation.comparison_page import draw
from text2token.utils.figures import write_figure
from text2token.utils.page import markdown_table

FRONT = {  # contender → its row on the front page
    "ours": "**text2token**, trained without labels",
    "keywords prompt, filtered": "our prompt and correction, untrained",
    "PromptEOL": "PromptEOL, untrained",
    "LLM2Vec's recipe, filtered": "LLM2Vec's recipe with our correction",
    "plain mean": "plain mean pooling, untrained",
    "BM25": "BM25",
    MINILM_NAME: f"{MINILM_NAME}, another backbone, trained with labels",
}
GOALS = {
    "ours_minus_llm2vec_mean": ("ours minus the better of the two LLM2Vec rows, mean over all tasks, points", "≥ 5"),
    "ours_minus_llm2vec_worst_type": ("the same for the type of task where ours is worst", "≥ -1"),
    "judging_over_encoding": ("time that evaluation adds to encoding the texts, as a share", "≤ 0.05"),
    "judging_peak_gib": (f"peak memory of evaluating {MINILM_NAME} on the whole of SciFact, GiB", "≤ 4"),
    "minilm_max_abs_diff": (f"{MINILM_NAME}: largest difference between our score and the known one", "≤ 0.3"),
}


def context(main_job: Mapping[str, Any], quality: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    if comparison := quality["details"]["comparison"]:
        write_figure(draw(read_comparison(comparison)), figures, "quality", ("svg",))
    return {"main_job": main_job, **front_page(quality), **quality_part(quality)}


def front_page(quality: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the rows of the table of the main results. BM25 has no mean there, because it only ranks documents."""
    rows = by_contender(quality["figures"])
    complete = rows | {"BM25": ranked(rows).get("BM25", {})}
    return {"front": {label: complete[name] for name, label in FRONT.items() if name in rows}, "overall": OVERALL}


def quality_part(result: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the numbers of the part that compares all contenders."""
    rows, details = by_contender(result["figures"]), result["details"]
    grid = {NAMES[method]: tried for method, tried in details["learning_rates"].items()}
    second = {name: scores for name, scores in rows.items() if name.startswith(SECOND)}
    return {
        "quality": result,
        "goals_table": goals(result["figures"], GOALS),
        "contender_table": _contender_table({name: rows[name] for name in rows if name not in second}),
        "second_table": _contender_table(second) if second else "",
        "comparison": details["comparison"],
        **_where_lower(details["comparison"]),
        "grid": grid,
        "rates": list(dict.fromkeys(rate for tried in grid.values() for rate in tried)),
        "minilm": {"name": MINILM_NAME, "published": MINILM},
    }


def _contender_table(rows: Mapping[str, Scores]) -> str:
    kinds = [*sorted({kind for scores in rows.values() for kind in scores} - {OVERALL}), OVERALL]
    cells = (
        [name, *(average(scores.get(kind), spread=True) for kind in kinds)] for name, scores in ranked(rows).items()
    )
    return markdown_table(["contender", *kinds], cells)


def read_comparison(comparison: Mapping[str, Any]) -> Comparison:
    """Restore a comparison, whose scores are between 0 and 1, from a results file, whose scores are × 100."""
    tasks, means = ([_read_row(row) for row in comparison[part]] for part in ("tasks", "means"))
    return Comparison(comparison["measured"], [], tasks, means, [])


def _read_row(row: Mapping[str, Any]) -> Row:
    scores = {name: score / 100 for name, score in row["scores"].items()}
    intervals = {name: (low / 100, high / 100) for name, (low, high) in row["intervals"].items()}
    return Row(row["label"], row["type"], scores, intervals)


def _where_lower(comparison: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Name the tasks where the first contender is clearly worse than another, and those where it is only lower."""
    negative = [
        (difference["clear"], f"{row['label']} ({difference['points']:.1f} against {other})")
        for row in (comparison["tasks"] if comparison else ())
        for other, difference in row["differences"].items()
        if difference["points"] < 0
    ]
    return {
        "worse": [text for clear, text in negative if clear],
        "lower": [text for clear, text in negative if not clear],
    }
