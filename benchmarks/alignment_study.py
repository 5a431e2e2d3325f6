"""Measure the alignment of embeddings with their texts, for two backbones and several ways to make an embedding."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from text2token.analysis.alignment import AlignmentSettings, align_embeddings, write_alignment
from text2token.data.corpus import open_corpus, sample
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.utils.resume import cached

TEXTS, SEED = 500, 1  # not the texts that the models trained on; the standard error of a rate of one half is 2 points
UNTRAINED: dict[str, dict[str, Any]] = {
    "plain mean": {"template": "none", "pooling": "mean"},
    "plain last": {"template": "none"},
    "PromptEOL": {"template": "eol"},
}
READINGS = {
    "exact ids": AlignmentSettings(),
    "forms merged": AlignmentSettings(forms="merged"),
    "special tokens too": AlignmentSettings(special=True),
    "as the released code": AlignmentSettings(special=True, paper=True),
    "less the mean": AlignmentSettings(centred=True),
    "less the mean, forms merged": AlignmentSettings(centred=True, forms="merged"),
}


def measure(data: Path, runs: Path, trained: dict[str, dict[str, Path]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure the alignment rates of every embedder with every setting of the reading.

    Args:
        data: Folder with ``corpus/wiki-sentences.txt``.
        runs: Folder that keeps embeddings and figures.
        trained: Backbone → name → folder of the fitted models.

    Returns:
        Figures ``align RATE (EMBEDDER)`` for exact ids, and the rates of all readings.
    """
    texts = sample(open_corpus(str(data / "corpus" / "wiki-sentences.txt")), TEXTS, SEED)
    studied: dict[str, dict[str, Any]] = {reading: {} for reading in READINGS}
    for backbone, models in trained.items():
        for way in [*UNTRAINED, *models]:
            name = f"{backbone}, {way}"
            if way in UNTRAINED:
                embedder = Embedder.open(backbone, **Recipe(**UNTRAINED[way]).embedder_settings())
            else:
                embedder = Embedder.open(models[way], head="original", corrected=False)
            embedder.bf16 = True
            embeddings = cached(runs / "study" / f"{name}.npy", partial(embedder.embed, texts, progress=True))
            for reading, settings in READINGS.items():
                studied[reading][name] = align_embeddings(embedder, embeddings, texts, settings)
    for reading in ("exact ids", "less the mean, forms merged"):
        described = {**READINGS[reading]._asdict(), "texts": TEXTS, "seed": SEED}
        write_alignment(studied[reading], described, runs / "figures" / reading.replace(", ", "-").replace(" ", "-"))
    figures = {
        f"align {rate} ({name})": 100 * value
        for name, result in studied["exact ids"].items()
        for rate, value in result["rates"].items()
    }
    return figures, {"texts": TEXTS, "seed": SEED, "readings": studied}
