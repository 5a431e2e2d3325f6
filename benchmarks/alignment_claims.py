"""Measure claims on the tokens of embeddings: parts of benchmarks/results/alignment.json.

The claims are those of *A Text is Worth Several Tokens* (arXiv 2406.17378), and the last one of *Text2Token* (arXiv 2510.10224,
abstract). ``data`` is the folder with corpus/ and mteb/; ``runs`` keeps embeddings and fits, so that a stopped run continues.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from runner import SENTENCES
from text2token import Recipe, fit
from text2token.analysis.alignment import AlignmentSettings, align, align_embeddings
from text2token.analysis.dynamics_report import StageDynamics, read_dynamics
from text2token.data.corpus import open_corpus, sample
from text2token.model.embedder import Embedder
from text2token.utils.resume import cached

Found = tuple[dict[str, float], dict[str, Any]]
"""Figures and details."""
Models = dict[str, tuple[str, Recipe | None]]
"""Name for readers → model, as :meth:`Embedder.open` takes it, and the recipe of an untrained one."""

UNTRAINED = {
    "plain mean": Recipe(template="none", pooling="mean", correction="none"),
    "plain last": Recipe(template="none", correction="none"),
    "PromptEOL": Recipe(template="eol", correction="none"),
}
TEXTS, SEED = 500, 1  # not the texts that the models trained on; the standard error of a rate of one half is 2 points
READINGS = {
    "exact ids": AlignmentSettings(),
    "forms merged": AlignmentSettings(forms="merged"),
    "special tokens too": AlignmentSettings(special=True),
    "as the released code": AlignmentSettings(special=True, paper=True),
    "less the mean": AlignmentSettings(centred=True),
    "less the mean, forms merged": AlignmentSettings(centred=True, forms="merged"),
}
STUDIED = ("exact ids", "less the mean, forms merged")  # readings whose token categories the page shows

TIMED, REPEATS = 200, 3  # texts of a timing, and its repetitions

FITS = {"data-driven, then combined": {"stage_1": 0.5, "mixing": 0.5}, "model-derived": {"stage_1": 0.0, "mixing": 0.0}}
SHORT: dict[str, Any] = {
    "max_texts": 512, "batch_size": 16, "held_out": 64, "calibration_texts": 64, "prior_texts": 128, "dynamics": 5,
}  # fmt: skip
TOGETHER = 0.5  # a correlation from here on says that two quantities got better together


def open_model(place: str, recipe: Recipe | None) -> Embedder:
    """Open a model with the head of its backbone and without its correction. It encodes in bf16 where the hardware has it."""
    settings = recipe.embedder_settings() if recipe else {}
    embedder = Embedder.open(place, head="original", corrected=False, **settings)
    embedder.bf16 = True
    return embedder


def study(data: Path, runs: Path, models: Models) -> Found:
    """Measure the alignment rates of every embedder with every reading: ``align RATE (EMBEDDER)`` for exact ids."""
    texts = sample(open_corpus(str(data / SENTENCES)), TEXTS, SEED)
    studied: dict[str, dict[str, Any]] = {reading: {} for reading in READINGS}
    for name, model in models.items():
        embedder = open_model(*model)
        embeddings = cached(runs / "study" / f"{name}.npy", partial(embedder.embed, texts, progress=True))
        for reading, settings in READINGS.items():
            found = align_embeddings(embedder, embeddings, texts, settings)
            first = {kind: ranks[:1] for kind, ranks in found["categories_by_rank"].items()}
            shown = {"rates": found["rates"]}
            studied[reading][name] = {**found, "categories_by_rank": first} if reading in STUDIED else shown
    figures = {
        f"align {rate} ({name})": 100 * value
        for name, result in studied["exact ids"].items()
        for rate, value in result["rates"].items()
    }
    return figures, {"texts": TEXTS, "seed": SEED, "readings": studied}


def cost(data: Path) -> Found:
    """Measure ``align_s_per_1000_texts``, the seconds of reading 1,000 encoded texts (median of three)."""
    embedder = open_model(Recipe().backbone, UNTRAINED["plain mean"])
    stream = iter(open_corpus(str(data / SENTENCES)))
    seconds = [align(embedder, list(islice(stream, TIMED)))["seconds"] for _ in range(REPEATS)]
    reading = 1000 / TIMED * median(row["reading"] for row in seconds)
    return {"align_s_per_1000_texts": reading}, {"texts": TIMED, "seconds": seconds}


def dynamics(data: Path, runs: Path) -> Found:
    """Measure whether the vocabulary space and the representation space are optimised together, along short fits.

    The figures are the correlations of the target loss and of the local alignment rate with each quantity of the representation
    space, by kind of target, and the share of them that reaches ``TOGETHER``. The fits take about six minutes on two cores.
    """
    sts = str(data / "mteb" / "stsbenchmark-sts" / "validation.jsonl")
    stages: list[StageDynamics] = []
    positives = ""
    for name, settings in FITS.items():
        run = runs / name.replace(", ", "-").replace(" ", "-")
        if not run.is_dir():
            fit(str(data / SENTENCES), run, Recipe(**SHORT, **settings, sts=sts), progress=True)
        measured, positives = read_dynamics(run)
        stages += measured
    figures = {
        f"dynamics_rho {stage.targets}, {ours}, {theirs}": rho
        for stage in stages
        for ours in ("target_loss", "local")
        for theirs, rho in stage.correlation.get(ours, {}).items()
    }
    figures["dynamics_together"] = sum(rho >= TOGETHER for rho in figures.values()) / max(len(figures), 1)
    return figures, {"positives": positives, "stages": [asdict(stage) for stage in stages]}
