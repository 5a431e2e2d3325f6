"""Compare results: scores, means, and paired differences to the first model, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from text2token.evaluation.items import Floats, Items, percentile_interval
from text2token.evaluation.results import coverage, read_summary
from text2token.evaluation.tasks import benchmark_names
from text2token.utils.errors import UserError
from text2token.utils.files import local_path

_FEWEST_ITEMS = 10  # of a task; draws of fewer hardly differ

TaskResult = dict[str, Any]
"""The row of a task in a summary, and the ``folder`` that it was read from."""


@dataclass(frozen=True)
class Difference:
    """The score of the first model minus the score of another, with its 95 % interval over paired draws.

    Attributes:
        clear: The interval excludes zero. Never true for clustering alone, whose interval covers runs or few sets of texts, nor
            where a task has fewer than 10 items: draws of so few hardly differ.
    """

    value: float
    low: float
    high: float
    clear: bool


@dataclass(frozen=True)
class Row:
    """A task, or a mean over tasks. Scores are between 0 and 1.

    Attributes:
        label: The name of the task, or the tasks that the mean covers.
        type: The type of the task; empty for a mean.
        items: Number of items of the task, as queries or pairs; 0 for a mean.
        scores: Column → score; columns without the task are left out.
        intervals: Column → 95 % interval; for measured tasks only.
        differences: Column → first column minus this one; for measured columns only.
    """

    label: str
    type: str
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    items: int = 0

    @property
    def best(self) -> float | None:
        """The highest score."""
        return max(self.scores.values(), default=None)


@dataclass(frozen=True)
class Comparison:
    """The result of :func:`compare`.

    Attributes:
        measured: Columns from folders of results; the others are subtracted from the first.
        published: Columns of published scores, which were not measured here.
        tasks: All tasks that any of the folders has.
        means: Means by type, over types and over tasks, for the columns that have all tasks of the mean.
        notes: Sentences that a reader of the means must know.
    """

    measured: list[str]
    published: list[str]
    tasks: list[Row]
    means: list[Row]
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values."""
        return asdict(self)


def compare(folders: Sequence[str | Path], published: Mapping[str, Mapping[str, float]] | None = None) -> Comparison:
    """Compare folders of results that :func:`text2token.evaluation.evaluate` wrote.

    Args:
        folders: One or more; differences are to the first. A column is named after its model, and also after its folder where
            two models have the same name.
        published: Model → task → score between 0 and 1, for columns that are marked as published.

    Raises:
        UserError: A folder has no results, or a task was evaluated on different data.
    """
    results = _by_column([local_path(folder) for folder in folders])
    measured = list(results)
    names = list(dict.fromkeys(name for rows in results.values() for name in rows))
    if not names:
        raise UserError("None of the results has a finished task, so there is nothing to compare.")
    uncut = {name for rows in results.values() for name, row in rows.items() if not row["max_docs"]}
    known = {f"{name} (published)": scores for name, scores in (published or {}).items() if scores.keys() & uncut}
    tasks, draws = [], []
    for seed, name in enumerate(names):
        rows = {column: finished[name] for column, finished in results.items() if name in finished}
        _check_same_data(name, rows)
        draws.append(_differences(name, rows, measured[0], seed))
        tasks.append(_row(name, rows, known, draws[-1]))
    notes = _notes(tasks, known, [row for rows in results.values() for row in rows.values()])
    columns = [*(column for column, finished in results.items() if finished), *known]
    return Comparison(measured, list(known), tasks, _means(tasks, draws, columns, measured[0]), notes)


def _by_column(folders: Sequence[Path]) -> dict[str, dict[str, TaskResult]]:
    """Column → task → result."""
    summaries = [(folder, read_summary(folder)) for folder in folders]
    models = [summary["model"] for _, summary in summaries]
    columns: dict[str, dict[str, TaskResult]] = {}
    for folder, summary in summaries:
        name = summary["model"]
        name = name if models.count(name) == 1 else f"{name} ({folder.resolve().name})"
        if name in columns:
            raise UserError(f"Two results are named '{name}': rename the folder '{folder}', or name it only once.")
        columns[name] = {row["task"]: {**row, "folder": folder} for row in summary["tasks"]}
    return columns


