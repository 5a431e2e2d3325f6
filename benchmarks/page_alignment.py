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


def context(result: Mapping[str, Any], figures: Path) -> dict[str, Any]:
    """Collect the numbers of the page and draw its figure."""
    study = result["details"]["study"]
    exact, centred = (study["readings"][name] for name in ("exact ids", "less the mean, forms merged"))
    write_figure(draw_alignment(exact, 10), figures, "align", ("svg",))
    low = [name for name, row in exact.items() if row["rates"]["hit"] < MANY]
    shares = key_shares(centred)
    return {
        "result": result,
        "study": study,
        "kinds": CATEGORIES,
        "exact": exact,
        "centred": centred,
        "many": 100 * MANY,
        "low": low,
        "aligned_verdict": verdict([name not in low for name in exact]),
        "key_shares": shares,
        "kinds_verdict": verdict([ours > best for best, ours in shares.values()]),
        "compared": [name for name in exact if name.endswith(("ours", "PromptEOL"))],
        **dynamics(result["details"]["dynamics"]),
    }


def key_shares(rows: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[float, float]]:
    """Compare the mass on the two kinds of key tokens: backbone → the best of its other embedders, and ours, in percent."""
    key = {name: 100 * (row["categories"][CATEGORIES[0]] + row["categories"]["derived"]) for name, row in rows.items()}
    return {
        backbone: (
            max(share for name, share in key.items() if name.startswith(backbone) and not name.endswith("ours")),
            key[f"{backbone}, ours"],
        )
        for backbone in dict.fromkeys(name.split(", ")[0] for name in rows)
    }


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
