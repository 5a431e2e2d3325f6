"""Progress bars for long work: count, rate and time left on a terminal, quiet when piped."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")

_CONSOLE = Console(stderr=True)  # one for all, so that a bar inside another one does not fight it for the terminal


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {task.fields['unit']}/s" if task.speed else "", style="progress.data.speed")


def progress_bar(*, enabled: bool = True) -> Progress:
    """A bar on standard error, disabled where nobody looks; add tasks with the fields ``unit`` and ``note``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=_CONSOLE,
        speed_estimate_period=1e9,  # rate and time left from all of the work: a step may take minutes
        disable=not enabled or not sys.stderr.isatty(),
    )


def step(message: str, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Say what is going on while it lasts, on a terminal."""
    return _CONSOLE.status(message) if enabled and sys.stderr.isatty() else nullcontext()


def track(items: Sequence[T], description: str, *, unit: str, each: int = 1, enabled: bool = True) -> Iterator[T]:
    """Go through ``items`` under a bar; an item counts as ``each`` units."""
    with progress_bar(enabled=enabled) as progress:
        task = progress.add_task(description, total=len(items) * each, unit=unit, note="")
        for item in items:
            yield item
            progress.advance(task, each)
