"""What a task's data must have, asked before anything is encoded: one sentence instead of a traceback an hour later."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from datasets import Dataset
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)

from text2token.evaluation.folder_task import task_folder
from text2token.utils.errors import UserError


def check_data(task: AbsTask) -> None:
    """Look at the splits, columns, texts and judgements of a loaded task.

    Raises:
        UserError: Something is missing or does not fit together.
    """
    if isinstance(task, AbsTaskRetrieval):
        task.convert_v1_dataset_format_to_v2(num_proc=None)
        for subset in task.hf_subsets:
            for split in task.eval_splits:
                _check_search(task, _part(task, subset, split))
    else:
        splits = [*task.eval_splits, *([task.train_split] if isinstance(task, AbsTaskClassification) else [])]
        for subset in task.hf_subsets:
            for split in splits:
                _check_table(task, split, _part(task, subset, split))


def _part(task: AbsTask, subset: str, split: str) -> Any:
    splits = task.dataset.get(subset, task.dataset)
    if split not in splits:
        raise _wrong(task, f"has no split '{split}'")
    return splits[split]


def _check_table(task: AbsTask, split: str, rows: Dataset) -> None:
    texts, others = _columns(task)
    for column in (*texts, *others):
        if column not in rows.column_names:
            raise _wrong(task, f"has no column '{column}' in its split '{split}', only {', '.join(rows.column_names)}")
    if not len(rows):
        raise _wrong(task, f"has no rows in its split '{split}'")
    for column in (*texts, *others):
        for number, value in enumerate(_flat(rows[column]), start=1):
            if _is_missing(value) or (column in texts and not isinstance(value, str)):
                kind = "nothing" if _is_missing(value) else type(value).__name__
                raise _wrong(task, f"has {kind} in row {number}, column '{column}' of its split '{split}'")
    if isinstance(task, AbsTaskClassification | AbsTaskClustering) and len(set(map(str, rows[others[0]]))) < 2:
        raise _wrong(task, f"has a single label in its split '{split}': there is nothing to tell apart")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _columns(task: AbsTask) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Columns of texts, and others that the task reads."""
    if isinstance(task, AbsTaskSTS):
        return tuple(task.column_names), ("score",)
    if isinstance(task, AbsTaskPairClassification):
        return (task.input1_column_name, task.input2_column_name), (task.label_column_name,)
    if isinstance(task, AbsTaskClassification | AbsTaskClustering):
        return (task.input_column_name,), (task.label_column_name,)
    if isinstance(task, AbsTaskSummarization):
        names = (task.text_column_name, task.human_summaries_column_name, task.machine_summaries_column_name)
        return names, (task.relevancy_column_name,)
    return (), ()


def _flat(column: Any) -> Iterator[Any]:
    """The values of a column; older data sets have all of them in lists of one row."""
    for value in column:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _check_search(task: AbsTask, data: dict[str, Any]) -> None:
    judged = data["relevant_docs"]
    if not judged:
        raise _wrong(task, "judges no document")
    documents, queries = (
        set(data["corpus"]["id"]),
        dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True)),
    )
    unknown = {document for found in judged.values() for document in found} - documents
    if unknown and task_folder(task):  # what the hub publishes is taken as it is
        raise _wrong(task, f"judges {len(unknown)} unknown documents, '{min(unknown)}' for one")
    if unknown := judged.keys() - queries.keys():
        raise _wrong(task, f"judges {len(unknown)} unknown queries, '{min(unknown)}' for one")
    for query in judged:
        if not isinstance(queries[query], str | list) or not str(queries[query]).strip():
            raise _wrong(task, f"has an empty query, '{query}'")


def _wrong(task: AbsTask, what: str) -> UserError:
    return UserError(f"The data of {task.metadata.name} ({task.metadata.dataset['path']}) {what}: mend it and repeat.")
