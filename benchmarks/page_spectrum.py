"""Verdicts and figures of docs/results-spectrum.md."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from tables import goals, verdict
from text2token.analysis.spectrum_figures import draw_contribution, draw_shift, draw_variation
from text2token.utils.figures import write_figure

DRAWN = {"variation": draw_variation, "contribution": draw_contribution, "shift": draw_shift}
LABELS = {"mean": "plain mean", "eol": "PromptEOL", "eol_published": "PromptEOL as published"}
GOALS = {
    f"adapt_{name}_stsb": (f"{LABELS[name]}, correction chosen without labels, STSBenchmark test", goal)
    for name, goal in {"mean": "≥ 52", "eol": "≥ 73", "eol_published": "≥ 73"}.items()
}
Pairs = Mapping[str, Mapping[str, Any]]


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figures."""
    pairs, adapted = result["details"]["spectrum"], result["details"]["adapt"]
    names = {name: f"spectrum-{name.replace(' ', '-')}" for name in pairs}
    for name, data in pairs.items():
        for kind, draw in DRAWN.items():
            write_figure(draw(_shares(data)), figures, f"{names[name]}-{kind}", ("svg",))
    rows = {
        name: {key.removeprefix(f"spectrum_{name}_"): value for key, value in result["figures"].items() if name in key}
        for name in pairs
    }
    return {
        "result": result,
        "pairs": pairs,
        "rows": rows,
        "figure_names": names,
        "searched": next(iter(pairs.values()))["searched"],
        "moved_tokens": list(_moved_tokens(pairs)),
        "adapted": {LABELS[name]: row for name, row in adapted.items()},
        "goals_table": goals(result["figures"], GOALS),
        **verdicts(pairs, rows),
    }


def verdicts(pairs: Pairs, rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
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


def _moved_tokens(pairs: Pairs) -> Iterator[tuple[str, str, list[str]]]:
    """Give pair, shift and first tokens of one text: plain, at v₁, at a mean of zero, and in the tuned model."""
    for name, data in pairs.items():
        marked = (0.0, data["v1"], data["zero"])
        shown = {f"{row['shift']:.1f}": row for row in data["shift_rows"] if row["shift"] in marked}
        for label, row in {**shown, "tuned": data["tuned"]}.items():
            yield name, label, row["tokens"][0][:8]


def _shares(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spectrum with STS scores from 0 to 1, as its figures expect them. A results file holds them × 100."""
    rows = [{**row, "sts": row["sts"] / 100} for row in (*data["shift_rows"], data["tuned"])]
    return {**data, "shift_rows": rows[:-1], "tuned": rows[-1]}
