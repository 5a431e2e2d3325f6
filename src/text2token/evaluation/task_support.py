"""Which tasks of mteb can be scored with an interval. Others are refused by their kind, before anything is encoded."""

from __future__ import annotations

import mteb
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskReranking,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)
from mteb.abstasks.aggregated_task import AbsTaskAggregate

from text2token.evaluation.task_items import MAIN_SCORES
from text2token.utils.errors import UserError

_CLASSES = frozenset(
    {
        AbsTaskClassification,
        AbsTaskClustering,
        AbsTaskClusteringLegacy,
        AbsTaskMultilabelClassification,
        AbsTaskPairClassification,
        AbsTaskReranking,
        AbsTaskRetrieval,
        AbsTaskSTS,
        AbsTaskSummarization,
    }
)


def check_supported(task: AbsTask) -> None:
    """Check that :func:`text2token.evaluation.task_items.task_items` can compute the items of such a task.

    Raises:
        UserError: It cannot. The sentence names the task, its type, its class and another way.
    """
    if reason := _obstacle(task):
        raise UserError(
            f"The task {task.metadata.name} ({task.metadata.type}, {_class_of(task).__name__}) cannot be evaluated, because "
            f"{reason}: {_way_out(task)}."
        )


def _class_of(task: AbsTask) -> type[AbsTask]:
    """The class of mteb that computes the score of a task."""
    return next(kind for kind in type(task).__mro__ if kind.__module__.startswith("mteb.abstasks."))


def _obstacle(task: AbsTask) -> str | None:
    """Why the items of a task cannot be computed; None: they can."""
    kind, main_score = _class_of(task), task.metadata.main_score
    if kind is AbsTaskAggregate:
        return "it has no texts of its own"
    if others := sorted(set(task.metadata.modalities) - {"text"}):
        return f"it needs {' and '.join(others)}"
    if kind not in _CLASSES or task.metadata.type not in MAIN_SCORES:
        return "text2token computes no intervals for this kind of task"
    if main_score.removeprefix("max_over_subqueries_").partition("_at_")[0] not in MAIN_SCORES[task.metadata.type]:
        return f"text2token computes no interval for its score {main_score}"
    if getattr(task, "is_cross_validation", False):
        return "its score is cross-validated"
    if getattr(task, "max_eval_samples", None) is not None:
        return "mteb does not say which of its texts are scored"
    evaluator = getattr(task, "evaluator", None)
    if evaluator is not None and evaluator is not getattr(kind, "evaluator", None):
        return f"its score comes from {evaluator.__name__} and not from the evaluator of its class"
    return None


def _way_out(task: AbsTask) -> str:
    if isinstance(task, AbsTaskAggregate):
        return f"name its parts, {','.join(part.metadata.name for part in task.metadata.tasks)}"
    newer = task.superseded_by
    if newer and _obstacle(mteb.get_task(newer)) is None:
        return f"choose {newer}"
    return "leave it out, or score it with mteb itself"
