"""Numbers and figure of docs/results.md and of the table in README.md."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contender_rows import NAMES, by_contender, mean_costs, ranked
from contenders import CORRECTED, MINILM, MINILM_NAME, OVERALL, SECOND, WHOLE
from text2token.evaluation.comparison import Comparison, Row
from text2token.evaluation.comparison_page import draw
from text2token.utils.figures import write_figure


def context(main_job: Mapping[str, Any], quality: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    part = quality_part(quality)
    if comparison := part["quality"]["details"]["comparison"]:
        tasks, means = ([read_row(row) for row in comparison[rows]] for rows in ("tasks", "means"))
        write_figure(draw(Comparison(comparison["measured"], [], tasks, means, [])), figures, "quality", ("svg",))
    return {"main_job": main_job, **part}


def quality_part(result: Mapping[str, Any]) -> dict[str, Any]:
    """Collect the numbers of the part that compares all contenders."""
    result = with_present_names(result)
    rows = by_contender(result["figures"])
    second = {name: scores for name, scores in rows.items() if name.startswith(SECOND)}
    whole = {name: scores for name, scores in rows.items() if name.endswith(WHOLE)}
    return {
        "quality": result,
        "kinds": [*sorted({kind for scores in rows.values() for kind in scores} - {OVERALL}), OVERALL],
        "contenders": ranked({name: scores for name, scores in rows.items() if name not in second | whole}),
        "second": ranked(second),
        "whole": ranked(whole),
        "costs": mean_costs(result["details"]["trained"]),
        "names": NAMES,
        "minilm": {"name": MINILM_NAME, "published": MINILM},
        **lower_tasks(result["details"]["comparison"]),
    }


def with_present_names(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Rename the correction of a results file that names none: it calls the default, ``centre+filter``, "filtered"."""
    if "correction" in result["details"]:
        return result
    renamed: dict[str, Any] = json.loads(json.dumps(result).replace(", filtered", CORRECTED))
    renamed["details"]["correction"] = "centre+filter"
    return renamed


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
