"""Evaluate a model task by task: scores, intervals and costs. A run that stops can be repeated to continue."""

from __future__ import annotations

import copy
import math
import random
import time
import uuid
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks import AbsTask

from text2token.evaluation.encoders import Session
from text2token.evaluation.evaluated_model import EvaluatedModel
from text2token.evaluation.items import Items
from text2token.evaluation.results import summarise
from text2token.evaluation.task_data import data_checksum, load_task, local_folder
from text2token.evaluation.task_items import task_items
from text2token.evaluation.task_subset import keep_documents
from text2token.evaluation.tasks import Selection
from text2token.evaluation.vector_store import VectorStore, hash_key
from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.files import local_path, output_lock, read_json, write_json
from text2token.utils.places import check_outside
from text2token.utils.progress import track

_ROUNDING = 1e-4  # mteb rounds search scores to five places
_OWNER = "model.json"
_TEMPORARY = ".vectors.sqlite"  # hidden: a user can keep vectors under any other name


def evaluate(
    model: EvaluatedModel,
    selection: Selection,
    output: str | Path,
    *,
    max_docs: int | None = None,
    instructions: bool = False,
    vectors: str | Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Evaluate a model on the tasks that ``output`` does not hold yet.

    ``output/tasks/NAME.json`` holds the scores of a task with their interval, cost and data checksum.
    ``output/items/NAME.npz`` holds what :mod:`text2token.evaluation.items` needs for paired comparisons.
    ``output/summary.json`` sums up all finished tasks. Scores and means are between 0 and 1.

    Args:
        model: The model.
        selection: The tasks.
        output: A new folder, or one that holds results of the same model under the same settings.
        max_docs: Cut every task down to so many texts, for a quick look. The results are marked.
        instructions: Use the instruction of the benchmark where the model has no prompt for a task. Off by default: a model
            that was trained without instructions, like ours, reads them as part of the text.
        vectors: An SQLite file that keeps the vectors after the evaluation. Other evaluations with the same encoder read them
            from there, for example those that differ in the correction alone.
        progress: Show bars.

    Returns:
        The summary.

    Raises:
        UserError: ``output`` holds results of another model, the data of a task is incomplete, or the model returns no
            usable vectors.
    """
    owner: dict[str, Any] = {"model": model.name, "precision": model.precision, "revision": model.revision}
    owner |= {"max_docs": max_docs, "instructions": instructions}
    output, vectors = local_path(output), None if vectors is None else local_path(vectors)
    check_outside(output, *filter(None, map(local_folder, selection.tasks)))
    with output_lock(output):
        return _evaluate(model, selection, output, owner, vectors, progress=progress)


def _evaluate(
    model: EvaluatedModel,
    selection: Selection,
    output: Path,
    owner: dict[str, Any],
    vectors: Path | None,
    *,
    progress: bool,
) -> dict[str, Any]:
    identifier = _claim_folder(output, owner)
    types = model.task_types
    possible = [task for task in selection.tasks if types is None or task.metadata.type in types]
    others = sorted({task.metadata.name for task in selection.tasks} - {task.metadata.name for task in possible})
    skipped = {**selection.skipped, **dict.fromkeys(others, f"{model.name} only ranks documents")}
    todo = [task for task in possible if not _is_finished(task, output)]
    for task in todo:
        if local_folder(task) and not task.data_loaded:  # so that a mistake in local data is found now, not in hours
            load_task(copy.deepcopy(task))
    if todo:
        if vectors is not None:
            vectors.parent.mkdir(parents=True, exist_ok=True)
        session = Session(VectorStore(vectors or output / _TEMPORARY), owner["instructions"], progress)
        prepared = model.prepare(session)
        for task in track(todo, "Tasks", unit="tasks", enabled=progress):
            session.account = hash_key(identifier, task.metadata.name, data_checksum(task))
            _run_task(copy.deepcopy(task), prepared, session, output, owner["max_docs"])
            summarise(output, skipped, selection.benchmark)
        session.store.close()
    if vectors is None:
        for ending in ("", "-wal", "-shm"):  # of SQLite; a process that was killed here leaves all three
            (output / (_TEMPORARY + ending)).unlink(missing_ok=True)
    return summarise(output, skipped, selection.benchmark)


def _claim_folder(output: Path, owner: dict[str, Any]) -> str:
    """Reserve a folder for the results of one model under one setting; renaming the folder of the model does not matter.

    Returns:
        An identifier of the evaluation, which its restarts share.
    """
    file = output / _OWNER
    before: dict[str, Any] = {}
    different: list[str] = []
    if file.is_file():
        before = read_json(file)
        different = [name for name in owner if name != "model" and before.get(name, owner[name]) != owner[name]]
        if different and any((output / "tasks").glob("*.json")):
            what = different[0].replace("revision", "model")
            raise UserError(f"'{output}' holds results of another {what}: choose another `output`.")
    elif output.exists() and any(path.name != f"{_OWNER}.part" for path in output.iterdir()):
        raise UserError(f"The folder '{output}' holds something other than results: choose another `output`.")
    identifier: str = (not different and before.get("evaluation")) or uuid.uuid4().hex
    output.mkdir(parents=True, exist_ok=True)
    write_json(file, {**owner, "evaluation": identifier})  # first, so that the folder is known when it is not empty
    for part in ("tasks", "items"):
        (output / part).mkdir(exist_ok=True)
    return identifier


def _is_finished(task: AbsTask, output: Path) -> bool:
    """Is there a result for the same data, by the same versions of the libraries that scores depend on?"""
    file = output / "tasks" / f"{task.metadata.name}.json"
    if not file.is_file():
        return False
    found = read_json(file)
    return bool(found["data"] == data_checksum(task) and found["versions"] == _versions())


def _run_task(task: AbsTask, model: Any, session: Session, output: Path, max_docs: int | None) -> None:
    """Evaluate one task and write its files. This changes the task, so it gets a copy."""
    earlier, started = session.store.cost(session.account), time.perf_counter()
    name, checksum = task.metadata.name, data_checksum(task)
    load_task(task)
    if max_docs is not None:
        keep_documents(task, max_docs)
    # mteb shares these generators between all tasks of a process; the sample of a task must not depend on earlier tasks
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    scores, items = _measure(task, model)
    score = float(np.mean([entry["main_score"] for entries in scores.values() for entry in entries]))
    if not math.isfinite(score):
        raise UserError(
            f"The task {name} has no score, because its {task.metadata.main_score} is not a number: the gold or the predicted "
            "values are all the same. Use more texts, or leave the task out."
        )
    interval = items.interval()
    if abs(score - items.score) > _ROUNDING:
        raise RuntimeError(f"{name}: mteb's score is {score}, the score of its items is {items.score}")
    items.save(output / "items" / f"{name}.npz")
    cost = session.store.cost(session.account)
    result = {
        "task": name,
        "type": task.metadata.type,
        "main_score": task.metadata.main_score,
        "score": score,
        "interval": interval,
        "unit": items.unit,
        "items": len(items),
        "max_docs": max_docs,
        "seconds": earlier.seconds + time.perf_counter() - started,  # of a process that was killed: its encoding alone
        "encoding_seconds": cost.seconds,
        "texts": cost.texts,
        "texts_per_second": cost.texts / cost.seconds if cost.seconds else None,
        "peak_rss_gib": provenance.peak_rss_gib(),
        "data": checksum,
        "versions": _versions(),
        "scores": scores,
    }
    write_json(output / "tasks" / f"{name}.json", result)


def _measure(task: AbsTask, model: Any) -> tuple[dict[str, Any], Items]:
    """Scores by split, as mteb returns them, and the items that they are computed from."""
    predictions: dict[str, dict[str, Any]] = {}

    def keep(predicted: Any, *_: Any, hf_split: str, hf_subset: str) -> None:
        predictions.setdefault(hf_subset, {})[hf_split] = predicted

    # mteb's public way to predictions is JSON files, gigabytes of them for the largest tasks. This method is private, so
    # pyproject.toml has an upper bound for mteb.
    task._save_task_predictions = keep
    result = mteb.evaluate(
        model,
        task,
        cache=None,
        overwrite_strategy="always",
        prediction_folder=Path(),
        show_progress_bar=False,
        encode_kwargs={"show_progress_bar": False},
    )[0]
    return dict(result.scores), task_items(task, predictions, result.scores)


def _versions() -> dict[str, str]:
    """The libraries that scores depend on."""
    return {name: version(name) for name in ("mteb", "scikit-learn")}
