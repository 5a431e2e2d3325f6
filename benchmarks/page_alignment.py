"""Verdicts and figure of docs/results-alignment.md."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignment_claims import TOGETHER
from tables import verdict
from text2token.analysis.alignment import draw_alignment
from text2token.analysis.dynamics import REPRESENTATION, VOCABULARY
from text2token.analysis.dynamics_report import StageDynamics, correlation_table, points_table
from text2token.analysis.metrics import CATEGORIES
from text2token.utils.figures import write_figure

MANY = 0.5  # the page calls an embedder aligned from this Hit@10 on
RISE = 10  # the page says that tokens follow an instruction from this rise on, in points
COSINES = ("like X, do not like X", "like X, like Y", "negation words")
Rows = Mapping[str, Mapping[str, Any]]


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    details = result["details"]
    exact, centred = (details["study"]["readings"][name] for name in ("exact ids", "less the mean, forms merged"))
    write_figure(draw_alignment(exact, 10), figures, "align", ("svg",))
    compared = [name for name in exact if name.endswith(("ours", "PromptEOL"))]
    shared = {
        "compared": compared,
        "result": result,
        "study": details["study"],
        "reading": details["reading"],
        "kinds": CATEGORIES,
    }
    claims = _alignment(exact) | _kinds(centred) | _instructions(result) | _relatedness(result)
    return shared | claims | dynamics(details["dynamics"])


def _alignment(rows: Rows) -> dict[str, Any]:
    """Do all embedders align?"""
    meaning = {name: 100 * row["categories"][CATEGORIES[0]] for name, row in rows.items()}
    low = [name for name, row in rows.items() if row["rates"]["hit"] < MANY]
    ends = {
        "least": min(meaning.items(), key=lambda item: item[1]),
        "most": max(meaning.items(), key=lambda item: item[1]),
    }
    return {
        "exact": rows,
        "aligned_verdict": verdict([name not in low for name in rows]),
        "many": 100 * MANY,
        "low": low,
    } | ends


def _kinds(rows: Rows) -> dict[str, Any]:
    """Does training move mass to the two kinds of key tokens, on every backbone?"""
    key = {name: 100 * (row["categories"][CATEGORIES[0]] + row["categories"]["derived"]) for name, row in rows.items()}
    changes = {}
    for backbone in dict.fromkeys(name.split(", ")[0] for name in rows):
        others = [share for name, share in key.items() if name.startswith(backbone) and not name.endswith("ours")]
        changes[backbone] = (max(others), key[f"{backbone}, ours"])
    return {
        "centred": rows,
        "kinds_verdict": verdict([ours > best for best, ours in changes.values()]),
        "key_shares": changes,
    }


def _instructions(result: Mapping[str, Any]) -> dict[str, Any]:
    """Do aligned tokens follow an instruction?"""
    asked = {
        name: [result["figures"][f"sentiment words, {instruction} ({name})"] for instruction in ("topic", "sentiment")]
        for name in result["details"]["reading"]["examples"]
    }
    follow = [name for name, (topic, sentiment) in asked.items() if sentiment - topic >= RISE]
    held = verdict([name in follow for name in asked])
    return {"asked": asked, "instructed_verdict": held, "rise": RISE, "follow": follow}


def _relatedness(result: Mapping[str, Any]) -> dict[str, Any]:
    """Which embedders put the same thing together, and which the same opinion?"""
    models = result["details"]["reading"]["examples"]
    cosines = {name: [result["figures"][f"{column} ({name})"] for column in COSINES] for name in models}
    related = sum(same > other for same, other, _ in cosines.values())
    return {"cosines": cosines, "related_verdict": verdict([related > 0, related < len(models)]), "related": related}


def dynamics(details: Mapping[str, Any]) -> dict[str, Any]:
    """Make the tables of each stage, and the verdict."""
    stages = [StageDynamics(**stage) for stage in details["stages"]]
    tables = {stage.targets: (points_table(stage), correlation_table(stage)) for stage in stages}
    return {"positives": details["positives"], "stages": tables, "dynamics_verdict": conclusion(stages)}


def conclusion(stages: list[StageDynamics]) -> str:
    """State the verdict: the claim holds if each quantity of the representation space improves with the target loss."""
    found = [
        (rho >= TOGETHER, f"{REPRESENTATION[quantity].label} under {stage.targets} targets")
        for stage in stages
        for quantity, rho in stage.correlation.get("target_loss", {}).items()
    ]
    against = [name for together, name in found if not together]
    held = verdict([together for together, _ in found]).capitalize()
    if len(against) == len(found):
        return f"{held}: no quantity of the representation space follows the {VOCABULARY['target_loss'].label}."
    counted = (
        f"{len(found) - len(against)} of {len(found)} correlations of the target loss with the representation space "
        f"are {TOGETHER} or more" + (f"; not {', '.join(against)}" if against else "")
    )
    caveat = "Points along one training are few and not independent; a correlation says that two curves go the same way, not why."
    return f"{held}: {counted}. {caveat}"
