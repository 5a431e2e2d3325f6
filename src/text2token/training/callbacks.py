"""Trainer callbacks: time limit, last evaluation, integrity of checkpoints, progress bar, measurements along the training."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import rotate_checkpoints

from text2token.utils.errors import UserError
from text2token.utils.processes import is_main, on_main, wait_for_all
from text2token.utils.resume import load, save

_SIZES = "sizes.json"
_CHECKPOINTS = 2  # that are kept


class TimeLimit(TrainerCallback, ExportableState):
    """Stop the training after some minutes. Minutes before a resume count. Of several processes, the first one decides.

    Args:
        minutes: The limit. None means no limit.
        spent: Minutes that an earlier process trained.
    """

    def __init__(self, minutes: float | None, spent: float = 0.0) -> None:
        self.minutes, self.spent, self._since = minutes, spent, time.monotonic()

    def state(self) -> dict[str, Any]:
        return {"args": {"minutes": self.minutes}, "attributes": {"spent": self.spent}}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spent += (time.monotonic() - self._since) / 60
        limit = self.minutes
        if limit is not None and on_main(lambda: self.spent >= limit):
            control.should_training_stop = True


class EvaluateAtTheEnd(TrainerCallback):
    """Evaluate the weights with which a training ends, also where a time limit ends it. It stands after that limit."""

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_evaluate |= control.should_training_stop or state.global_step >= state.max_steps


class CheckpointIntegrity(TrainerCallback):
    """Write the sizes of a checkpoint's files after all of them, so that an incomplete checkpoint is recognised.

    Then delete older checkpoints, by their numbers: transformers goes by their times, and a clock can go back.
    """

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        wait_for_all()  # each process has written its random state
        if is_main():
            save(checkpoint / _SIZES, _sizes(checkpoint))
            rotate_checkpoints(args.output_dir, _CHECKPOINTS)


def last_complete_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint in ``folder`` whose files all have their full size."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    return next((str(path) for path in reversed(checkpoints) if _is_complete(path)), None)


def _is_complete(checkpoint: Path) -> bool:
    sizes = _sizes(checkpoint)
    try:
        return bool(sizes) and bool(load(checkpoint / _SIZES) == sizes)
    except UserError:  # damaged
        return False


def _sizes(checkpoint: Path) -> dict[str, int]:
    files = (file for file in checkpoint.rglob("*") if file.is_file() and file.name != _SIZES)
    return {str(file.relative_to(checkpoint)): file.stat().st_size for file in files}


class ShowProgress(TrainerCallback):
    """Show a stage as a task of a progress bar: texts/s, latest losses and pair cosine, time left."""

    def __init__(self, bar: Progress, name: str, texts_per_step: int) -> None:
        self._bar, self._name, self._texts = bar, name, texts_per_step
        self._latest: dict[str, float] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        done, total = (steps * self._texts for steps in (state.global_step, state.max_steps))
        self._task = self._bar.add_task(self._name, total=total, completed=done, unit="texts", note="")

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **kwargs: Any) -> None:
        shown = {"loss": "loss", "eval_loss": "held out", "eval_pair_cosine": "cosine"}
        self._latest |= {label: float(logs[key]) for key, label in shown.items() if key in logs}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        note = ", ".join(f"{label} {value:.2f}" for label, value in self._latest.items())
        self._bar.update(self._task, completed=state.global_step * self._texts, note=note)


class MeasureAlong(TrainerCallback):
    """Measure the model at evenly spaced steps of a stage, from its start to its end, without any effect on the training.

    All of several processes measure, because each may hold a part of the weights, and the first one writes the file.

    Args:
        points: Number of measurements after the one at the start. 0 measures nothing.
        measure: Returns numbers of the model with its current weights.
        file: JSON file of the rows. It is read once, here, so that a resumed training does not repeat a measurement.

    Attributes:
        rows: One row per measurement, with its ``step``.
    """

    def __init__(self, points: int, measure: Callable[[], dict[str, float]], file: Path) -> None:
        self._points, self._measure, self._file = points, measure, file
        self.rows: list[dict[str, float]] = load(file, [])
        self._due: set[int] = set()

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._points:
            steps = {round(state.max_steps * point / self._points) for point in range(self._points + 1)}
            self._due = steps - {int(row["step"]) for row in self.rows}
        self._measure_if_due(state.global_step, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._measure_if_due(state.global_step, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self._points and all(row["step"] != state.global_step for row in self.rows):
            self._due.add(state.global_step)
        self._measure_if_due(state.global_step, kwargs["model"])

    def _measure_if_due(self, step: int, model: Any) -> None:
        if step not in self._due:
            return
        model.eval()
        self.rows.append({"step": step, **self._measure()})
        model.train()
        if is_main():
            save(self._file, self.rows)
        self._due.remove(step)
