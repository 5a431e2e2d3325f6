"""Evaluate a model task by task: scores, intervals, costs; resumable, and never another checkpoint's numbers."""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import mteb
import numpy as np
from mteb.abstasks import AbsTask

from text2token import provenance
from text2token.atomic import write_json
from text2token.errors import UserError
from text2token.evaluation.contender import Contender, Session
from text2token.evaluation.items import Items, task_items
from text2token.evaluation.subset import keep_documents
from text2token.evaluation.tasks import BENCHMARK, Selection, task_folder
from text2token.progress import track

SUMMARY = "summary.json"


def evaluate(
    contender: Contender,
    selection: Selection,
    output: Path,
    *,
    max_docs: int | None = None,
    instructions: bool = False,
    bf16: bool = False,
    progress: bool = False,
) -> dict[str, Any]:
    """Run the tasks that ``output`` does not hold yet, and write its summary.

    ``output/tasks/NAME.json`` holds a task's scores, interval, cost and data checksum, ``output/items/NAME.npz`` what
    :func:`text2token.evaluation.items.task_items` keeps for paired comparisons, ``output/summary.json`` the whole.

    Args:
        contender: The model.
        selection: The tasks.
        output: New folder, or one of this very model under the same settings.
        max_docs: Cut every task down to so many texts, for a quick look; marked in the result.
        instructions: Use the benchmark's own instructions where the model has no prompt for a task. Off by default: a model
            that was never shown any, ours for one, reads them as a part of the text.
        bf16: Encode in mixed precision where the hardware has it.
        progress: Show bars.

    Returns:
        The summary.

    Raises:
        UserError: ``output`` holds another model's results, a task's data is incomplete, or the model returns no vectors.
    """
    settings = {"max_docs": max_docs, "instructions": instructions, "bf16": bf16}
    _claim(output, {"name": contender.name, "revision": contender.revision, "settings": settings})
    skipped = dict(selection.skipped)
    possible = []
    for task in selection.tasks:
        if contender.types is None or task.metadata.type in contender.types:
            possible.append(task)
        else:
            skipped[task.metadata.name] = f"{contender.name} only ranks documents"
    session = Session(output / "vectors", instructions=instructions, bf16=bf16, progress=progress)
    session.folder.mkdir(exist_ok=True)
    model = contender.prepare(session)
    for task in track(possible, "Tasks", unit="tasks", enabled=progress):
        _run_once(task, model, session, output, max_docs)
    shutil.rmtree(session.folder)
    return _summarise(output, possible, skipped, selection.benchmark)


def _claim(output: Path, owner: dict[str, Any]) -> None:
    """Results of one model under one setting share a folder, and of no other."""
    note = output / "model.json"
    if note.is_file():
        if json.loads(note.read_text()) != owner:
            raise UserError(f"'{output}' holds results of another model or setting: choose another --output.")
    elif output.exists() and any(output.iterdir()):
        raise UserError(f"The folder '{output}' holds something else than results: choose another --output.")
    for part in ("tasks", "items"):
        (output / part).mkdir(parents=True, exist_ok=True)
    write_json(note, owner)


def _run_once(task: AbsTask, model: Any, session: Session, output: Path, max_docs: int | None) -> None:
    name = task.metadata.name
    file = output / "tasks" / f"{name}.json"
    checksum = _data_checksum(task)
    if file.is_file() and json.loads(file.read_text())["data"] == checksum:
        return
    _load(task)
    if max_docs is not None:
        keep_documents(task, max_docs)
    texts, encoding, started = session.work.texts, session.work.seconds, time.perf_counter()
    scores, items = _measure(task, model)
    seconds = time.perf_counter() - started
    encoding = session.work.seconds - encoding
    texts = session.work.texts - texts
    main = float(np.mean([entry["main_score"] for entries in scores.values() for entry in entries]))
    low, high = items.interval()
    items.save(output / "items" / f"{name}.npz")
    write_json(
        file,
        {
            "task": name,
            "type": task.metadata.type,
            "main_score": task.metadata.main_score,
            "score": main,
            "interval": [low, high],
            "unit": items.unit,
            "items": len(items),
            "max_docs": max_docs,
            "seconds": seconds,
            "encoding_seconds": encoding,
            "texts": texts,
            "texts_per_second": texts / encoding if encoding else None,
            "peak_rss_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
            "data": checksum,
            "scores": scores,
        },
    )
    task.unload_data()


def _load(task: AbsTask) -> None:
    where = task_folder(task) or "the hub"
    try:
        if not task.data_loaded:
            task.load_data()
    except Exception as error:  # whatever a loader trips over, the user has to look at the same place
        cause = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(f"Cannot load the task {task.metadata.name} from {where}: {cause[0]}") from error


def _measure(task: AbsTask, model: Any) -> tuple[dict[str, Any], Items]:
    """Scores by split, as mteb has them, and the items they are made of."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            result = mteb.evaluate(
                model,
                task,
                cache=None,
                overwrite_strategy="always",
                prediction_folder=folder,
                show_progress_bar=False,
                encode_kwargs={"show_progress_bar": False},
            )[0]
        except KeyError as error:
            raise UserError(
                f"The data of the task {task.metadata.name} in {task_folder(task) or 'the hub'} lacks {error}: "
                "a split or a column is missing."
            ) from error
        predictions = json.loads((Path(folder) / task.prediction_file_name).read_text())
    return dict(result.scores), task_items(task, predictions, result.scores)


def _data_checksum(task: AbsTask) -> str:
    """Of the files a task is read from; of the hub, its revision."""
    folder = task_folder(task)
    if folder is None:
        return str(task.metadata.dataset["revision"])
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return hashlib.sha256("".join(map(provenance.file_checksum, files)).encode()).hexdigest()


def _summarise(
    output: Path, tasks: list[AbsTask], skipped: dict[str, str], benchmark: frozenset[str]
) -> dict[str, Any]:
    """All finished tasks of the selection in one file, with means by type and over all, in points."""
    rows = [json.loads((output / "tasks" / f"{task.metadata.name}.json").read_text()) for task in tasks]
    by_type: dict[str, list[float]] = {}
    for row in rows:
        by_type.setdefault(row["type"], []).append(100 * row["score"])
    means = {kind: float(np.mean(scores)) for kind, scores in by_type.items()}
    kept = ("task", "type", "main_score", "score", "interval", "unit", "items", "max_docs", "texts_per_second", "data")
    summary = {
        **json.loads((output / "model.json").read_text()),
        **provenance.record(),
        "tasks": [{key: row[key] for key in kept} for row in rows],
        "skipped": skipped,
        "mean_by_type": means,
        "mean_over_types": float(np.mean(list(means.values()))) if means else None,
        "mean_over_tasks": float(np.mean([100 * row["score"] for row in rows])) if rows else None,
        "coverage": _coverage([row["task"] for row in rows], benchmark),
        "peak_rss_gib": max((row["peak_rss_gib"] for row in rows), default=None),
    }
    write_json(output / SUMMARY, summary)
    return summary


def _coverage(names: list[str], benchmark: frozenset[str]) -> str:
    """What the means are over: a reader must not take a part for the benchmark."""
    inside = len(benchmark.intersection(names))
    if inside == len(names):
        return f"mean over {inside} of {len(benchmark)} tasks of {BENCHMARK}"
    return f"mean over {len(names)} tasks, {inside} of them among the {len(benchmark)} of {BENCHMARK}"
