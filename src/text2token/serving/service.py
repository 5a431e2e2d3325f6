"""The objects that all routes share: models with their queues, indexes, and the timings of a request."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

import torch
from fastapi import Request
from starlette.concurrency import run_in_threadpool
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.encoding import default_prompt
from text2token.model.fingerprint import embedder_fingerprint
from text2token.search import Index
from text2token.serving.errors import ApiError
from text2token.serving.metrics import Metrics
from text2token.serving.plane import Plane
from text2token.serving.queue import Job, TokenQueue
from text2token.serving.settings import ServerSettings
from text2token.serving.tokens import RequestTokenizer
from text2token.serving.worker import Worker

Result = TypeVar("Result")
_JOBS: ContextVar[list[Job] | None] = ContextVar("jobs", default=None)
_PROBES = 4  # liveness probes that run at once; they have threads of their own, since requests can occupy all others


@dataclass(eq=False)
class QueuedEmbedder(Embedder):
    """An embedder that sends its texts to the worker, so that all library code uses the queue.

    They are encoded in the precision of this embedder, which may differ from that of the served model: an index keeps its own.
    Call it in any thread except the worker's, which would wait for itself.
    """

    worker: Worker = field(kw_only=True)
    request_tokenizer: RequestTokenizer = field(kw_only=True)

    @classmethod
    def of(cls, embedder: Embedder, worker: Worker, request_tokenizer: RequestTokenizer) -> QueuedEmbedder:
        """Return a copy of the embedder that sends its texts to the worker."""
        own = {part.name: getattr(embedder, part.name) for part in fields(embedder)}
        return cls(**own, worker=worker, request_tokenizer=request_tokenizer)

    def embed(
        self, texts: Sequence[str], *, prompt: str | None = None, batch_size: int | None = None, progress: bool = False
    ) -> Tensor:
        """Return the embeddings of :meth:`Embedder.embed`. The queue chooses the batches, so ``batch_size`` has no effect."""
        prompt = default_prompt(self.encoder) if prompt is None else prompt
        ids = self.request_tokenizer.encode(list(texts), prompt, truncate=True)
        job = self.worker.submit(ids, bf16=self.bf16)
        if (jobs := _JOBS.get()) is not None:
            jobs.append(job)
        return job.done.result()


@dataclass
class Timing:
    """Seconds and sizes of one request, for the headers of its response."""

    characters: int = 0
    tokens: int = 0
    tokenizing: float = 0.0
    jobs: list[Job] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def queueing(self) -> float:
        """Seconds until the first batch of the request began."""
        return sum(job.queue_seconds for job in self.jobs)

    @property
    def computing(self) -> float:
        """Seconds of the batches that contained texts of the request."""
        return sum(job.computing for job in self.jobs)

    def headers(self) -> dict[str, str]:
        """Return the response headers of text-embeddings-inference. Times are in milliseconds."""
        total = time.monotonic() - self.started
        seconds = {
            "x-compute-time": self.computing + self.tokenizing,
            "x-total-time": total,
            "x-tokenization-time": self.tokenizing,
            "x-queue-time": self.queueing,
            "x-inference-time": self.computing,
        }
        return {
            "x-compute-type": "cpu",
            "x-compute-characters": str(self.characters),
            "x-compute-tokens": str(self.tokens),
            **{name: str(round(1_000 * value)) for name, value in seconds.items()},
        }


class Model:
    """A model with its queue and its worker.

    Args:
        embedder: Model to serve.
        settings: Gives the limits of the queue.
        metrics: Counts the batches.
        turn: Lock that the models of a server share, so that one of them runs at a time.
    """

    def __init__(self, embedder: Embedder, settings: ServerSettings, metrics: Metrics, turn: threading.Lock) -> None:
        self.plain, self.request_tokenizer = embedder, RequestTokenizer(embedder)
        queue = TokenQueue(settings.queue_tokens, settings.batch_tokens)
        self.worker = Worker(embedder, queue, metrics, turn, probe=self.request_tokenizer.around([]) or [0])
        self.embedder = QueuedEmbedder.of(embedder, self.worker, self.request_tokenizer)


class Service:
    """Models, indexes and limits of one server.

    Args:
        settings: Limits and permissions.
        embedder: Model to serve.
        against: Plain backbone that explanations show beside the model.
    """

    def __init__(self, settings: ServerSettings, embedder: Embedder, against: Embedder | None = None) -> None:
        self.settings, self.metrics = settings, Metrics()
        turn = threading.Lock()
        self.model = Model(embedder, settings, self.metrics, turn)
        self.against = Model(against, settings, self.metrics, turn) if against else None
        self.indexes = {
            name: Index.open(folder, embedder=self.model.embedder, partial=settings.partial)
            for name, folder in settings.indexes.items()
        }
        self.planes = {name: Plane(index) for name, index in self.indexes.items()}
        self.write_turns = {name: asyncio.Lock() for name in self.indexes}
        self.probes = ThreadPoolExecutor(_PROBES, "probe")
        for index in self.indexes.values():
            _ = index.embedder  # refuses another model than the index was made by
        self.fingerprint = embedder_fingerprint(embedder)
        self.dimensions = embedder.densify(torch.zeros(1, embedder.encoder.get_embedding_dimension() or 0)).shape[1]
        self.ready = False

    @property
    def pooling(self) -> str:
        """Name of the pooling of hidden states; a student takes the mean of its rows."""
        encoder = self.model.plain.encoder
        return str(getattr(encoder[1], "pooling_mode", "unknown")) if len(encoder) > 1 else "mean"

    def start(self) -> None:
        """Start the worker threads, and take requests."""
        for model in filter(None, (self.model, self.against)):
            model.worker.start()
        self.ready = True

    def stop(self) -> None:
        """Take no more requests, finish those in the queue, and close the indexes."""
        self.ready = False
        for model in filter(None, (self.model, self.against)):
            model.worker.stop()
        self.probes.shutdown()
        for index in self.indexes.values():
            index.close()

    def index(self, name: str) -> Index:
        """Return the index with this name.

        Raises:
            ApiError: The server has no index of this name.
        """
        if name not in self.indexes:
            known = ", ".join(self.indexes) or "none"
            raise ApiError(404, f"There is no index '{name}': this server has {known}.", "NotFound", param="index")
        return self.indexes[name]

    def check_count(self, count: int) -> None:
        """Check the number of inputs of a request.

        Raises:
            ApiError: There are no inputs, or more than ``max_inputs``.
        """
        if not count:
            raise ApiError(422, "The list of inputs is empty: send at least one.", "Empty", param="input")
        if count > self.settings.max_inputs:
            raise ApiError(
                413,
                f"The request has {count} inputs, but the limit is {self.settings.max_inputs}: send it in parts.",
                param="input",
            )

    async def embed(self, request: Request, ids: Sequence[Sequence[int]], timing: Timing) -> Tensor:
        """Return the embeddings of N lists of token ids, N×d.

        Raises:
            ApiError: The queue is full, or the model failed.
            ClientGoneError: The client closed the connection.
        """
        timing.tokens += sum(map(len, ids))
        for row in ids:
            self.metrics.input_length.observe(len(row))
        job = self.model.worker.submit(ids, bf16=self.model.plain.bf16)
        timing.jobs.append(job)
        return await self._unless_gone(request, asyncio.wrap_future(job.done), [job])

    async def run(self, request: Request, timing: Timing, work: Callable[[], Result]) -> Result:
        """Run ``work`` in a thread and return its result. ``work`` may use the embedder of the service.

        Raises:
            ClientGoneError: The client closed the connection.
        """
        return await self._timed(request, timing, run_in_threadpool(work))

    async def write(self, request: Request, timing: Timing, name: str, change: Callable[[], Result]) -> Result:
        """Run ``change`` as :meth:`run` does, when all earlier changes of the index with this name have ended.

        A request that waits for its turn holds no thread. If its client closes the connection before that, nothing is changed.
        """

        async def in_turn() -> Result:
            async with self.write_turns[name]:  # until the change ends, even if its client has gone
                if await request.is_disconnected():
                    raise ClientGoneError
                changed = await run_in_threadpool(change)
                self.planes[name].changes += 1
                return changed

        return await self._timed(request, timing, in_turn())

    async def _timed(self, request: Request, timing: Timing, work: Coroutine[Any, Any, Result]) -> Result:
        """Wait for ``work``, and count the tokens of the texts that it sends to the worker."""
        token = _JOBS.set(timing.jobs)
        try:
            result = await self._unless_gone(request, asyncio.ensure_future(work), timing.jobs)
        finally:
            _JOBS.reset(token)
        timing.tokens = sum(job.tokens for job in timing.jobs)
        return result

    async def _unless_gone(self, request: Request, work: asyncio.Future[Result], jobs: Sequence[Job]) -> Result:
        """Wait for ``work``. Cancel its jobs if the client closes the connection; what becomes of it then is of no interest."""
        work.add_done_callback(_retrieve)
        gone = asyncio.ensure_future(_hung_up(request))
        try:
            waited: set[asyncio.Future[Any]] = {work, gone}
            await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                for job in jobs:
                    job.cancel()
                raise ClientGoneError
            return work.result()
        except asyncio.CancelledError:
            for job in jobs:
                job.cancel()
            raise
        finally:
            gone.cancel()


class ClientGoneError(Exception):
    """The client closed the connection before its response was ready."""


def _retrieve(work: asyncio.Future[Any]) -> None:
    """Look at the error of ``work``. Otherwise, asyncio would log an error that nobody waits for."""
    if not work.cancelled():
        work.exception()


async def _hung_up(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def service_of(request: Request) -> Service:
    """Return the service of the application that received the request."""
    service: Any = request.app.state.service
    assert isinstance(service, Service)
    return service
