"""Numbers and verdicts of docs/results-spectrum.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any

from tables import fixed, goals, markdown_table, verdict
from text2token.analysis.spectrum_figures import draw_contribution, draw_shift, draw_variation
from text2token.utils.figures import write_figure
from text2token.utils.page import visible

STATES = {"plain": "plain", "v1": "λ = v₁", "zero": "λ to a mean of zero", "tuned": "the tuned model"}
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
        "figure_names": names,
        "searched": next(iter(pairs.values()))["searched"],
        **_variation(rows),
        **_contribution(pairs),
        **_shift(rows, pairs),
        **_quality(rows),
        **_corrections(adapted),
        "goals_table": goals(result["figures"], GOALS),
    }


def _shares(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a spectrum with STS scores from 0 to 1, as its figures expect them. A results file holds them × 100."""
    rows = [{**row, "sts": row["sts"] / 100} for row in (*data["shift_rows"], data["tuned"])]
    return {**data, "shift_rows": rows[:-1], "tuned": rows[-1]}


def _variation(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Does the change sit in the first component?"""
    table = [
        [name, *fixed([row["v1"], row["largest_other"]], 2), f"{row['v1_share']:.0%}"] for name, row in rows.items()
    ]
    claims = [abs(row["v1"]) > row["largest_other"] and row["v1_share"] > 0.5 for row in rows.values()]
    return {
        "variation_table": markdown_table(["pair", "v₁", "largest other", "v₁² in the whole mean change"], table),
        "variation_verdict": verdict(claims),
    }


def _contribution(pairs: Pairs) -> dict[str, str]:
    """Does the first component carry the aligned tokens of the plain model?"""
    table, claims = [], []
    for name, data in pairs.items():
        for place, text in enumerate(data["contribution_texts"][:2]):
            own = [row for row in data["contribution"] if row["text"] == place][:6]
            table.append([name, text, *(_code(row[key] for row in own) for key in ("token", "rest_token"))])
        first, rest = (mean(row[part] for row in data["contribution"]) for part in ("first", "rest"))
        claims.append(first > rest)
    return {
        "contribution_table": markdown_table(["pair", "text", "aligned", "without u₁"], table),
        "contribution_verdict": verdict(claims),
    }


def _shift(rows: Mapping[str, Mapping[str, float]], pairs: Pairs) -> dict[str, str]:
    """Does a shift along u₁ alone make the tokens of the plain model meaningful?"""
    keys = ("hit", "local", "global", "meaningful")
    table = [
        [name, label, *(f"{row[f'{key}_{state}']:.1%}" for key in keys)]
        for name, row in rows.items()
        for state, label in STATES.items()
    ]
    claims = [
        row[f"{key}_v1"] - row[f"{key}_plain"] > 0.5 * (row[f"{key}_tuned"] - row[f"{key}_plain"]) > 0
        for row in rows.values()
        for key in ("hit", "meaningful")
    ]
    tokens = []
    for name, data in pairs.items():
        marked = (0.0, data["v1"], data["zero"])
        shown = {f"{row['shift']:.1f}": row for row in data["shift_rows"] if row["shift"] in marked}
        for label, row in {**shown, "tuned": data["tuned"]}.items():
            tokens.append([name, label, _code(row["tokens"][0][:8])])
    return {
        "shift_table": markdown_table(
            ["pair", "state", "Hit@10", "local rate", "global rate", "meaningful mass"], table
        ),
        "shift_verdict": verdict(claims),
        "shift_tokens": markdown_table(["pair", "λ", "tokens of one text"], tokens),
    }


def _quality(rows: Mapping[str, Mapping[str, float]]) -> dict[str, str]:
    """Does the shift make a better embedder?"""
    states = ("plain", "v1", "zero", "best", "tuned")
    table = [
        [name, task, *fixed(row.get(f"{key}_{state}") for state in states)]
        for name, row in rows.items()
        for key, task in (("sts", "STSBenchmark"), ("scifact", "SciFact"))
    ]
    claims = [row[f"{key}_v1"] > row[f"{key}_plain"] + 1 for row in rows.values() for key in ("sts", "scifact")]
    heading = ["pair", "task", "plain", "λ = v₁", "λ to a mean of zero", "best of the sweep", "tuned"]
    return {"quality_table": markdown_table(heading, table), "quality_verdict": verdict(claims)}


def _corrections(adapted: Mapping[str, Any]) -> dict[str, Any]:
    """Compare corrections, each alone, with the one that is chosen without labels."""
    settings = [{**row["alone"], "**chosen without labels**": row["chosen"]} for row in adapted.values()]
    scores = [
        [
            label,
            *(
                cell
                for setting in settings
                for cell in fixed(setting[label][split] for split in ("validation", "test"))
            ),
        ]
        for label in settings[0]
    ]
    ladder = [
        [f"`{rows[0]['correction']}`"]
        + [cell for row in rows for cell in fixed(row[key] for key in ("agreement", "validation"))]
        for rows in zip(*(row["judged"] for row in adapted.values()), strict=True)
    ]
    return {
        "corrections_table": markdown_table(_columns(adapted, "correction", "validation", "test"), scores),
        "ladder_table": markdown_table(_columns(adapted, "correction", "agreement", "validation"), ladder),
        "chosen": {LABELS[name]: row["chosen"] for name, row in adapted.items()},
    }


def _columns(adapted: Mapping[str, Any], first: str, *columns: str) -> list[str]:
    return [first, *(f"{LABELS[name]}, {column}" for name in adapted for column in columns)]


def _code(tokens: Any) -> str:
    return " ".join(f"`{visible(token).replace('`', '´')}`" for token in tokens)
