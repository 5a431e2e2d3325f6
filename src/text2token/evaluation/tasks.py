"""Which tasks: those of a benchmark, from the hub or a local mirror, and folders of the user's own."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mteb
from mteb.abstasks import AbsTask

from text2token.evaluation.folder_task import folder_task
from text2token.evaluation.items import measurable
from text2token.evaluation.results import BENCHMARK
from text2token.evaluation.task_data import check_task
from text2token.utils.errors import UserError


@dataclass(frozen=True)
class Selection:
    """What will be evaluated.

    Attributes:
        tasks: To run, in order; those of a local mirror read from there.
        skipped: Name → reason, of tasks that were asked for and cannot be had.
        benchmark: Names of all tasks of the benchmark; a mean over fewer says so.
    """

    tasks: list[AbsTask]
    skipped: dict[str, str]
    benchmark: frozenset[str]


def select_tasks(
    *,
    data_root: Path | None = None,
    folders: Sequence[Path] = (),
    names: Sequence[str] = (),
    types: Sequence[str] = (),
) -> Selection:
    """The tasks of MTEB(eng, v2), or those asked for.

    Args:
        data_root: Local mirror, one folder per data set, named by the last part of its hub path; None: the hub.
        folders: A user's own tasks, see :func:`text2token.evaluation.folder_task.folder_task`. With nothing else asked for,
            only these run.
        names: Any tasks that mteb knows, in the benchmark or not.
        types: Keep only tasks of these types, ``STS`` or ``Retrieval`` for example.

    Raises:
        UserError: A name or type that mteb does not know, a mirror that is not there or has none of the tasks.
    """
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"There is no folder '{data_root}': --data-root names a mirror with one folder per data set.")
    benchmark = _benchmark()
    own = [folder_task(folder) for folder in folders]
    for task in own:
        check_task(task)
    asked: list[AbsTask] = []
    if names:
        asked = _by_name(names, benchmark)
    elif data_root is not None or not own:
        asked = benchmark
    _check_types(types, [*asked, *own])
    _check_names(asked, own)
    wanted = [task for task in [*asked, *own] if not types or task.metadata.type in types]
    skipped = {}
    tasks = []
    for task in wanted:
        if data_root is not None and task not in own and not _localise(task, data_root):
            skipped[task.metadata.name] = f"not in {data_root}"
        else:
            tasks.append(task)
    if not tasks:
        raise UserError(
            f"None of the {len(wanted)} tasks is in '{data_root}': it needs folders such as '{_folder_name(wanted[0])}'."
        )
    return Selection(tasks, skipped, benchmark_names())


def benchmark_names() -> frozenset[str]:
    """Names of the tasks of MTEB(eng, v2)."""
    return frozenset(task.metadata.name for task in mteb.get_benchmark(BENCHMARK).tasks)


def _benchmark() -> list[AbsTask]:
    return copy.deepcopy(list(mteb.get_benchmark(BENCHMARK).tasks))  # mteb hands out the same objects to all


def _folder_name(task: AbsTask) -> str:
    return Path(task.metadata.dataset["path"]).name


def _localise(task: AbsTask, root: Path) -> bool:
    """Point a task to its folder in the mirror, if it is there: ``root/owner/name`` or ``root/name``."""
    hub_path = task.metadata.dataset["path"]
    for folder in (root / hub_path, root / _folder_name(task)):
        if folder.is_dir():
            dataset = {**task.metadata.dataset, "path": str(folder)}
            task.metadata = task.metadata.model_copy(update={"dataset": dataset})
            return True
    return False


def _by_name(names: Iterable[str], benchmark: list[AbsTask]) -> list[AbsTask]:
    ours = {task.metadata.name: task for task in benchmark}
    return [ours[name] if name in ours else _any_task(name, list(ours)) for name in dict.fromkeys(names)]


def _any_task(name: str, first: list[str]) -> AbsTask:
    try:
        task = mteb.get_task(name)
    except KeyError as error:
        known = [task.metadata.name for task in mteb.get_tasks()]
        near = difflib.get_close_matches(name, first, 1) or difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'?" if near else "see mteb.get_tasks()."
        raise UserError(f"mteb knows no task '{name}': {hint}") from error
    if not measurable(task):
        kind = f"{task.metadata.type}, {task.metadata.main_score}"
        raise UserError(f"The task {name} cannot be run here: no interval is known for its score ({kind}).")
    return task


def _check_names(asked: list[AbsTask], own: list[AbsTask]) -> None:
    """Results are kept by name, and those of the benchmark are known by it."""
    names = [task.metadata.name for task in (*asked, *own)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"Two tasks are named '{twice[0]}': rename the folder of one of them.")
    for task in own:
        if task.metadata.name in benchmark_names():
            raise UserError(
                f"Your folder '{task.metadata.name}' is named as a task of {BENCHMARK}, for which its score would be taken: "
                "rename it."
            )


def _check_types(types: Sequence[str], tasks: list[AbsTask]) -> None:
    there = sorted({task.metadata.type for task in tasks})
    for name in types:
        if name not in there:
            raise UserError(f"No task is of type '{name}': choose from {', '.join(there)}.")
