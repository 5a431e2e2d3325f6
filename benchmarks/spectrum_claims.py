"""The claim of *A Text is Worth Several Tokens* as an experiment: what does a shift along u₁ alone do to a plain backbone?

Part of benchmarks/results/alignment.json: components, contributions and the sweep of λ, with alignment rates and token categories
on Wikipedia sentences, STSBenchmark (test), and nDCG@10 on a part of SciFact.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from text2token.alignment.reading import open_readable
from text2token.alignment.spectrum import Moments, principal_components
from text2token.alignment.spectrum_run import analyse
from text2token.alignment.sts import EmbeddedPairs, read_sts
from text2token.corpus import open_corpus, sample
from text2token.embedder import Embedder
from text2token.precision import mixed_precision
from text2token.recipe import Recipe
from text2token.vector_files import kept_vectors

PLAIN = Recipe(pooling="mean", template="none")
TEXTS = 500  # Wikipedia sentences that the components are learnt from and that are decoded
DOCUMENTS, QUERIES = 300, 60
DEPTH = 10


def measure(data: Path, runs: Path, pairs: dict[str, tuple[str, str]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures ``spectrum_{name}_{what}`` and, for each name, the data of a spectrum with ``scifact`` in the rows of its sweep.

    Args:
        data: With ``corpus/wiki-sentences.txt``, ``mteb/stsbenchmark-sts`` and ``mteb/scifact``.
        runs: Where embeddings are kept, by name of backbone and of pair, so that a stopped run continues.
        pairs: Name → backbone, read under plain mean pooling, and the folder of an embedder made from it.
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
    """The numbers that a verdict rests on."""
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
    models = open_readable(base_name, PLAIN), open_readable(tuned_name, PLAIN)
    folders = [runs / "spectrum" / f"{name}-{side}" for side in ("base", "tuned")]
    stsb = read_sts(data / "mteb" / "stsbenchmark-sts" / "test.jsonl")
    embedded, sts = [], []
    for model, folder in zip(models, folders, strict=True):
        with mixed_precision(model.encoder[0].model):
            embedded.append(kept_vectors(folder, "texts", partial(model.embed, texts)))
            sts.append(EmbeddedPairs.embed(model, stsb, keep=partial(kept_vectors, folder, "stsb-test")))
    search = Search.load(models[0], data / "mteb" / "scifact", folders[0])
    moments = Moments.none(embedded[0].shape[1])
    moments.add(*embedded)
    result = analyse(models, embedded, moments, texts, pairs=sts)
    first = principal_components(moments).first
    for row in result["shift_rows"]:
        row["scifact"] = search.ndcg(row["shift"] * first)
    centred = principal_components(moments, centred=True)
    return result | {
        "centred_components": centred.rows()[:DEPTH],
        "searched": {"documents": DOCUMENTS, "queries": QUERIES},
    }


class Search:
    """Queries against documents by cosine, both embedded, with what is relevant."""

    def __init__(self, queries: Tensor, documents: Tensor, relevant: list[set[int]]) -> None:
        self.queries, self.documents, self.relevant = queries, documents, relevant

    @classmethod
    def load(cls, embedder: Embedder, folder: Path, kept: Path) -> Search:
        """Random queries, all documents judged for them, and random other documents up to DOCUMENTS."""
        documents, queries = (_by_id(folder / f"{name}.jsonl") for name in ("corpus", "queries"))
        judged: dict[str, set[str]] = {}
        for row in _rows(folder / "qrels" / "test.jsonl"):
            if float(row["score"]) > 0:
                judged.setdefault(row["query-id"], set()).add(row["corpus-id"])
        rng = random.Random(0)
        asked = sorted(rng.sample(sorted(judged), QUERIES))
        needed = set().union(*(judged[query] for query in asked))
        others = rng.sample(sorted(documents.keys() - needed), DOCUMENTS - len(needed))
        found = sorted([*needed, *others])
        places = {name: place for place, name in enumerate(found)}
        with mixed_precision(embedder.encoder[0].model):
            return cls(
                kept_vectors(kept, "scifact-queries", lambda: embedder.embed([queries[name] for name in asked])),
                kept_vectors(kept, "scifact-documents", lambda: embedder.embed([documents[name] for name in found])),
                [{places[name] for name in judged[query]} for query in asked],
            )

    def ndcg(self, shift: Tensor) -> float:
        """Mean nDCG@10 × 100 (binary relevance) after adding ``shift`` to every embedding."""
        sides = (torch.nn.functional.normalize(side + shift, dim=1) for side in (self.queries, self.documents))
        queries, documents = sides
        ranked = (queries @ documents.T).topk(DEPTH, dim=1).indices.tolist()
        discounts = 1 / np.log2(np.arange(DEPTH) + 2)
        gains = [
            sum(discounts[place] for place, document in enumerate(row) if document in relevant)
            / discounts[: len(relevant)].sum()
            for row, relevant in zip(ranked, self.relevant, strict=True)
        ]
        return 100 * float(np.mean(gains))


def _by_id(file: Path) -> dict[str, str]:
    return {row["_id"]: f"{row.get('title') or ''} {row['text']}".strip() for row in _rows(file)}


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    return map(json.loads, file.read_text(encoding="utf-8").splitlines())
