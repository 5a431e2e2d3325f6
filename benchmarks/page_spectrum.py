"""Verdicts and figures of docs/results-spectrum.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from tables import verdict
from text2token.analysis.spectrum_figures import draw_contribution, draw_shift, draw_variation
from text2token.utils.figures import write_figure

DRAWN = {"variation": draw_variation, "contribution": draw_contribution, "shift": draw_shift}


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figures."""
    pairs = result["details"]["spectrum"]
    for name, data in pairs.items():
        in_figure = [{**row, "sts": row["sts"] / 100} for row in (*data["shift_rows"], data["tuned"])]  # from 0 to 1
        for kind, draw in DRAWN.items():
            drawn = draw({**data, "shift_rows": in_figure[:-1], "tuned": in_figure[-1]})
            write_figure(drawn, figures, f"spectrum-{name}-{kind}", ("svg",))
    rows = {
        name: {key.removeprefix(f"spectrum_{name}_"): value for key, value in result["figures"].items() if name in key}
        for name in pairs
    }
    return {"result": result, "pairs": pairs, "rows": rows, **verdicts(pairs, rows)}


def verdicts(pairs: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Say whether the four claims hold, from the measurements of each pair and from its figures."""
    largest = [abs(row["v1"]) > row["largest_other"] and row["v1_share"] > 0.5 for row in rows.values()]
    carries = [
        mean(row["first"] for row in data["contribution"]) > mean(row["rest"] for row in data["contribution"])
        for data in pairs.values()
    ]
    halfway = [
        row[f"{key}_v1"] - row[f"{key}_plain"] > 0.5 * (row[f"{key}_tuned"] - row[f"{key}_plain"]) > 0
        for row in rows.values()
        for key in ("hit", "meaningful")
    ]
    better = [row[f"{key}_v1"] > row[f"{key}_plain"] + 1 for row in rows.values() for key in ("sts", "scifact")]
    claims = {"variation": largest, "contribution": carries, "shift": halfway, "quality": better}
    return {f"{name}_verdict": verdict(held) for name, held in claims.items()}
