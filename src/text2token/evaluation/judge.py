"""Evaluate a model task by task: scores, intervals, costs; resumable, and never another checkpoint's numbers."""

from __future__ import annotations

import copy
import json
import math
import random
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import mteb
import numpy as np
from mteb.abstasks import AbsTask

from text2token.evaluation.checks import check_data
from text2token.evaluation.contender import Contender
from text2token.evaluation.encoders import Session, Work
from text2token.evaluation.folder_task import task_folder
from text2token.evaluation.items import Items, task_items
from text2token.evaluation.results import summarise
from text2token.evaluation.subset import keep_documents
from text2token.evaluation.tasks import Selection
from text2token.evaluation.vector_store import VectorStore
from text2token.utils import provenance
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import exclusive_lock, write_json
from text2token.utils.progress import track

_ROUNDING = 1e-4  # mteb rounds search scores to five places


def evaluate(
    contender: Contender,
    selection: Selection,
    output: Path,
    *,
    max_docs: int | None = None,
    instructions: bool = False,
    vectors: Path | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the tasks that ``output`` does not hold yet.

    ``output/tasks/NAME.json`` holds a task's scores, interval, cost and data checksum, ``output/items/NAME.npz`` what
    :mod:`text2token.evaluation.items` keeps for paired comparisons, ``output/summary.json`` all that is finished.

    Args:
        contender: The model.
        selection: The tasks.
        output: New folder, or one of this very model under the same settings.
        max_docs: Cut every task down to so many texts, for a quick look; marked in the result.
        instructions: Use the benchmark's own instructions where the model has no prompt for a task. Off by default: a model
            that was never shown any, ours for one, reads them as a part of the text.
        vectors: SQLite file of vectors that outlives the evaluation. Others with the same encoder take them from there:
            the settings of a backbone that differ in the correction only.
        progress: Show bars.

    Returns:
        The summary.

    Raises:
        UserError: ``output`` holds another model's results, a task's data is incomplete, or the model returns no vectors.
    """
    owner = {
        "model": contender.name,
        "revision": contender.revision,
        "max_docs": max_docs,
        "instructions": instructions,
    }
    lock = output.absolute().with_name(f".{output.absolute().name}.lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(
        lock, f"Another process writes results to '{output}': wait until it is done, or choose another --output."
    ):
        return _evaluate(contender, selection, output, owner, vectors, progress=progress)


def _evaluate(
    contender: Contender,
    selection: Selection,
    output: Path,
    owner: dict[str, Any],
    vectors: Path | None,
    *,
    progress: bool,
) -> dict[str, Any]:
    _claim(output, owner)
    able = [task for task in selection.tasks if contender.types is None or task.metadata.type in contender.types]
    names = {task.metadata.name for task in selection.tasks} - {task.metadata.name for task in able}
    skipped = {**selection.skipped, **dict.fromkeys(sorted(names), f"{contender.name} only ranks documents")}
    todo = [task for task in able if not _is_done(task, output)]
    for task in todo:
        if task_folder(task) and not task.data_loaded:  # what is on this machine can be mended now rather than in hours
            _load(copy.deepcopy(task))
    if todo:
        if vectors is not None:
            vectors.parent.mkdir(parents=True, exist_ok=True)
        store = VectorStore(vectors or output / "vectors.sqlite")
        session = Session(store, owner["instructions"], progress, Work())
        model = contender.prepare(session)
        for task in track(todo, "Tasks", unit="tasks", enabled=progress):
            _run(copy.deepcopy(task), model, session.work, output, owner["max_docs"])
            summarise(output, skipped, selection.benchmark)
        session.store.close()
        if vectors is None:
            for file in output.glob("vectors.sqlite*"):
                file.unlink()
    return summarise(output, skipped, selection.benchmark)


def _claim(output: Path, owner: dict[str, Any]) -> None:
    """Results of one model, whatever its folder is called now, under one setting share a folder, and of no other."""
    note = output / "model.json"
    if note.is_file():
        before = json.loads(note.read_text())
        other = [name for name in owner if name != "model" and before[name] != owner[name]]
        if other and any((output / "tasks").glob("*.json")):
            what = other[0].replace("revision", "model")
            raise UserError(f"'{output}' holds results of another {what}: choose another --output.")
    elif output.exists() and any(output.iterdir()):
        raise UserError(f"The folder '{output}' holds something else than results: choose another --output.")
    for part in ("tasks", "items"):
        (output / part).mkdir(parents=True, exist_ok=True)
    write_json(note, owner)


def _is_done(task: AbsTask, output: Path) -> bool:
    """Is there a result of the same data, by the same mteb?"""
    file = output / "tasks" / f"{task.metadata.name}.json"
    if not file.is_file():
        return False
    found = json.loads(file.read_text())
    return bool(found["data"] == _data_checksum(task) and found["versions"] == _versions())


def _run(task: AbsTask, model: Any, work: Work, output: Path, max_docs: int | None) -> None:
    """Measure one task and write its files; the task is used up."""
    texts, encoding, started = work.texts, work.seconds, time.perf_counter()
    name, checksum = task.metadata.name, _data_checksum(task)
    _load(task)
    if max_docs is not None:
        keep_documents(task, max_docs)
    # mteb shares these between all tasks of a process; a task's sample must not depend on what ran before it
    task.rng_state, task.np_rng = random.Random(task.seed), np.random.default_rng(task.seed)
    scores, items = _measure(task, model)
    score = float(np.mean([entry["main_score"] for entries in scores.values() for entry in entries]))
    if not math.isfinite(score):
        raise UserError(
            f"The task {name} has no score, its {task.metadata.main_score} is no number: "
            "gold or predicted values are all the same; use more texts, or leave the task out."
        )
    interval = items.interval()
    seconds, encoding, texts = time.perf_counter() - started, work.seconds - encoding, work.texts - texts
    if abs(score - items.score) > _ROUNDING:
        raise RuntimeError(f"{name}: mteb's score is {score}, that of its items {items.score}")
    items.save(output / "items" / f"{name}.npz")
    result = {
        "task": name,
        "type": task.metadata.type,
        "main_score": task.metadata.main_score,
        "score": score,
        "interval": interval,
        "unit": items.unit,
        "items": len(items),
        "max_docs": max_docs,
        "seconds": seconds,
        "encoding_seconds": encoding,
        "texts": texts,
        "texts_per_second": texts / encoding if encoding else None,
        "peak_rss_gib": provenance.peak_rss_gib(),
        "data": checksum,
        "versions": _versions(),
        "scores": scores,
    }
    write_json(output / "tasks" / f"{name}.json", result)


def _load(task: AbsTask) -> None:
    """Read and check the data of a task.

    Into memory: mteb draws training texts by asking for one label at a time, which takes twice as long from a file. And a folder
    by a cache of its own content: that of ``datasets`` knows a folder by its name and README, and would give what was in it once.
    """
    task.metadata = task.metadata.model_copy(update={"dataset": {**task.metadata.dataset, "keep_in_memory": True}})
    cache = datasets.config.HF_DATASETS_CACHE
    if task_folder(task):
        datasets.config.HF_DATASETS_CACHE = Path(cache) / "text2token" / _data_checksum(task)
    try:
        if not task.data_loaded:
            task.load_data()
    except Exception as error:  # whatever a loader trips over, the data is what the user has to look at
        where = task_folder(task) or "the hub"
        raise UserError(f"Cannot load the task {task.metadata.name} from {where}: {first_line(error)}") from error
    finally:
        datasets.config.HF_DATASETS_CACHE = cache
    check_data(task)


def _measure(task: AbsTask, model: Any) -> tuple[dict[str, Any], Items]:
    """Scores by split, as mteb has them, and the items they are made of."""
    predictions: dict[str, dict[str, Any]] = {}

    def keep(predicted: Any, *_: Any, hf_split: str, hf_subset: str) -> None:
        predictions.setdefault(hf_subset, {})[hf_split] = predicted

    task._save_task_predictions = keep  # mteb would write JSON, gigabytes of it for the largest tasks
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
    """Of what scores depend on."""
    return {name: version(name) for name in ("mteb", "scikit-learn")}


def _data_checksum(task: AbsTask) -> str:
    """Of the files a task is read from; of the hub, its revision."""
    folder = task_folder(task)
    if folder is None:
        return str(task.metadata.dataset["revision"])
    return provenance.data_checksum(folder)
