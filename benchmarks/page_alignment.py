"""Numbers and verdicts of docs/results-alignment.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dynamics_claim import conclusion
from tables import fixed, markdown_table, verdict
from text2token.analysis.alignment import draw_alignment
from text2token.analysis.dynamics_report import StageDynamics, correlation_table, points_table
from text2token.analysis.metrics import CATEGORIES
from text2token.utils.figures import write_figure

MANY = 0.5  # the page calls an embedder aligned from this Hit@10 on
RISE = 10  # the page says that tokens follow an instruction from this rise on, in points
RATES = ("hit", "local", "global")
Rows = Mapping[str, Mapping[str, Any]]


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    study, reading = result["details"]["study"], result["details"]["reading"]
    exact, centred = study["readings"]["exact ids"], study["readings"]["less the mean, forms merged"]
    write_figure(draw_alignment(exact, 10), figures, "align", ("svg",))
    return {
        "result": result,
        "study": study,
        "reading": reading,
        **_alignment(exact),
        **_kinds(centred),
        "readings_table": _readings_table(study["readings"]),
        **_instructions(result["figures"], reading["examples"]),
        **_relatedness(result["figures"], reading["examples"]),
        **dynamics(result["details"]["dynamics"]),
    }


def dynamics(details: Mapping[str, Any]) -> dict[str, Any]:
    """Make the tables of each stage, and the verdict."""
    stages = [StageDynamics(**stage) for stage in details["stages"]]
    tables = {stage.targets: (points_table(stage), correlation_table(stage)) for stage in stages}
    return {"positives": details["positives"], "stages": tables, "dynamics_verdict": conclusion(stages)}


def _alignment(rows: Rows) -> dict[str, Any]:
    """Do all embedders align?"""
    table = [
        [name, *_points(row["rates"][rate] for rate in RATES), *_points([row["categories_by_rank"][CATEGORIES[0]][0]])]
        for name, row in rows.items()
    ]
    meaning = {name: 100 * row["categories"][CATEGORIES[0]] for name, row in rows.items()}
    low = [name for name, row in rows.items() if row["rates"]["hit"] < MANY]
    return {
        "aligned_table": markdown_table(
            ["embedder", "Hit@10", "local rate", "global rate", "literal, meaningful at rank 1"], table
        ),
        "aligned_verdict": verdict([name not in low for name in rows]),
        "many": 100 * MANY,
        "low": low,
        "least": min(meaning.items(), key=lambda item: item[1]),
        "most": max(meaning.items(), key=lambda item: item[1]),
    }


def _kinds(rows: Rows) -> dict[str, Any]:
    """Does training move mass to the two kinds of key tokens, on every backbone?"""
    key = {name: 100 * (row["categories"][CATEGORIES[0]] + row["categories"]["derived"]) for name, row in rows.items()}
    changes = {}
    for backbone in dict.fromkeys(name.split(", ")[0] for name in rows):
        others = [share for name, share in key.items() if name.startswith(backbone) and not name.endswith("ours")]
        changes[backbone] = (max(others), key[f"{backbone}, ours"])
    table = [[name, *_points(row["categories"][kind] for kind in CATEGORIES)] for name, row in rows.items()]
    return {
        "kinds_table": markdown_table(["embedder", *CATEGORIES], table),
        "kinds_verdict": verdict([ours > best for best, ours in changes.values()]),
        "key_shares": changes,
    }


def _readings_table(readings: Mapping[str, Rows]) -> str:
    shown = [name for name in next(iter(readings.values())) if name.endswith(("ours", "PromptEOL"))]
    table = [
        [reading, *(", ".join(_points(rows[name]["rates"][rate] for rate in ("local", "global"))) for name in shown)]
        for reading, rows in readings.items()
    ]
    return markdown_table(["reading", *shown], table)


def _instructions(figures: Mapping[str, float], models: list[str]) -> dict[str, Any]:
    """Do aligned tokens follow an instruction?"""
    table, follow = [], []
    for name in models:
        topic, sentiment = (figures[f"sentiment words, {asked} ({name})"] for asked in ("topic", "sentiment"))
        table.append([name, f"{topic:.0f}", f"{sentiment:.0f}", f"{sentiment - topic:+.0f}"])
        if sentiment - topic >= RISE:
            follow.append(name)
    return {
        "instructed_table": markdown_table(
            ["embedder", "asked for the topic", "asked for the sentiment", "rise"], table
        ),
        "instructed_verdict": verdict([name in follow for name in models]),
        "rise": RISE,
        "follow": follow,
    }


def _relatedness(figures: Mapping[str, float], models: list[str]) -> dict[str, Any]:
    """Which embedders put the same thing together, and which the same opinion?"""
    columns = ("like X, do not like X", "like X, like Y", "negation words")
    values = {name: [figures[f"{column} ({name})"] for column in columns] for name in models}
    related = [name for name, (same, other, _) in values.items() if same > other]
    table = [[name, *fixed(row, 0)] for name, row in values.items()]
    return {
        "related_table": markdown_table(["embedder", *columns[:2], "negation among the tokens"], table),
        "related_verdict": verdict([bool(related), len(related) < len(models)]),
        "related": len(related),
        "models": len(models),
    }


def _points(shares: Any) -> list[str]:
    return fixed(100 * share for share in shares)
