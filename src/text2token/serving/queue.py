"""The queue of texts for the model: counted in tokens, fair between requests, taken in batches of similar length."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

_WINDOW = 256  # a batch is chosen among so many waiting texts
_LIGHT = 512  # a request with at most so many tokens is light


class QueueFullError(Exception):
    """The queue has no room for the tokens of a request."""


@dataclass(eq=False)
class Job:
    """The texts of one request.

    Attributes:
        ids: Token ids of each text, template included.
        bf16: Encode in bfloat16 where the hardware has it.
        done: The embeddings, N×d, or the error.
        submitted: Time at which the job entered the queue.
        started: Time at which its first batch began; None before that.
        computing: Seconds of the batches that contained texts of the job.
        queue: The queue in which the job waits, once it is submitted.
    """

    ids: Sequence[Sequence[int]]
    bf16: bool = False
    done: Future[Tensor] = field(default_factory=Future)
    submitted: float = field(default_factory=time.monotonic)
    started: float | None = None
    computing: float = 0.0
    queue: TokenQueue | None = None

    def __post_init__(self) -> None:
        self.waiting = deque(range(len(self.ids)))
        self._rows: dict[int, Tensor] = {}

    @property
    def tokens(self) -> int:
        """Tokens of all texts."""
        return sum(map(len, self.ids))

    @property
    def light(self) -> bool:
        """Whether the job is small. Light and heavy jobs take turns."""
        return self.tokens <= _LIGHT

    @property
    def queue_seconds(self) -> float:
        """Seconds that the job waited for its first batch."""
        return (self.started or time.monotonic()) - self.submitted

    def cancel(self) -> None:
        """Drop what still waits of the job, since nobody reads its answer."""
        if self.queue:
            self.queue.drop(self)
            self.done.cancel()

    def finish(self, place: int, row: Tensor) -> None:
        """Store the embedding of one text. The last embedding completes the job."""
        self._rows[place] = row
        if len(self._rows) == len(self.ids) and not self.done.done():
            self.done.set_result(torch.stack([self._rows[place] for place in range(len(self.ids))]))

    def fail(self, error: BaseException) -> None:
        """End the job with an error. Its waiting texts are dropped."""
        if not self.done.done():
            self.done.set_exception(error)
        if self.queue:
            self.queue.drop(self)


@dataclass(frozen=True)
class Entry:
    """One text of a job."""

    job: Job
    place: int

    @property
    def ids(self) -> Sequence[int]:
        """Token ids of the text."""
        return self.job.ids[self.place]


class TokenQueue:
    """Jobs that wait for the model. Any thread may submit jobs; one thread takes batches.

    Light and heavy jobs take turns. So a query waits for at most one batch of a large request, and a stream of queries does
    not stop large requests. Among jobs of one kind and one precision, each job contributes one text in turn.

    Args:
        capacity: Maximum number of waiting tokens. A job with more tokens is accepted if the queue is empty.
        batch_tokens: Maximum number of padded tokens in a batch. A batch of a single text may have more.
    """

    def __init__(self, capacity: int, batch_tokens: int) -> None:
        self.capacity, self.batch_tokens = capacity, batch_tokens
        self.waiting_tokens = 0
        self._jobs: dict[bool, deque[Job]] = {True: deque(), False: deque()}
        self._changed = threading.Condition()
        self._closed = False
        self._turn = True

    def submit(self, job: Job) -> None:
        """Put a job into the queue.

        Raises:
            QueueFullError: The queue has no room for the tokens of the job, or it is closed.
        """
        with self._changed:
            if self._closed or (self.waiting_tokens and self.waiting_tokens + job.tokens > self.capacity):
                raise QueueFullError
            job.queue = self
            self.waiting_tokens += job.tokens
            self._jobs[job.light].append(job)
            self._changed.notify_all()

    def drop(self, job: Job) -> None:
        """Drop the waiting texts of a job, and free their tokens."""
        with self._changed:
            self.waiting_tokens -= sum(len(job.ids[place]) for place in job.waiting)
            job.waiting.clear()

    def close(self) -> None:
        """Accept no more jobs. Jobs in the queue are still done."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def take(self) -> list[Entry]:
        """Wait for the next batch and return it. It is empty if the queue is closed and nothing waits."""
        with self._changed:
            while (light := self._next_kind()) is None and not self._closed:
                self._changed.wait()
            if light is None:
                return []
            self._turn = not light
            batch = self._fill(self._jobs[light])
            self.waiting_tokens -= sum(len(entry.ids) for entry in batch)
            return batch

    def _next_kind(self) -> bool | None:
        """Return whether the next batch has light jobs; None if nothing waits."""
        for jobs in self._jobs.values():
            while jobs and not jobs[0].waiting:
                jobs.popleft()
        return next((light for light in (self._turn, not self._turn) if self._jobs[light]), None)

    def _fill(self, jobs: deque[Job]) -> list[Entry]:
        """Take the oldest text and the texts of its precision closest to it in length, as many as fit, out of their jobs."""
        alike = [job for job in jobs if job.bf16 == jobs[0].bf16]
        window = list(islice(_in_turns(alike), _WINDOW))
        oldest = window[0]
        window.sort(key=lambda entry: len(entry.ids))
        first = last = window.index(oldest)
        while True:
            grown = [
                (start, end)
                for start, end in ((first - 1, last), (first, last + 1))
                if start >= 0 and end < len(window) and self._fits(window[start : end + 1])
            ]
            if not grown:
                break
            first, last = min(grown, key=lambda ends: len(window[ends[1]].ids) - len(window[ends[0]].ids))
        batch = window[first : last + 1]
        for entry in batch:
            entry.job.waiting.remove(entry.place)
        jobs.rotate(-1)  # another job is the first in turn next time
        return batch

    def _fits(self, entries: Sequence[Entry]) -> bool:
        return len(entries) * len(entries[-1].ids) <= self.batch_tokens


def _in_turns(jobs: Sequence[Job]) -> Iterator[Entry]:
    """Texts that wait, one of each job in turn."""
    sources = deque((job, iter(tuple(job.waiting))) for job in jobs)
    while sources:
        job, places = sources.popleft()
        if (place := next(places, None)) is not None:
            yield Entry(job, place)
            sources.append((job, places))
