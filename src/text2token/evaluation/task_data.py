"""The data of a task: load it, and check it before anything is encoded."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
    AbsTaskSummarization,
)

from text2token.utils import provenance
from text2token.utils.errors import UserError, first_line


def local_folder(task: AbsTask) -> Path | None:
    """The folder that a task is read from; None when it comes from the hub."""
    path = Path(task.metadata.dataset["path"])
    return path if path.is_dir() else None


def data_checksum(task: AbsTask) -> str:
    """SHA-256 of the files of a task; of a task from the hub, the revision of its data."""
    folder = local_folder(task)
    return str(task.metadata.dataset["revision"]) if folder is None else provenance.data_checksum(folder)


def load_task(task: AbsTask) -> None:
    """Load the data of a task into memory and check it.

    mteb draws training texts label by label, which takes twice as long from a file as from memory. Local folders get a cache
    keyed by their content: the default cache of ``datasets`` is keyed by name and README and would return stale data.

    Raises:
        UserError: The data cannot be loaded, or :func:`check_task` refuses it.
    """
    task.metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "keep_in_memory": True}})
    cache = datasets.config.HF_DATASETS_CACHE
    if local_folder(task):
        datasets.config.HF_DATASETS_CACHE = Path(cache) / "text2token" / data_checksum(task)
    try:
        if not task.data_loaded:
            task.load_data()
    except Exception as error:  # loaders raise errors of any kind
        where = local_folder(task) or "the hub"
        raise UserError(f"Cannot load the task {task.metadata.name} from {where}: {first_line(error)}") from error
    finally:
        datasets.config.HF_DATASETS_CACHE = cache
    check_task(task)


def check_task(task: AbsTask) -> None:
    """Check splits, columns, texts and judgements of a loaded task.

    Judgements of documents and queries that do not exist are counted in a warning, and score as they do in mteb: a missing
    document counts as relevant and not found, a missing query does not count.

    Raises:
        UserError: Something is missing, or does not fit together.
    """
    if isinstance(task, AbsTaskRetrieval):
        task.convert_v1_dataset_format_to_v2(num_proc=None)
        for subset in task.hf_subsets:
            for split in task.eval_splits:
                _check_search(task, _split(task, subset, split))
    else:
        splits = [*task.eval_splits, *([task.train_split] if isinstance(task, AbsTaskClassification) else [])]
        for subset in task.hf_subsets:
            for split in splits:
                _check_table(task, split, _split(task, subset, split))


def _split(task: AbsTask, subset: str, split: str) -> Any:
    splits = task.dataset.get(subset, task.dataset)
    if split not in splits:
        raise _error(task, f"has no split '{split}'")
    return splits[split]


def _check_table(task: AbsTask, split: str, rows: Dataset) -> None:
    texts, others = _columns(task)
    for column in (*texts, *others):
        if column not in rows.column_names:
            raise _error(task, f"has no column '{column}' in its split '{split}', only {', '.join(rows.column_names)}")
    if not len(rows):
        raise _error(task, f"has no rows in its split '{split}'")
    for column in (*texts, *others):
        for number, value in enumerate(_flat(rows[column]), start=1):
            if _is_missing(value) or (column in texts and not isinstance(value, str)):
                kind = "nothing" if _is_missing(value) else type(value).__name__
                raise _error(task, f"has {kind} in row {number}, column '{column}' of its split '{split}'")
    _check_lists(task, split, rows)
    if isinstance(task, AbsTaskClusteringLegacy):
        alike = all(len(set(labels)) < 2 for labels in rows[others[0]])
    else:
        labelled = isinstance(task, AbsTaskClassification | AbsTaskClustering)
        alike = labelled and len(set(map(str, rows[others[0]]))) < 2
    if alike:
        raise _error(task, f"has only one label in its split '{split}', so there is nothing to tell apart")


def _check_lists(task: AbsTask, split: str, rows: Dataset) -> None:
    """Check the columns that hold a list in each row: sets of texts, summaries, or all pairs of an older data set."""
    alone: tuple[str, ...] = ()
    if isinstance(task, AbsTaskClusteringLegacy):
        aligned: tuple[str, ...] = (task.input_column_name, task.label_column_name)
    elif isinstance(task, AbsTaskSummarization):
        aligned = (task.machine_summaries_column_name, task.relevancy_column_name)
        alone = (task.human_summaries_column_name,)
    elif isinstance(task, AbsTaskPairClassification) and len(rows) == 1:
        aligned = (task.input1_column_name, task.input2_column_name, task.label_column_name)
    else:
        return
    for column in (*aligned, *alone):
        for number, value in enumerate(rows[column], start=1):
            if not isinstance(value, list) or not value:
                raise _error(task, f"has no list in row {number}, column '{column}' of its split '{split}'")
    for number, values in enumerate(zip(*(rows[column] for column in aligned), strict=True), start=1):
        if len(set(map(len, values))) > 1:
            columns = ", ".join(f"{len(value)} in {column}" for column, value in zip(aligned, values, strict=True))
            raise _error(task, f"has lists of different lengths in row {number} of its split '{split}' ({columns})")


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def _columns(task: AbsTask) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The columns of texts, and the other columns that the task reads."""
    if isinstance(task, AbsTaskSTS):
        return tuple(task.column_names), ("score",)
    if isinstance(task, AbsTaskPairClassification):
        return (task.input1_column_name, task.input2_column_name), (task.label_column_name,)
    if isinstance(task, AbsTaskClassification | AbsTaskClustering | AbsTaskClusteringLegacy):
        return (task.input_column_name,), (task.label_column_name,)
    if isinstance(task, AbsTaskSummarization):
        names = (task.text_column_name, task.human_summaries_column_name, task.machine_summaries_column_name)
        return names, (task.relevancy_column_name,)
    return (), ()


def _flat(column: Any) -> Iterator[Any]:
    """The values of a column; older data sets hold all of them in a list in one row."""
    for value in column:
        if isinstance(value, list):
            yield from value
        else:
            yield value


def _check_search(task: AbsTask, data: dict[str, Any]) -> None:
    judged = data["relevant_docs"]
    if not judged:
        raise _error(task, "has no judgements")
    queries = dict(zip(data["queries"]["id"], data["queries"]["text"], strict=True))
    unknown = sorted(judged.keys() - queries.keys())
    if len(unknown) == len(judged):
        raise _error(task, f"has judgements only of queries that do not exist, for example '{unknown[0]}'")
    for query in unknown:
        del judged[query]
    missing = {document for found in judged.values() for document in found} - set(data["corpus"]["id"])
    _note_unknown(task, "queries", unknown, "they are left out")
    _note_unknown(task, "documents", sorted(missing), "they count as relevant and not found, as in mteb")
    for query in judged:
        if not isinstance(queries[query], str | list):
            raise _error(task, f"has no text for the query '{query}'")


def _note_unknown(task: AbsTask, what: str, names: Sequence[str], outcome: str) -> None:
    if names:
        some = f"{len(names)}, for example '{names[0]}'"
        warnings.warn(
            f"{task.metadata.name}: judgements name {what} that do not exist ({some}); {outcome}.", stacklevel=2
        )


def _error(task: AbsTask, what: str) -> UserError:
    return UserError(
        f"The data of {task.metadata.name} ({task.metadata.dataset['path']}) {what}: correct it and run again."
    )
