"""The figures of the quality benchmark that have goals: differences between contenders, in points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import mean

from contenders import (
    CORRECTED,
    FIRST,
    MINILM_NAME,
    MINILM_WHOLE,
    OURS,
    OURS_WHOLE,
    OVERALL,
    PROMPTEOL,
    SECOND,
    SETTINGS,
    TEACHER,
    seeds,
    untrained,
)

Means = Mapping[str, Mapping[str, float]]
"""Finished contender → type of task, or :data:`contenders.OVERALL` → mean score over the tasks, × 100."""
Leads = dict[str, float]
"""Type of task, or :data:`contenders.OVERALL` → points."""


def differences(means: Means) -> dict[str, float]:
    """Compute all figures whose contenders are finished. Ours is the mean of its seeds, without a teacher.

    - ``ours_minus_minilm_13``: ours minus all-MiniLM-L6-v2, mean over the tasks as the benchmark cuts them. There are 13.
    - ``ours_minus_minilm_13_whole``: the same on whole tasks, ours with seed 0.
    - ``training_gain``: ours minus the best untrained row of the first backbone, any setting and correction, mean over the tasks.
    - ``teacher_gap_13``: all-MiniLM-L6-v2 minus the model that it taught (seed 0), mean over the tasks.
    - ``ours_minus_llm2vec_mean``, ``ours_minus_llm2vec_worst_type``: see :func:`minus_llm2vec`.
    - ``worst_type_minus_prompteol``: see :func:`minus_prompteol`.
    """
    ours = seeds(OURS)
    rivals = {
        "ours_minus_minilm_13": (ours, [[MINILM_NAME]]),
        "ours_minus_minilm_13_whole": ([OURS_WHOLE], [[MINILM_WHOLE]]),
        "training_gain": (ours, [[name] for name in untrained(FIRST, SETTINGS)]),
        "teacher_gap_13": ([MINILM_NAME], [[TEACHER]]),
    }
    found = {name: leads(means, *compared) for name, compared in rivals.items()}
    overall = {name: points[OVERALL] for name, points in found.items() if points}
    return overall | minus_llm2vec(means) | minus_prompteol(means)


def leads(means: Means, first: Sequence[str], rivals: Sequence[Sequence[str]]) -> Leads:
    """Subtract the best rival from the first, for each type of task and overall; the best rival of each may be another one.

    Args:
        means: The finished contenders.
        first: Contenders that differ in their seed only. Their mean counts.
        rivals: The same for each rival.

    Returns:
        Nothing as long as one of the contenders is not finished.
    """
    if not means.keys() >= {*first, *chain.from_iterable(rivals)}:
        return {}

    def average(names: Sequence[str], kind: str) -> float:
        return mean(means[name][kind] for name in names)

    return {kind: average(first, kind) - max(average(rival, kind) for rival in rivals) for kind in means[first[0]]}


def minus_llm2vec(means: Means) -> dict[str, float]:
    """Subtract LLM2Vec's recipe from ours, means over seeds: over all tasks, and for the type of task where ours is worst.

    The recipe counts with or without the correction of ours, whichever is better overall.
    """
    variants = [leads(means, seeds(OURS), [seeds("llm2vec", label)]) for label in ("", CORRECTED)]
    if not all(variants):
        return {}
    closest = min(variants, key=lambda points: points[OVERALL])
    return {"ours_minus_llm2vec_mean": closest[OVERALL], "ours_minus_llm2vec_worst_type": worst_type(closest)}


def minus_prompteol(means: Means) -> dict[str, float]:
    """Subtract PromptEOL from ours for each type of task, and take the worst type of both backbones.

    PromptEOL counts with the wording and the correction (:data:`contenders.LABELS`) that are best for the type. On the second
    backbone ours has one seed.
    """
    ours = {FIRST: seeds(OURS), SECOND: [f"{SECOND}: {OURS}"]}
    found = [leads(means, ours[each], [[name] for name in untrained(each, PROMPTEOL)]) for each in ours]
    return {"worst_type_minus_prompteol": min(map(worst_type, found))} if all(found) else {}


def worst_type(points: Leads) -> float:
    """Return the smallest lead among the types of tasks."""
    return min(lead for kind, lead in points.items() if kind != OVERALL)
