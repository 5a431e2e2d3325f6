"""Measure a claim of *A Text is Worth Several Tokens*: what a shift along u₁ alone does to a plain backbone.

A part of benchmarks/results/spectrum.json: components, contributions and the sweep of λ, with alignment rates and token kinds
on Wikipedia sentences, STSBenchmark (test), and nDCG@10 on a part of SciFact.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch.nn.functional import normalize

from sparse_trials import beir, best, ndcg
from text2token.analysis.spectrum import Moments, principal_components
from text2token.analysis.spectrum_run import analyse
from text2token.analysis.sts import EmbeddedPairs
from text2token.data.corpus import open_corpus, sample
from text2token.data.sts import read_sts
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe
from text2token.utils.resume import cached

PLAIN = Recipe(pooling="mean", template="none")
TEXTS = 500  # Wikipedia sentences that the components are learnt from and that are decoded
DOCUMENTS = 300  # documents of the part of SciFact that is searched


def measure(data: Path, runs: Path, pairs: dict[str, tuple[str, str]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure figures ``spectrum_{name}_{what}`` and, for each name, a spectrum with ``scifact`` in the rows of its sweep.

    Args:
        data: Folder with ``corpus/wiki-sentences.txt``, ``mteb/stsbenchmark-sts`` and ``mteb/scifact``.
        runs: Folder that keeps embeddings, so that a stopped run continues.
        pairs: Name → backbone, which is read with mean pooling, and the folder of an embedder made from it.
    """
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    texts = sample(open_corpus(str(data / "corpus" / "wiki-sentences.txt")), TEXTS, 0)
    for name, (base, tuned) in pairs.items():
        details[name] = {"base": base, "tuned_name": Path(tuned).name} | _measure_pair(
            name, base, tuned, texts, data, runs
        )
        figures |= {f"spectrum_{name}_{what}": value for what, value in summarise(details[name]).items()}
    return figures, details


def summarise(result: dict[str, Any]) -> dict[str, float]:
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
        figures |= {f"{key}_{state}": row[key] for key in ("hit", "local", "global", "sts")}
        figures[f"meaningful_{state}"] = row["literal, meaningful"] + row["derived"]
        if "scifact" in row:
            figures[f"scifact_{state}"] = row["scifact"]
    for key in ("hit", "sts", "scifact"):
        figures[f"{key}_best"] = max(row[key] for row in result["shift_rows"])
    return figures


def _measure_pair(
    name: str, base_name: str, tuned_name: str, texts: list[str], data: Path, runs: Path
) -> dict[str, Any]:
    models = (
        Embedder.open(base_name, head="original", corrected=False, **PLAIN.embedder_settings()),
        Embedder.open(tuned_name, head="original", corrected=False, **PLAIN.embedder_settings()),
    )
    folders = [runs / "spectrum" / f"{name}-{side}" for side in ("base", "tuned")]
    stsb = read_sts(data / "mteb" / "stsbenchmark-sts" / "test.jsonl")
    embedded, sts = [], []
    for model, folder in zip(models, folders, strict=True):
        model.bf16 = True
        embedded.append(cached(folder / "texts.npy", partial(model.embed, texts)))
        sts.append(EmbeddedPairs.embed(model, stsb, keep=partial(cached, folder / "stsb-test.npy")))
    scifact = beir(data / "mteb" / "scifact", "SciFact", DOCUMENTS)
    sides = {
        "scifact-queries": list(scifact.queries.values()),
        "scifact-documents": [document.content for document in scifact.documents],
    }
    searched = [cached(folders[0] / f"{side}.npy", partial(models[0].embed, own)) for side, own in sides.items()]
    moments = Moments.none(embedded[0].shape[1])
    moments.add(*embedded)
    result = analyse(models, embedded, moments, texts, pairs=sts)
    for row in (*result["shift_rows"], result["tuned"]):
        row["sts"] *= 100  # results files hold points
    first = principal_components(moments).first
    for row in result["shift_rows"]:
        queries, documents = (normalize(side + row["shift"] * first, dim=1) for side in searched)
        row["scifact"] = ndcg(scifact, best(scifact, (queries @ documents.T).numpy(), negative=True))
    return result | {"searched": {"documents": len(scifact.documents), "queries": len(scifact.queries)}}
