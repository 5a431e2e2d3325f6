"""Measure what changes of the spectrum do to a backbone without training: parts of benchmarks/results/spectrum.json.

The shift along u₁ is a claim of *A Text is Worth Several Tokens* (arXiv 2406.17378). The corrections are ours.
``data`` is the folder with corpus/ and mteb/; ``runs`` keeps embeddings, so that a stopped run continues.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import normalize

from alignment_claims import UNTRAINED, Found, open_model
from collection import beir, best, ndcg
from runner import SENTENCES
from text2token.analysis.spectrum import Moments, principal_components
from text2token.analysis.spectrum_run import analyse
from text2token.analysis.sts import EmbeddedPairs
from text2token.data.corpus import open_corpus, sample
from text2token.data.sts import read_sts
from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.training.adaptation import adapt_draw, selection_data
from text2token.training.choose import CANDIDATES, Candidate, choose, score_candidates
from text2token.training.start import read_corpus
from text2token.utils.resume import cached

STS = "mteb/stsbenchmark-sts"
TEXTS = 500  # Wikipedia sentences that the components are learnt from and that are decoded
DOCUMENTS = 300  # documents of the part of SciFact that is searched
COMPONENTS = 64  # rows of a spectrum that its figures show at most
TOKENS = 10  # tokens of the first text that the page shows for a shift
SHOWN = {
    "components": ("component", "variation", "spread"),
    "contribution": ("text", "token", "first", "rest", "rest_token"),
}
SETTINGS = {
    "mean": Recipe(backbone="smollm2-135m", pooling="mean", template="none"),
    "eol": Recipe(backbone="smollm2-135m", pooling="last", template="eol"),
    "eol_published": Recipe(backbone="smollm2-135m", pooling="last", template="eol-published"),
}
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


def shifts(data: Path, runs: Path, tuned: Mapping[str, str]) -> Found:
    """Measure figures ``spectrum_{backbone}_{what}``, and the spectrum of each backbone beside its fitted model.

    Alignment rates and token kinds are those of Wikipedia sentences. Each shift is scored on STSBenchmark (test) and, by nDCG@10,
    on a part of SciFact. Backbones have mean pooling and no template. ``tuned``: backbone → folder of an embedder made from it.
    """
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for base, folder in tuned.items():
        found = _shift(base, folder, data, runs / "spectrum")
        details[base] = {"base": base, "tuned_name": Path(folder).name} | shown(found)
        figures |= {f"spectrum_{base}_{what}": value for what, value in summarise(found).items()}
    return figures, details


def _shift(base: str, tuned: str, data: Path, folder: Path) -> dict[str, Any]:
    """Analyse the spectrum of a backbone beside that of a tuned model, and score every shift of the backbone."""
    texts = sample(open_corpus(str(data / SENTENCES)), TEXTS, 0)
    pairs = read_sts(data / STS / "test.jsonl")
    models = open_model(base, UNTRAINED["plain mean"]), open_model(tuned, UNTRAINED["plain mean"])
    embedded, sts = [], []
    for model, side in zip(models, ("base", "tuned"), strict=True):
        own = folder / f"{base}-{side}"
        embedded.append(cached(own / "texts.npy", partial(model.embed, texts)))
        sts.append(EmbeddedPairs.embed(model, pairs, keep=partial(cached, own / "stsb-test.npy")))
    moments = Moments.none(embedded[0].shape[1])
    moments.add(*embedded)
    result = analyse(models, embedded, moments, texts, pairs=sts)
    for row in (*result["shift_rows"], result["tuned"]):
        row["sts"] *= 100  # results files hold points
    scifact = beir(data / "mteb" / "scifact", "SciFact", DOCUMENTS)
    sides = {"queries": [*scifact.queries.values()], "documents": [d.content for d in scifact.documents]}
    searched = [
        cached(folder / f"{base}-base" / f"scifact-{side}.npy", partial(models[0].embed, rows))
        for side, rows in sides.items()
    ]
    first = principal_components(moments).first
    for row in result["shift_rows"]:
        queries, documents = (normalize(side + row["shift"] * first, dim=1) for side in searched)
        row["scifact"] = ndcg(scifact, best(scifact, (queries @ documents.T).numpy()))
    return result | {"searched": {side: len(rows) for side, rows in sides.items()}}


def summarise(result: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers that the verdicts need."""
    variation = np.array([row["variation"] for row in result["components"]])
    by_shift = {row["shift"]: row for row in result["shift_rows"]}
    states = {"plain": by_shift[0.0], "v1": by_shift[result["v1"]], "zero": by_shift[result["zero"]]}
    figures = {
        "v1": float(variation[0]),
        "largest_other": float(np.abs(variation[1:]).max()),
        "v1_share": float(variation[0] ** 2 / (variation**2).sum()),
    }
    for state, row in (states | {"tuned": result["tuned"]}).items():
        figures |= {f"{key}_{state}": row[key] for key in ("hit", "local", "global", "sts", "scifact") if key in row}
        figures[f"meaningful_{state}"] = row["literal, meaningful"] + row["derived"]
    for key in ("hit", "sts", "scifact"):
        figures[f"{key}_best"] = max(row[key] for row in result["shift_rows"])
    return figures


