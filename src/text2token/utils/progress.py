"""Progress bars on a terminal: count, rate and time left.

Nothing is shown if standard error is piped. Of several processes, the first one shows them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from text2token.utils.processes import is_main

T = TypeVar("T")

_CONSOLE = Console(stderr=True)  # all bars share it, so that a bar inside another one is drawn correctly


class _Rate(ProgressColumn):
    """Units per second."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.1f} {task.fields['unit']}/s" if task.speed else "", style="progress.data.speed")


def progress_bar(*, enabled: bool = True) -> Progress:
    """Return a progress bar on standard error; add tasks with the fields ``unit`` and ``note``."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=_CONSOLE,
        speed_estimate_period=1e9,  # estimate rate and time left from all of the work, because a step may take minutes
        disable=not enabled or not _shown(),
    )


def step(message: str, *, enabled: bool = True) -> AbstractContextManager[object]:
    """Show a message on a terminal during the block."""
    return _CONSOLE.status(message) if enabled and _shown() else nullcontext()


def track(items: Sequence[T], description: str, *, unit: str, each: int = 1, enabled: bool = True) -> Iterator[T]:
    """Yield the items while a progress bar is shown; an item counts as ``each`` units."""
    if not enabled or not _shown():  # a bar that is not shown takes longer than a short query
        yield from items
        return
    with progress_bar() as progress:
        task = progress.add_task(description, total=len(items) * each, unit=unit, note="")
        for item in items:
            yield item
            progress.advance(task, each)


def _shown() -> bool:
    return is_main() and sys.stderr.isatty()
