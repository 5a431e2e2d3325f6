"""A folder of results: one file per task, and a summary of all finished tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.files import local_path, read_json, write_json

SUMMARY = "summary.json"
BENCHMARK = "MTEB(eng, v2)"

_VERSION = 2  # since version 2 the means are between 0 and 1, as scores always were; before they were × 100
_MEANS = ("mean_over_types", "mean_over_tasks")
_OWNER_FIELDS = ("model", "precision", "revision", "max_docs", "instructions")
_TASK_FIELDS = (
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
    """Write ``summary.json``: all finished tasks of a folder, with means by type, over types and over tasks.

    Scores, intervals and means are between 0 and 1.
    """
    rows = [read_json(file) for file in sorted((output / "tasks").glob("*.json"))]
    by_type: dict[str, list[float]] = {}
    for row in rows:
        by_type.setdefault(row["type"], []).append(row["score"])
    means = {kind: sum(scores) / len(scores) for kind, scores in sorted(by_type.items())}
    owner = read_json(output / "model.json")
    summary = {
        "version": _VERSION,
        **{field: owner[field] for field in _OWNER_FIELDS},
        **provenance.record(),
        "tasks": [{field: row[field] for field in _TASK_FIELDS} for row in rows],
        "skipped": skipped,
        "mean_by_type": means,
        "mean_over_types": _mean(list(means.values())),
        "mean_over_tasks": _mean([row["score"] for row in rows]),
        "coverage": coverage([row["task"] for row in rows], benchmark, owner["max_docs"]),
        "peak_rss_gib": max((row["peak_rss_gib"] for row in rows), default=None),
    }
    write_json(output / SUMMARY, summary)
    return summary


def read_summary(folder: str | Path) -> dict[str, Any]:
    """Read a summary that :func:`summarise` wrote; one of an earlier version is converted.

    Raises:
        UserError: The folder has none.
    """
    file = local_path(folder) / SUMMARY
    if not file.is_file():
        raise UserError(f"'{folder}' holds no finished results: name folders that 'text2token evaluate' wrote.")
    found = read_json(file)
    if not isinstance(found, dict) or not {"tasks", "model"} <= found.keys():
        raise UserError(f"'{file}' is not a summary of 'text2token evaluate': name a folder that it wrote.")
    if "version" not in found:
        found["mean_by_type"] = {kind: mean / 100 for kind, mean in found["mean_by_type"].items()}
        found |= {name: found[name] / 100 for name in _MEANS if found[name] is not None}
        found["version"] = _VERSION
    return found


def read_published(file: str | Path, models: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Read published scores: JSON of model → task → score × 100, as leaderboards print it.

    Args:
        file: The file. ``__`` in the name of a model stands for ``/``.
        models: Names to keep, with or without their owner; empty: all.

    Returns:
        Model → task → score between 0 and 1.

    Raises:
        UserError: The file cannot be read, or does not have one of the models.
    """
    try:
        content = TypeAdapter(dict[str, dict[str, float]]).validate_json(local_path(file).read_bytes())
    except (OSError, ValidationError) as error:
        raise UserError(
            f"Cannot read published scores from '{file}': expected JSON of the form {{model: {{task: score × 100}}}}."
        ) from error
    found = {
        name.replace("__", "/"): {task: score / 100 for task, score in scores.items()}
        for name, scores in content.items()
    }
    if not models:
        return found
    names = {alias: name for name in found for alias in (name.rpartition("/")[2], name.replace("/", "__"), name)}
    for name in models:
        if name not in names:
            raise UserError(f"'{file}' has no model '{name}': it has {', '.join(sorted(found)[:8])} …")
    return {names[name]: found[names[name]] for name in models}


def coverage(names: Sequence[str], benchmark: frozenset[str], max_docs: int | None) -> str:
    """Says which tasks a mean covers, so that readers do not take a part for the benchmark."""
    inside = len(benchmark.intersection(names))
    tasks = f"{len(names)} task{'' if len(names) == 1 else 's'}"
    cut = f", cut down to {max_docs} texts each" if max_docs else ""
    if inside == len(names):
        return f"mean over {inside} of {len(benchmark)} tasks of {BENCHMARK}{cut}"
    return f"mean over {tasks}, {inside} of them among the {len(benchmark)} of {BENCHMARK}{cut}"


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
