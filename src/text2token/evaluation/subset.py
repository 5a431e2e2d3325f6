"""Cut a task down to a number of texts, for a quick look."""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTask, AbsTaskClustering, AbsTaskRetrieval

from text2token.utils.errors import UserError

_SEED = 0


def keep_documents(task: AbsTask, limit: int) -> None:
    """Keep at most ``limit`` rows to judge in place; of a search task, that many documents and the queries they answer.

    A search among fewer documents is easier: such a score compares models with each other, with nothing published.

    Raises:
        UserError: Not even one query's documents fit.
    """
    if isinstance(task, AbsTaskRetrieval):
        for splits in task.dataset.values():
            for split, data in splits.items():
                splits[split] = _fewer_documents(task, data, limit)
        return
    if isinstance(task, AbsTaskClustering):  # most take 4 % of their rows: of the rest that would be a handful
        task.max_fraction_of_documents_to_embed, task.max_document_to_embed = None, limit
        return
    _fewer_rows(task.dataset, set(task.eval_splits), limit)


def _fewer_rows(data: Any, splits: set[str], limit: int) -> None:
    for key, value in data.items():
        if not isinstance(value, Dataset):  # a subset, with splits of its own
            _fewer_rows(value, splits, limit)
        elif key in splits:
            nested = len(value) == 1 and all(isinstance(column, list) for column in value[0].values())
            rows = Dataset.from_dict(value[0]) if nested else value  # older data sets have all rows in one
            data[key] = rows.shuffle(seed=_SEED).select(range(min(limit, len(rows))))


def _fewer_documents(task: AbsTask, data: dict[str, Any], limit: int) -> dict[str, Any]:
    """Queries in random order with all that is judged or to be ranked for them, then other documents up to the limit."""
    rng = random.Random(_SEED)
    relevant, candidates = data["relevant_docs"], data["top_ranked"] or {}
    kept: set[str] = set()
    answered = []
    for query in rng.sample(sorted(relevant), len(relevant)):
        needed = {*relevant[query], *candidates.get(query, [])} - kept
        if len(kept) + len(needed) <= limit:
            kept |= needed
            answered.append(query)
        if len(kept) == limit:
            break
    if not answered:
        least = min(len({*relevant[query], *candidates.get(query, [])}) for query in relevant)
        raise UserError(
            f"--max-docs {limit} is too few for {task.metadata.name}: a query of it comes with {least} documents or more."
        )
    ids = list(data["corpus"]["id"])
    if not candidates:
        others = [name for name in ids if name not in kept]
        kept |= set(rng.sample(others, min(len(others), limit - len(kept))))
    wanted = set(answered)
    return {
        "corpus": data["corpus"].select([place for place, name in enumerate(ids) if name in kept]),
        "queries": data["queries"].select([i for i, name in enumerate(data["queries"]["id"]) if name in wanted]),
        "relevant_docs": {query: relevant[query] for query in answered},
        "top_ranked": {query: candidates[query] for query in answered} if candidates else None,
    }
