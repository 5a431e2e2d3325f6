"""Cut a task down to a number of texts, for a quick look."""

from __future__ import annotations

import random
from typing import Any

from datasets import Dataset
from mteb.abstasks import AbsTask, AbsTaskRetrieval

_SEED = 0


def keep_documents(task: AbsTask, limit: int) -> None:
    """Keep at most ``limit`` rows to judge in place; of a search task, that many documents and the queries they answer.

    A search among fewer documents is easier: such a score compares models with each other, with nothing published.
    """
    if isinstance(task, AbsTaskRetrieval):
        for splits in task.dataset.values():
            for split, data in splits.items():
                splits[split] = _fewer_documents(data, limit)
    else:
        _fewer_rows(task.dataset, set(task.eval_splits), limit)


def _fewer_rows(data: Any, splits: set[str], limit: int) -> None:
    for key, value in data.items():
        if not isinstance(value, Dataset):  # a subset, with splits of its own
            _fewer_rows(value, splits, limit)
        elif key in splits:
            data[key] = value.shuffle(seed=_SEED).select(range(min(limit, len(value))))


def _fewer_documents(data: dict[str, Any], limit: int) -> dict[str, Any]:
    """Queries in random order with all that is judged or to be ranked for them, then other documents up to the limit."""
    rng = random.Random(_SEED)
    relevant, candidates = data["relevant_docs"], data["top_ranked"] or {}
    kept: dict[str, None] = {}
    answered = []
    for query in rng.sample(sorted(relevant), len(relevant)):
        needed = [*relevant[query], *candidates.get(query, [])]
        if len(kept.keys() | set(needed)) <= limit:
            kept |= dict.fromkeys(needed)
            answered.append(query)
    ids = list(data["corpus"]["id"])
    if not candidates:
        for document in rng.sample(ids, len(ids)):
            if len(kept) >= limit:
                break
            kept[document] = None
    wanted = set(answered)
    return {
        "corpus": data["corpus"].select([place for place, name in enumerate(ids) if name in kept]),
        "queries": data["queries"].filter(lambda row: row["id"] in wanted),
        "relevant_docs": {query: relevant[query] for query in answered},
        "top_ranked": {query: candidates[query] for query in answered} if candidates else None,
    }