def shown(result: Mapping[str, Any]) -> dict[str, Any]:
    """Leave out of a spectrum what no page shows: later components and the tokens of all texts but one."""
    kept = {
        rows: [{key: row[key] for key in columns} for row in result[rows][:COMPONENTS]]
        for rows, columns in SHOWN.items()
    }
    moved = [{**row, "tokens": [row["tokens"][0][:TOKENS]]} for row in (*result["shift_rows"], result["tuned"])]
    return {**result, **kept, "shift_rows": moved[:-1], "tuned": moved[-1]}


def corrections(data: Path, runs: Path) -> Found:
    """Score corrections on STSBenchmark: each alone, and the one that ``adapt`` chooses without labels.

    Figures are ``adapt_SETTING_stsb`` (test, the chosen one) with ``_before`` and ``_validation``. Every text is encoded once.
    """
    details = {name: _corrections(recipe, data, runs / "adapt" / name) for name, recipe in SETTINGS.items()}
    figures: dict[str, float] = {}
    for name, found in details.items():
        figures[f"adapt_{name}_stsb"] = found["chosen"]["test"]
        figures[f"adapt_{name}_stsb_validation"] = found["chosen"]["validation"]
        figures[f"adapt_{name}_stsb_before"] = found["alone"]["none"]["test"]
    return figures, details


def _corrections(recipe: Recipe, data: Path, folder: Path) -> dict[str, Any]:
    """Score all corrections of one setting, and keep the table that the choice was made from."""
    embedder = open_model(recipe.backbone, recipe)
    (texts, others), _ = read_corpus(open_corpus(str(data / SENTENCES)), adapt_draw(recipe), recipe.seed)
    evidence = selection_data(
        embedder, texts, others, recipe.seed, lambda name, compute: cached(folder / name, compute)
    )
    pairs = {}
    for split in ("validation", "test"):
        sts = read_sts(data / STS / f"{split}.jsonl")
        pairs[split] = EmbeddedPairs.embed(embedder, sts, keep=partial(cached, folder / f"stsb-{split}.npy"))

    def scores(candidate: Candidate) -> dict[str, float]:
        """Score a correction that has learnt from the sample: Spearman × 100 by split."""
        learnt = correction(candidate.steps, evidence.sample, embedder.decoding_head, candidate.keep)
        corrected = Embedder(embedder.encoder, correction=learnt)
        return {split: 100 * rows.mapped(corrected.densify).spearman() for split, rows in pairs.items()}

    judged = score_candidates(embedder, evidence, CANDIDATES)
    rows = {
        row.candidate: {
            "correction": row.candidate.correction,
            "keep": row.candidate.keep,
            "agreement": 100 * row.agreement,
        }
        | scores(row.candidate)
        for row in judged
    }
    return {
        "recipe": {"backbone": recipe.backbone, "pooling": recipe.pooling, "template": recipe.template},
        "texts": len(texts),
        "pairs": len(others),
        "alone": {label: scores(candidate) for label, candidate in ALONE.items()},
        "chosen": rows[choose(judged, len(others)).candidate],
        "judged": list(rows.values()),
    }
