"""What happens around the steps of a training: a time limit, checkpoints that say when they are whole, progress."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.progress import Progress
from transformers import TrainerCallback
from transformers.trainer_callback import ExportableState

from text2token.utils.resume import load, save

_SEAL = "sizes.json"


class TimeLimit(TrainerCallback, ExportableState):
    """Stop after so many minutes of training, those before a resume counted."""

    def __init__(self, minutes: float | None, spent: float = 0.0) -> None:
        self.minutes, self.spent, self._since = minutes, spent, time.monotonic()

    def state(self) -> dict[str, Any]:
        return {"args": {"minutes": self.minutes}, "attributes": {"spent": self.spent}}

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spent += (time.monotonic() - self._since) / 60
        if self.minutes is not None and self.spent >= self.minutes:
            control.should_training_stop = True


class Seal(TrainerCallback):
    """Notes the sizes of a checkpoint's files when all are written, which tells a whole checkpoint from a cut-off one."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        checkpoint = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        save(checkpoint / _SEAL, _sizes(checkpoint))


class ShowProgress(TrainerCallback):
    """Steps of one stage as a task of a bar: texts/s, the latest losses and pair cosine, time left."""

    def __init__(self, bar: Progress, name: str, texts_a_step: int) -> None:
        self._bar, self._name, self._texts = bar, name, texts_a_step
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
    """Measure at the start of a stage, at evenly spaced points of it and at its end; the training is the same without it.

    Args:
        points: After the start; 0: measure nothing.
        measure: Numbers of the model as it is.
        file: Where the rows are kept, so that a resumed training measures no point again.
    """

    def __init__(self, points: int, measure: Callable[[], dict[str, float]], file: Path) -> None:
        self._points, self._measure, self._file = points, measure, file

    @property
    def rows(self) -> list[dict[str, float]]:
        """A row a point, with its ``step``."""
        return load(self._file, [])

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at(state, kwargs["model"])

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at(state, kwargs["model"])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._at(state, kwargs["model"], due=self._points > 0)

    def _at(self, state: Any, model: Any, *, due: bool = False) -> None:
        step, points = state.global_step, self._points
        due = due or step in {round(state.max_steps * point / points) for point in range(points + 1) if points}
        rows = self.rows
        if due and all(row["step"] != step for row in rows):
            model.eval()
            save(self._file, [*rows, {"step": step, **self._measure()}])
            model.train()


def last_whole_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that has all of its files."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
    whole = [path for path in checkpoints if _is_whole(path)]
    return str(whole[-1]) if whole else None


def _is_whole(checkpoint: Path) -> bool:
    seal = checkpoint / _SEAL
    return load(seal) == _sizes(checkpoint)


def _sizes(checkpoint: Path) -> dict[str, int]:
    return {file.name: file.stat().st_size for file in checkpoint.iterdir() if file.name != _SEAL}
