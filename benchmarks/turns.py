"""The turns of the benchmark of encoding: what a contender encodes at once, and how its process answers.

The peer llama.cpp runs in an environment of its own, so this file needs the standard library only.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

WARM_UP = 8  # texts that a contender encodes before its batch sizes are compared


class Turn(NamedTuple):
    """Texts, and their token ids with the template."""

    texts: list[str]
    ids: list[list[int]]

    @property
    def tokens(self) -> int:
        """Count the tokens of all texts."""
        return sum(map(len, self.ids))

    def first(self, count: int) -> Turn:
        """Return the turn of the first texts."""
        return Turn(self.texts[:count], self.ids[:count])


Encode = Callable[[Turn, int], Any]
"""Encodes a turn in batches of a size."""


def seconds(step: Callable[[], Any]) -> float:
    """Measure a step by the wall clock."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def fastest(encode: Encode, turn: Turn, sizes: Sequence[int]) -> int:
    """Return the batch size that encodes a turn in the shortest time."""
    return min(sizes, key=lambda size: seconds(partial(encode, turn, size)))


def peak_memory() -> float:
    """Return the peak memory of this process in GiB. That of getrusage would begin with the memory of the parent process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 2**20


def answer(pipe: Connection, encode: Encode, sizes: Sequence[int]) -> None:
    """Answer requests until the other end of the pipe is closed.

    - ``("choose", turn)``: the fastest batch size, which is kept for the next turns.
    - ``("encode", turn)``: the seconds of encoding.
    - ``("memory", None)``: the peak memory of this process in GiB.
    """
    size = sizes[0]
    while True:
        try:
            what, turn = pipe.recv()
        except EOFError:
            return
        if what == "choose":
            encode(turn.first(WARM_UP), size)
            size = fastest(encode, turn, sizes)
            pipe.send(size)
        elif what == "encode":
            pipe.send(seconds(partial(encode, turn, size)))
        else:
            pipe.send(peak_memory())
