"""The contenders of the quality benchmark: their names in results files, and their names for readers."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

MINILM_NAME = "all-MiniLM-L6-v2"
MINILM = {  # published, test splits
    "STSBenchmark": 82.03, "STS12": 72.37, "STS14": 75.60, "BIOSSES": 81.64, "Banking77Classification": 80.04,
    "TweetSentimentExtractionClassification": 54.04, "AmazonCounterfactualClassification": 63.60,
}  # fmt: skip
WHOLE = f"{MINILM_NAME}, whole tasks"
SECOND = "gemma3-270m"
FILTERED = ", filtered"  # a baseline with the correction that text2token has
OVERALL = "mean over tasks"
COMPARED = {  # contender → name for readers; the first is compared with the others
    "text2token, seed 0": "ours",
    "llm2vec, seed 0": "LLM2Vec's recipe",
    "llm2vec, filtered, seed 0": "LLM2Vec's recipe, filtered",
    "keywords prompt, filtered": "our prompt, untrained",
    "PromptEOL": "PromptEOL, untrained",
    MINILM_NAME: MINILM_NAME,
}
_METHODS = {"text2token": "ours", "llm2vec": "LLM2Vec's recipe", "simcse": "SimCSE", "tsdae": "TSDAE"}
NAMES = _METHODS | {method + FILTERED: shown + FILTERED for method, shown in _METHODS.items()}

Scores = dict[str, list[float]]
"""Type of task → score of each seed, × 100."""


def by_contender(figures: Mapping[str, float]) -> dict[str, Scores]:
    """Group figures ``CONTENDER, seed N: TYPE`` by contender and type."""
    rows: dict[str, Scores] = {}
    for figure, score in figures.items():
        name, colon, kind = figure.rpartition(": ")
        if not colon or name == WHOLE:
            continue
        backbone, _, method = name.partition(", seed")[0].rpartition(": ")
        shown = f"{backbone}: {NAMES.get(method, method)}" if backbone else NAMES.get(method, method)
        rows.setdefault(shown, {}).setdefault(kind, []).append(score)
    return rows


def ranked(rows: Mapping[str, Scores]) -> dict[str, Scores]:
    """Sort contenders by their mean, best first.

    A contender without all types comes last and loses its mean, because a mean over other tasks cannot be compared.
    """
    kinds = {kind for scores in rows.values() for kind in scores}
    complete = {name: scores for name, scores in rows.items() if scores.keys() == kinds}
    partial = {name: {kind: scores[kind] for kind in scores if kind != OVERALL} for name, scores in rows.items()}
    best_first = sorted(complete.items(), key=lambda row: -mean(row[1][OVERALL]))
    return dict(best_first) | {name: scores for name, scores in partial.items() if name not in complete}
