"""Score corrections of one backbone that need no training on STSBenchmark: each alone, and the one that ``adapt`` chooses.

A part of benchmarks/results/spectrum.json. Corrections are learnt from corpus texts. Every text is encoded once per setting.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from text2token.analysis.sts import EmbeddedPairs
from text2token.data.corpus import open_corpus
from text2token.data.sts import read_sts
from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.training.adaptation import adapt_draw, selection_data
from text2token.training.choose import CANDIDATES, Candidate, SelectionData, choose, score_candidates
from text2token.training.start import read_corpus
from text2token.utils.resume import cached

SETTINGS = {
    "mean": Recipe(backbone="smollm2-135m", pooling="mean", template="none"),
    "eol": Recipe(backbone="smollm2-135m", pooling="last", template="eol"),
    "eol_published": Recipe(backbone="smollm2-135m", pooling="last", template="eol-published"),
}
SPLITS = ("validation", "test")
WHOLE = (0.0, 1.0)
ALONE = {
    "none": Candidate("none", WHOLE),
    "mean-centring": Candidate("centre", WHOLE),
    "first component shifted to a mean of zero": Candidate("shift", WHOLE),
    "first component removed": Candidate("first-component", WHOLE),
    "centred, first component removed": Candidate("centre+first-component", WHOLE),
    "centred, 32 components removed": Candidate("centre+remove-32", WHOLE),
    "whitened, hardly shrunk": Candidate("whiten-0.01", WHOLE),
    "whitened, shrunk by 0.3": Candidate("whiten-0.3", WHOLE),
    "centred, head filter from 2 to 90 %": Candidate("centre+filter", (0.02, 0.9)),
    "centred, head filter from 10 to 90 %": Candidate("centre+filter", (0.1, 0.9)),
}


def measure(data: Path, runs: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure ``adapt_SETTING_stsb`` (test, chosen without labels) with ``_before`` and ``_validation``; details per setting.

    Args:
        data: Folder with ``corpus/wiki-sentences.txt`` and ``mteb/stsbenchmark-sts``.
        runs: Folder that keeps embeddings, so that a stopped run continues.
    """
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, recipe in SETTINGS.items():
        details[name] = _setting(recipe, data, runs / "adapt" / name)
        chosen, before = details[name]["chosen"], details[name]["alone"]["none"]
        figures[f"adapt_{name}_stsb"] = chosen["test"]
        figures[f"adapt_{name}_stsb_validation"] = chosen["validation"]
        figures[f"adapt_{name}_stsb_before"] = before["test"]
    return figures, details


def _setting(recipe: Recipe, data: Path, folder: Path) -> dict[str, Any]:
    """Score all corrections of one setting, and keep the table that the choice was made from."""
    embedder = Embedder.open(recipe.backbone, **recipe.embedder_settings())
    embedder.bf16 = True
    keep = partial(_keep, folder)
    corpus = open_corpus(str(data / "corpus" / "wiki-sentences.txt"))
    (texts, others), _ = read_corpus(corpus, adapt_draw(recipe), recipe.seed)
    evidence = selection_data(embedder, texts, others, recipe.seed, keep)
    pairs = {split: _pairs(embedder, data, split, keep) for split in SPLITS}
    judged = score_candidates(embedder, evidence, CANDIDATES)
    alone = {label: _scores(embedder, evidence, pairs, candidate) for label, candidate in ALONE.items()}
    best = choose(judged, len(others))
    return {
        "recipe": {"backbone": recipe.backbone, "pooling": recipe.pooling, "template": recipe.template},
        "texts": len(texts),
        "pairs": len(others),
        "alone": alone,
        "chosen": {
            "correction": best.candidate.correction,
            "keep": best.candidate.keep,
            "agreement": 100 * best.agreement,
            **_scores(embedder, evidence, pairs, best.candidate),
        },
        "judged": [
            {"correction": row.candidate.correction, "keep": row.candidate.keep, "agreement": 100 * row.agreement}
            | _scores(embedder, evidence, pairs, row.candidate)
            for row in judged
        ],
    }


def _keep(folder: Path, name: str, compute: Callable[[], Tensor]) -> Tensor:
    return cached(folder / name, compute)


def _pairs(embedder: Embedder, data: Path, split: str, keep: Any) -> EmbeddedPairs:
    rows = read_sts(data / "mteb" / "stsbenchmark-sts" / f"{split}.jsonl")
    return EmbeddedPairs.embed(embedder, rows, keep=partial(keep, f"stsb-{split}.npy"))


def _scores(
    embedder: Embedder, evidence: SelectionData, pairs: dict[str, EmbeddedPairs], candidate: Candidate
) -> dict[str, float]:
    """Score a correction that has learnt from the sample: Spearman × 100 by split."""
    learnt = correction(candidate.steps, evidence.sample, embedder.decoding_head, candidate.keep)
    corrected = Embedder(embedder.encoder, correction=learnt)
    return {split: 100 * pairs[split].mapped(corrected.densify).spearman() for split in SPLITS}
