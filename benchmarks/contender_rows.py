"""Rows of tables: the contenders of the quality benchmark under their names for readers, seeds together."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import mean

from contenders import CORRECTED, MINILM_NAME, OURS, OVERALL, TEACHER, WHOLE

Scores = dict[str, list[float]]
"""Type of task → score of each seed, × 100."""

_METHODS = {OURS: "ours", "llm2vec": "LLM2Vec's recipe", "simcse": "SimCSE", "tsdae": "TSDAE"}


def without_seed(contender: str) -> str:
    """Return the name of a contender without its seed."""
    return contender.partition(", seed")[0]


NAMES = (
    _METHODS
    | {method + CORRECTED: shown + CORRECTED for method, shown in _METHODS.items()}
    | {OURS + WHOLE: _METHODS[OURS] + WHOLE, without_seed(TEACHER): f"text2token with {MINILM_NAME} as its teacher"}
)


def shown(contender: str) -> str:
    """Return the name of a contender for readers, without its seed."""
    backbone, colon, method = without_seed(contender).rpartition(": ")
    return backbone + colon + NAMES.get(method, method)


def by_contender(figures: Mapping[str, float]) -> dict[str, Scores]:
    """Group figures ``CONTENDER, seed N: TYPE`` by contender and type."""
    rows: dict[str, Scores] = {}
    for figure, score in figures.items():
        name, colon, kind = figure.rpartition(": ")
        if colon:
            rows.setdefault(shown(name), {}).setdefault(kind, []).append(score)
    return rows


def mean_costs(trained: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Return the texts, tokens and minutes of each contender's training, means over its seeds."""
    costs: dict[str, list[Mapping[str, float]]] = {}
    for name, cost in trained.items():
        costs.setdefault(shown(name), []).append(cost)
    return {name: {key: mean(cost[key] for cost in rows) for key in rows[0]} for name, rows in costs.items()}


def ranked(rows: Mapping[str, Scores]) -> dict[str, Scores]:
    """Sort contenders by their mean, best first.

    A contender without all types comes last and loses its mean, because a mean over other tasks cannot be compared.
    """
    kinds = {kind for scores in rows.values() for kind in scores}
    complete = {name: scores for name, scores in rows.items() if scores.keys() == kinds}
    partial = {name: {kind: scores[kind] for kind in scores if kind != OVERALL} for name, scores in rows.items()}
    best_first = sorted(complete.items(), key=lambda row: -mean(row[1][OVERALL]))
    return dict(best_first) | {name: scores for name, scores in partial.items() if name not in complete}
