"""Select tasks: tasks of mteb, from the hub or a local mirror, and a user's own folders."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import mteb
from mteb.abstasks import AbsTask

from text2token.evaluation.folder_task import folder_task
from text2token.evaluation.results import BENCHMARK
from text2token.evaluation.task_data import check_task
from text2token.evaluation.task_support import check_supported
from text2token.utils.errors import UserError
from text2token.utils.files import local_path


@dataclass(frozen=True)
class Selection:
    """The tasks of an evaluation.

    Attributes:
        tasks: The tasks in order; those of a local mirror are read from there.
        skipped: Task → reason, for tasks that were asked for and are not available.
        benchmark: The names of all tasks of the benchmark, so that a mean over fewer tasks can say so.
    """

    tasks: list[AbsTask]
    skipped: dict[str, str]
    benchmark: frozenset[str]


def select_tasks(
    *,
    data_root: str | Path | None = None,
    folders: Sequence[str | Path] = (),
    names: Sequence[str] = (),
    types: Sequence[str] = (),
    strict: bool = False,
) -> Selection:
    """Select tasks; without arguments, those of MTEB(eng, v2).

    Args:
        data_root: A local mirror with one folder per data set, named after the last part of its hub path; None: the hub.
        folders: A user's own tasks, see :func:`text2token.evaluation.folder_task.folder_task`. Without ``data_root`` and
            ``names``, only these are selected.
        names: Tasks that mteb knows, in the benchmark or not.
        types: Keep only tasks of these types, for example ``STS`` or ``Retrieval``.
        strict: Refuse rows without text in ``folders`` instead of skipping them.

    Raises:
        UserError: mteb does not know a name or type, a named task cannot be scored with an interval, or the mirror does not
            exist or has none of the tasks.
    """
    data_root = None if data_root is None else local_path(data_root)
    if data_root is not None and not data_root.is_dir():
        raise UserError(f"There is no folder '{data_root}': `data_root` is a mirror with one folder per data set.")
    benchmark = _benchmark()
    own = [folder_task(local_path(folder), strict=strict) for folder in folders]
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
    """The names of the tasks of MTEB(eng, v2)."""
    return frozenset(task.metadata.name for task in mteb.get_benchmark(BENCHMARK).tasks)


def _benchmark() -> list[AbsTask]:
    return copy.deepcopy(list(mteb.get_benchmark(BENCHMARK).tasks))  # mteb returns the same objects to every caller


def _folder_name(task: AbsTask) -> str:
    return Path(task.metadata.dataset["path"]).name


def _localise(task: AbsTask, root: Path) -> bool:
    """Let a task read its folder in the mirror, ``root/owner/name`` or ``root/name``; False: there is none."""
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
    check_supported(task)
    return task


def _check_names(asked: list[AbsTask], own: list[AbsTask]) -> None:
    """Names must be unique, because results are stored by name."""
    names = [task.metadata.name for task in (*asked, *own)]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise UserError(f"Two tasks are named '{twice[0]}': rename the folder of one of them.")
    for task in own:
        if task.metadata.name in benchmark_names():
            raise UserError(
                f"Your folder '{task.metadata.name}' has the name of a task of {BENCHMARK}, so its score would be mistaken for "
                "the score of that task: rename it."
            )


def _check_types(types: Sequence[str], tasks: list[AbsTask]) -> None:
    available = sorted({task.metadata.type for task in tasks})
    for name in types:
        if name not in available:
            raise UserError(f"No task has the type '{name}': choose from {', '.join(available)}.")
