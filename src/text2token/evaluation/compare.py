"""Results side by side: scores, means, and paired differences to the first model, with intervals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from text2token.errors import UserError
from text2token.evaluation.items import Floats, Items, middle
from text2token.evaluation.judge import SUMMARY


@dataclass(frozen=True)
class Difference:
    """The first model's score minus another's, in points, with its 95 % interval over paired draws."""

    points: float
    low: float
    high: float

    @property
    def clear(self) -> bool:
        """Does the interval leave out zero?"""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Row:
    """A task, or a mean over tasks.

    Attributes:
        label: Name of the task, or what the mean is over.
        type: Of the task; empty for a mean.
        scores: Column → points; a column without the task is left out.
        intervals: Column → 95 % interval; of measured tasks only.
        differences: Column → the first column minus this one; of measured columns only.
    """

    label: str
    type: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)

    @property
    def best(self) -> float | None:
        """The highest score."""
        return max(self.scores.values(), default=None)


@dataclass(frozen=True)
class Comparison:
    """What :func:`compare` found.

    Attributes:
        measured: Columns from results folders; the first is the one that others are subtracted from.
        published: Columns from a file of published scores, not measured here.
        tasks: All tasks that any of the folders has.
        means: By type, over types and over tasks; of the columns that have all tasks of the mean.
        notes: What a reader must know of the means.
    """

    measured: list[str]
    published: list[str]
    tasks: list[Row]
    means: list[Row]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """All of it as plain values."""
        return asdict(self)


def compare(folders: Sequence[Path], published: dict[str, dict[str, float]] | None = None) -> Comparison:
    """Put results folders of :func:`text2token.evaluation.judge.evaluate` side by side.

    Args:
        folders: At least one; differences are to the first.
        published: Model → task → score in points, for columns marked as published.

    Raises:
        UserError: A folder has no results, two have the same name, or one task was run on different data.
    """
    published = published or {}
    summaries = {}
    for folder in folders:
        summary = _read(folder)
        if summary["name"] in summaries:
            raise UserError(f"Two of the results are of a model named '{summary['name']}': compare one of them.")
        summaries[summary["name"]] = (folder, {row["task"]: row for row in summary["tasks"]})
    measured = list(summaries)
    names = list(dict.fromkeys(task for _, rows in summaries.values() for task in rows))
    draws: dict[str, dict[str, Floats]] = {}
    tasks = []
    for seed, name in enumerate(names):
        found = {column: (folder, rows[name]) for column, (folder, rows) in summaries.items() if name in rows}
        _check_same_data(name, {column: row for column, (_, row) in found.items()})
        draws[name] = _differences(name, measured[0], found, seed)
        row = next(iter(found.values()))[1]
        tasks.append(
            Row(
                label=name + (f", {row['max_docs']} texts" if row["max_docs"] else ""),
                type=row["type"],
                scores={column: 100 * row["score"] for column, (_, row) in found.items()}
                | {column: known[name] for column, known in published.items() if name in known and not row["max_docs"]},
                intervals={column: _points(row["interval"]) for column, (_, row) in found.items()},
                differences={
                    column: _difference(100 * found[measured[0]][1]["score"] - 100 * found[column][1]["score"], values)
                    for column, values in draws[name].items()
                },
            )
        )
    return Comparison(
        measured, list(published), tasks, _means(tasks, list(draws.values()), measured[0]), _notes(tasks, published)
    )


def _read(folder: Path) -> dict[str, Any]:
    file = folder / SUMMARY
    if not file.is_file():
        raise UserError(f"'{folder}' holds no finished results: name folders that 'text2token evaluate' wrote.")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def _check_same_data(task: str, rows: dict[str, dict[str, Any]]) -> None:
    kinds = {(row["data"], row["max_docs"]) for row in rows.values()}
    if len(kinds) > 1:
        raise UserError(f"The task {task} was run on different data or --max-docs by {', '.join(rows)}: run it again.")


def _differences(name: str, first: str, found: dict[str, tuple[Path, Any]], seed: int) -> dict[str, Floats]:
    """Draws of the first column minus each other."""
    if first not in found:
        return {}
    items = {column: Items.load(folder / "items" / f"{name}.npz") for column, (folder, _) in found.items()}
    reference = items.pop(first)
    return {column: 100 * reference.differences(other, seed) for column, other in items.items()}


def _means(tasks: list[Row], draws: list[dict[str, Floats]], first: str) -> list[Row]:
    """By type, over types and over tasks."""
    by_type: dict[str, list[int]] = {}
    for place, row in enumerate(tasks):
        by_type.setdefault(row.type, []).append(place)
    groups = {
        f"{kind}, {len(places)} task{'s' * (len(places) > 1)}": dict.fromkeys(places, 1 / len(places))
        for kind, places in by_type.items()
    }
    if len(by_type) > 1:
        each = {kind: 1 / len(by_type) / len(places) for kind, places in by_type.items()}
        groups[f"mean over {len(by_type)} types"] = {place: each[row.type] for place, row in enumerate(tasks)}
    groups[f"mean over {len(tasks)} tasks"] = dict.fromkeys(range(len(tasks)), 1 / len(tasks))
    return [_mean(label, weights, tasks, draws, first) for label, weights in groups.items()]


def _mean(label: str, weights: dict[int, float], tasks: list[Row], draws: list[dict[str, Floats]], first: str) -> Row:
    """A weighted mean, of the columns that have all its tasks."""
    columns = list(set.intersection(*(set(tasks[place].scores) for place in weights)))
    scores = {name: sum(share * tasks[place].scores[name] for place, share in weights.items()) for name in columns}
    others = [name for name in columns if all(name in draws[place] for place in weights)]
    differences = {
        name: _difference(
            scores[first] - scores[name],
            np.sum([share * draws[place][name] for place, share in weights.items()], axis=0),
        )
        for name in others
    }
    return Row(label=label, type="", scores=scores, differences=differences)


def _difference(points: float, draws: Floats) -> Difference:
    return Difference(points, *middle(draws))


def _points(interval: Sequence[float]) -> tuple[float, float]:
    return 100 * interval[0], 100 * interval[1]


def _notes(tasks: list[Row], published: dict[str, Any]) -> list[str]:
    notes = []
    if len({frozenset(row.scores) for row in tasks}) > 1:
        notes.append("A mean is shown for models that have all its tasks.")
    if published:
        notes.append("Published scores were not measured here: other machines, settings and copies of the data.")
    return notes
