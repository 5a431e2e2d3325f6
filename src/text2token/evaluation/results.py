"""A folder of results: one file per task, and the summary of all that is finished."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.files import read_json, write_json

SUMMARY = "summary.json"
BENCHMARK = "MTEB(eng, v2)"

_KEPT = (
    "task",
    "type",
    "main_score",
    "score",
    "interval",
    "unit",
    "items",
    "max_docs",
    "texts_per_second",
    "data",
    "versions",
)


def summarise(output: Path, skipped: dict[str, str], benchmark: frozenset[str]) -> dict[str, Any]:
    """Write all finished tasks of a folder as one file, with means by type and over all, in points."""
    rows = [json.loads(file.read_text()) for file in sorted((output / "tasks").glob("*.json"))]
    by_type: dict[str, list[float]] = {}
    for row in rows:
        by_type.setdefault(row["type"], []).append(100 * row["score"])
    means = {kind: sum(scores) / len(scores) for kind, scores in sorted(by_type.items())}
    owner = json.loads((output / "model.json").read_text())
    summary = {
        **owner,
        **provenance.record(),
        "tasks": [{key: row[key] for key in _KEPT} for row in rows],
        "skipped": skipped,
        "mean_by_type": means,
        "mean_over_types": _mean(list(means.values())),
        "mean_over_tasks": _mean([100 * row["score"] for row in rows]),
        "coverage": coverage([row["task"] for row in rows], benchmark, owner["max_docs"]),
        "peak_rss_gib": max((row["peak_rss_gib"] for row in rows), default=None),
    }
    write_json(output / SUMMARY, summary)
    return summary


def read_summary(folder: Path) -> dict[str, Any]:
    """What :func:`summarise` wrote.

    Raises:
        UserError: There is none.
    """
    file = folder / SUMMARY
    if not file.is_file():
        raise UserError(f"'{folder}' holds no finished results: name folders that 'text2token evaluate' wrote.")
    found = read_json(file)
    if not isinstance(found, dict) or not {"tasks", "model"} <= found.keys():
        raise UserError(f"'{file}' is not a summary of 'text2token evaluate': name a folder that it wrote.")
    return found


def coverage(names: list[str], benchmark: frozenset[str], max_docs: int | None) -> str:
    """What a mean over these tasks is over: a reader must not take a part for the benchmark."""
    inside = len(benchmark.intersection(names))
    cut = f", cut down to {max_docs} texts each" if max_docs else ""
    if inside == len(names):
        return f"mean over {inside} of {len(benchmark)} tasks of {BENCHMARK}{cut}"
    return f"mean over {len(names)} tasks, {inside} of them among the {len(benchmark)} of {BENCHMARK}{cut}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
