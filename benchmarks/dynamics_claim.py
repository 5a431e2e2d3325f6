"""Text2Token's last claim (arXiv 2510.10224, abstract): the vocabulary space and the representation space are optimised together.

Short fits of smollm2-135m, measured along the way on held-out sentences and STSBenchmark validation: data-driven targets, then
combined ones; and model-derived targets alone.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from text2token import Recipe, fit
from text2token.analysis.dynamics_report import StageDynamics, read_dynamics, write_dynamics

FITS = {
    "data-driven, then combined": {"stage_1": 0.5, "mixing": 0.5},
    "model-derived": {"stage_1": 0.0, "mixing": 0.0},
}
SETTINGS: dict[str, Any] = {
    "max_texts": 512,
    "batch_size": 16,
    "held_out": 64,
    "calibration_texts": 64,
    "prior_texts": 128,
    "dynamics": 5,
}
TOGETHER = 0.5  # a correlation from here on says that two quantities got better together


def measure(data: Path, runs: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Fit the models, or use those in ``runs``. It takes about six minutes on two cores.

    Args:
        data: Folder with ``corpus/wiki-sentences.txt`` and ``mteb/stsbenchmark-sts``.
        runs: Folder that keeps the fits with their tables and figures.

    Returns:
        Figures: the correlations of the target loss and of the local alignment rate with each quantity of the representation
        space, by kind of target, and the share of them that reaches ``TOGETHER``. Details: all measurements.
    """
    sts = str(data / "mteb" / "stsbenchmark-sts" / "validation.jsonl")
    stages: list[StageDynamics] = []
    positives = ""
    for name, settings in FITS.items():
        run = runs / name.replace(", ", "-").replace(" ", "-")
        if not run.is_dir():
            corpus = str(data / "corpus" / "wiki-sentences.txt")
            fit(corpus, run, Recipe(**SETTINGS, **settings, sts=sts), progress=True)
        measured, positives = read_dynamics(run)
        write_dynamics(measured, positives, run.with_name(f"{run.name}-dynamics"))
        stages += measured
    figures = {
        f"dynamics_rho {stage.targets}, {ours}, {theirs}": rho
        for stage in stages
        for ours in ("target_loss", "local")
        for theirs, rho in stage.correlation.get(ours, {}).items()
    }
    figures["dynamics_together"] = sum(rho >= TOGETHER for rho in figures.values()) / max(len(figures), 1)
    return figures, {"positives": positives, "stages": [asdict(stage) for stage in stages]}
