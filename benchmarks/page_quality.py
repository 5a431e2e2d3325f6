"""Numbers and figure of docs/results.md and of the table in README.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contenders import MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, by_contender, ranked
from text2token.evaluation.comparison import Comparison, Row
from text2token.evaluation.comparison_page import draw
from text2token.utils.figures import write_figure


def context(main_job: Mapping[str, Any], quality: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    if comparison := quality["details"]["comparison"]:
        tasks, means = ([read_row(row) for row in comparison[part]] for part in ("tasks", "means"))
        write_figure(draw(Comparison(comparison["measured"], [], tasks, means, [])), figures, "quality", ("svg",))
    return {"main_job": main_job, **quality_part(quality)}


def quality_part(result: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the numbers of the part that compares all contenders."""
    rows = by_contender(result["figures"])
    return {
        "quality": result,
        "kinds": [*sorted({kind for scores in rows.values() for kind in scores} - {OVERALL}), OVERALL],
        "contenders": ranked({name: scores for name, scores in rows.items() if not name.startswith(SECOND)}),
        "second": ranked({name: scores for name, scores in rows.items() if name.startswith(SECOND)}),
        "names": NAMES,
        "minilm": {"name": MINILM_NAME, "published": MINILM},
        **lower_tasks(result["details"]["comparison"]),
    }


def read_row(row: Mapping[str, Any]) -> Row:
    """Restore a row of a comparison, whose scores are between 0 and 1. A results file holds scores × 100."""
    scores = {name: score / 100 for name, score in row["scores"].items()}
    intervals = {name: (low / 100, high / 100) for name, (low, high) in row["intervals"].items()}
    return Row(row["label"], row["type"], scores, intervals)


def lower_tasks(comparison: Mapping[str, Any] | None) -> dict[str, list[str]]:
    """Name the tasks where the first contender is clearly worse than another, and those where it is only lower."""
    found: dict[str, list[str]] = {"worse": [], "lower": []}
    for row in comparison["tasks"] if comparison else ():
        for other, difference in row["differences"].items():
            if difference["points"] < 0:
                text = f"{row['label']} ({difference['points']:.1f} against {other})"
                found["worse" if difference["clear"] else "lower"].append(text)
    return found