def _check_same_data(task: str, rows: dict[str, TaskResult]) -> None:
    kinds = {(row["data"], row["max_docs"], *row["versions"].items()) for row in rows.values()}
    if len(kinds) > 1:
        raise UserError(
            f"The task {task} was evaluated on different data, with different `max_docs` or by different versions of mteb "
            f"for {', '.join(rows)}: evaluate it again."
        )


def _row(
    name: str,
    rows: dict[str, TaskResult],
    published: Mapping[str, Mapping[str, float]],
    draws: dict[str, Floats],
) -> Row:
    column, first = next(iter(rows.items()))
    enough_items = first["type"] != "Clustering" and first["items"] >= _FEWEST_ITEMS
    scores = {column: row["score"] for column, row in rows.items()}
    if not first["max_docs"]:
        scores |= {column: known[name] for column, known in published.items() if name in known}
    return Row(
        label=name,
        type=first["type"],
        scores=scores,
        intervals={column: tuple(row["interval"]) for column, row in rows.items()},
        differences={
            other: _difference(scores[column] - scores[other], drawn, enough_items=enough_items)
            for other, drawn in draws.items()
        },
        items=first["items"],
    )


def _differences(name: str, rows: dict[str, TaskResult], first: str, seed: int) -> dict[str, Floats]:
    """Draws of the first column minus each other column."""
    if first not in rows:
        return {}
    items = {column: Items.load(row["folder"] / "items" / f"{name}.npz") for column, row in rows.items()}
    reference = items.pop(first)
    for column, other in items.items():
        if not reference.matches(other):
            raise UserError(f"{first} and {column} have different items of {name}: evaluate one of them again.")
    draws = reference.draws(seed)
    return {column: draws - other.draws(seed) for column, other in items.items()}


def _means(tasks: list[Row], draws: list[dict[str, Floats]], columns: list[str], first: str) -> list[Row]:
    """Means by type, over types and over tasks."""
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
    common = [place for place, row in enumerate(tasks) if row.scores.keys() == set(columns)]
    if 0 < len(common) < len(tasks):
        groups[f"mean over the {len(common)} that all have"] = dict.fromkeys(common, 1 / len(common))
    groups[f"mean over {len(tasks)} task{'s' * (len(tasks) > 1)}"] = dict.fromkeys(range(len(tasks)), 1 / len(tasks))
    return [_mean(label, weights, tasks, draws, columns, first) for label, weights in groups.items()]


def _mean(
    label: str,
    weights: dict[int, float],
    tasks: list[Row],
    draws: list[dict[str, Floats]],
    columns: list[str],
    first: str,
) -> Row:
    """A weighted mean, for the columns that have all its tasks."""
    scores = {
        column: sum(share * tasks[place].scores[column] for place, share in weights.items())
        for column in columns
        if all(column in tasks[place].scores for place in weights)
    }
    differences = {}
    for column in scores:
        if all(column in draws[place] for place in weights):
            drawn = np.sum([share * draws[place][column] for place, share in weights.items()], axis=0)
            counted = [tasks[place].items for place in weights if tasks[place].type != "Clustering"]
            enough_items = min(counted, default=0) >= _FEWEST_ITEMS
            differences[column] = _difference(scores[first] - scores[column], drawn, enough_items=enough_items)
    return Row(label=label, type="", scores=scores, differences=differences)


def _difference(value: float, draws: Floats, *, enough_items: bool) -> Difference:
    """A difference; with ``enough_items``, its draws show how much another sample of items would change it."""
    low, high = percentile_interval(draws)
    return Difference(value, low, high, enough_items and (low > 0 or high < 0))


def _notes(tasks: list[Row], published: Mapping[str, Any], finished: list[TaskResult]) -> list[str]:
    covers = coverage([row.label for row in tasks], benchmark_names(), None)
    notes = [f"The last row is the {covers}."]
    if len({frozenset(row.scores) for row in tasks}) > 1:
        notes.append("A mean is shown for models that have all its tasks.")
    if cut := {row["max_docs"] for row in finished if row["max_docs"]}:
        notes.append(f"Tasks are cut down to {max(cut)} texts, so these scores can only be compared with each other.")
    if few := [row.label for row in tasks if row.type != "Clustering" and row.items < _FEWEST_ITEMS]:
        notes.append(f"No difference is called clear with fewer than {_FEWEST_ITEMS} items, as in {', '.join(few)}.")
    if published:
        notes.append("Published scores were not measured here: machines, settings and copies of the data may differ.")
    return notes
