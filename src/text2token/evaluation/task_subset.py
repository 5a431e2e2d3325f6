"""A task cut down to fewer texts, for a quick look."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from datasets import Dataset
from mteb.abstasks import (
    AbsTask,
    AbsTaskClustering,
    AbsTaskClusteringLegacy,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
)

from text2token.utils.errors import UserError

_SEED = 0


class Subset(NamedTuple):
    """Queries and documents that :func:`sample_collection` keeps."""

    queries: list[str]
    documents: set[str]


def keep_documents(task: AbsTask, limit: int) -> None:
    """Cut a loaded task down, in place, to at most ``limit`` rows or documents.

    A search among fewer documents is easier, so such a score can only be compared with scores of the same subset.

    Raises:
        UserError: The documents of a single query are more than ``limit``, or so few pairs or texts of sets have one label.
    """
    if isinstance(task, AbsTaskRetrieval):
        for splits in task.dataset.values():
            for split, data in splits.items():
                splits[split] = _fewer_documents(task, data, limit)
        return
    if isinstance(
        task, AbsTaskClustering
    ):  # most take 4 % of their rows, which would be a handful of the remaining rows
        task.max_fraction_of_documents_to_embed, task.max_document_to_embed = None, limit
        return
    cut = _fewer_sets if isinstance(task, AbsTaskClusteringLegacy) else _fewer_rows
    _cut_tables(task, task.dataset, lambda table: cut(table, limit))


def _cut_tables(task: AbsTask, data: Any, cut: Callable[[Dataset], Dataset]) -> None:
    for key, value in data.items():
        if not isinstance(value, Dataset):  # a subset, with splits of its own
            _cut_tables(task, value, cut)
        elif key in task.eval_splits:
            data[key] = cut(value)
            _check_labels(task, data[key])


def _check_labels(task: AbsTask, rows: Dataset) -> None:
    """Pairs or sets of texts with one label alone have a score that says nothing."""
    if isinstance(task, AbsTaskClusteringLegacy):
        groups = rows[task.label_column_name]
    elif isinstance(task, AbsTaskPairClassification):
        groups = [rows[task.label_column_name]]
    else:
        return
    if all(len(set(labels)) < 2 for labels in groups):
        raise UserError(
            f"So few texts (`max_docs`) of {task.metadata.name} have only one label, so nothing can be told apart: keep more."
        )


def _fewer_rows(rows: Dataset, limit: int) -> Dataset:
    nested = len(rows) == 1 and all(isinstance(column, list) for column in rows[0].values())
    rows = Dataset.from_dict(rows[0]) if nested else rows  # older data sets hold all rows in one
    return rows.shuffle(seed=_SEED).select(range(min(limit, len(rows))))


def _fewer_sets(sets: Dataset, limit: int) -> Dataset:
    """Whole sets of texts in random order, ``limit`` texts in all; if no set is so small, a part of one."""
    lists = [name for name, value in sets[0].items() if isinstance(value, list)]
    sets = sets.select_columns(lists).shuffle(seed=_SEED)
    kept, left = [], limit
    for place, row in enumerate(sets):
        size = max(map(len, row.values()))
        if size <= left:
            kept.append(place)
            left -= size
    return sets.select(kept) if kept else Dataset.from_list([_fewer_rows(sets.select([0]), limit).to_dict()])


def _fewer_documents(task: AbsTask, data: dict[str, Any], limit: int) -> dict[str, Any]:
    relevant, candidates = data["relevant_docs"], data["top_ranked"] or {}
    ids = list(data["corpus"]["id"])
    known = set(ids)
    needed = {query: {*found, *candidates.get(query, [])} & known for query, found in relevant.items()}
    subset = sample_collection(needed, ids, limit, fill=not candidates)
    if not subset.queries:
        least = min(map(len, needed.values()))
        raise UserError(
            f"{limit} texts (`max_docs`) are too few for {task.metadata.name}: "
            f"each of its queries needs {least} documents or more."
        )
    kept = set(subset.queries)
    return {
        "corpus": data["corpus"].select([place for place, name in enumerate(ids) if name in subset.documents]),
        "queries": data["queries"].select([i for i, name in enumerate(data["queries"]["id"]) if name in kept]),
        "relevant_docs": {query: relevant[query] for query in subset.queries},
        "top_ranked": {query: candidates[query] for query in subset.queries} if candidates else None,
    }


def sample_collection(
    needed: Mapping[str, set[str]], documents: Sequence[str], limit: int, *, fill: bool = True, seed: int = _SEED
) -> Subset:
    """Choose queries in random order with all documents that they need, then other documents, ``limit`` documents in all.

    Args:
        needed: Query → the documents that were judged, or are to be ranked, for it.
        documents: All documents.
        limit: The number of documents kept at most.
        fill: Add random other documents up to the limit.
        seed: Seed of the random choice.
    """
    rng = random.Random(seed)
    kept: set[str] = set()
    queries = []
    for query in rng.sample(sorted(needed), len(needed)):
        if len(kept | needed[query]) <= limit:
            kept |= needed[query]
            queries.append(query)
        if len(kept) == limit:
            break
    if fill and queries:
        others = [name for name in documents if name not in kept]
        kept |= set(rng.sample(others, min(len(others), limit - len(kept))))
    return Subset(queries, kept)
