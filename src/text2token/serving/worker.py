"""The thread that runs the model. It takes batches from the queue and completes their jobs."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial

import torch
from more_itertools import flatten
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from sentence_transformers.util import batch_to_device
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.precision import encoding
from text2token.serving.errors import ApiError
from text2token.serving.metrics import Metrics
from text2token.serving.queue import Entry, Job, QueueFullError, TokenQueue

_IDLE = 60.0  # seconds without an answer of the model after which a liveness probe runs it
_PATIENCE = 30.0  # seconds that a probe waits for the model

log = logging.getLogger(__name__)


class Worker:
    """Runs the model on the texts in the queue.

    Args:
        embedder: Model to run.
        queue: Queue of waiting jobs.
        metrics: Counts the batches.
        turn: Lock that is held while the model runs, so that two models of one server do not compete for the cores.
        probe: Token ids of a short text, on which a liveness probe runs the model.
    """

    def __init__(
        self, embedder: Embedder, queue: TokenQueue, metrics: Metrics, turn: threading.Lock, probe: Sequence[int]
    ) -> None:
        self._embedder, self._queue, self._metrics, self._turn = embedder, queue, metrics, turn
        self._probe = probe
        self._last = time.monotonic()  # of the latest answer
        self._rate = 0.0  # tokens per second, a moving average over the latest batches
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the jobs in the queue, and end the thread."""
        self._queue.close()
        self._thread.join()

    def submit(self, ids: Sequence[Sequence[int]], *, bf16: bool) -> Job:
        """Put texts into the queue.

        Args:
            ids: Token ids of each text, template included.
            bf16: Encode in bfloat16 where the hardware has it.

        Raises:
            ApiError: The queue is full. The error estimates in how many seconds it will have room.
        """
        job = Job(ids, bf16)
        if not ids:
            job.done.set_result(torch.zeros(0, self._embedder.encoder.get_embedding_dimension() or 0))
            return job
        job.done.add_done_callback(partial(self._count, job))
        try:
            self._queue.submit(job)
        except QueueFullError:
            seconds = math.ceil(self._queue.waiting_tokens / self._rate) if self._rate else 1
            raise ApiError(
                429,
                "The server is busy: repeat the request later.",
                "Overloaded",
                retry_after=min(max(seconds, 1), 600),
            ) from None
        self._metrics.queue_size.set(self._queue.waiting_tokens)
        return job

    def is_alive(self) -> bool:
        """Return True if the model gave an answer within the last minute, or gives one now for a test input."""
        if not self._thread.is_alive():
            return False
        if time.monotonic() - self._last < _IDLE:
            return True
        probe = Job([self._probe], self._embedder.bf16)
        try:
            self._queue.submit(probe)
            probe.done.result(_PATIENCE)
        except QueueFullError:
            return True  # the thread is alive and busy
        except Exception:
            return False
        return True

    def _run(self) -> None:
        while batch := self._queue.take():
            live = [entry for entry in batch if not entry.job.done.done()]
            if not live:
                continue
            started = time.monotonic()
            try:
                self._answer(live)
            except Exception:
                log.exception("A batch failed; its texts are tried one by one")
                self._answer_singly(live)
            self._measure(live, started)

    def _answer(self, batch: Sequence[Entry]) -> None:
        now = time.monotonic()
        for job in {entry.job for entry in batch}:
            job.started = job.started or now
        with self._turn:
            rows = forward(self._embedder, [entry.ids for entry in batch], bf16=batch[0].job.bf16)
        self._last = time.monotonic()
        seconds = self._last - now
        for job in {entry.job for entry in batch}:
            job.computing += seconds
        for entry, row in zip(batch, rows, strict=True):
            entry.job.finish(entry.place, row)

    def _answer_singly(self, batch: Sequence[Entry]) -> None:
        """Run the texts one by one, so that a text on which the model fails does not affect other requests."""
        for entry in batch:
            try:
                self._answer([entry])
            except Exception as error:
                entry.job.fail(error)

    def _count(self, job: Job, done: Future[Tensor]) -> None:
        if not done.cancelled() and done.exception() is None:
            self._metrics.queueing.observe(job.queue_seconds)
            self._metrics.inference.observe(job.computing)

    def _measure(self, batch: Sequence[Entry], started: float) -> None:
        tokens = sum(len(entry.ids) for entry in batch)
        rate = tokens / max(time.monotonic() - started, 1e-6)
        self._rate = 0.8 * self._rate + 0.2 * rate if self._rate else rate
        self._metrics.batch_size.observe(len(batch))
        self._metrics.batch_tokens.observe(len(batch) * max(len(entry.ids) for entry in batch))
        self._metrics.queue_size.set(self._queue.waiting_tokens)


@torch.no_grad()
def forward(embedder: Embedder, ids: Sequence[Sequence[int]], *, bf16: bool) -> Tensor:
    """Return the embeddings N×d that :meth:`Embedder.embed` gives for the same texts in the same precision.

    Args:
        embedder: Model to run.
        ids: Token ids of N texts, template included.
        bf16: Encode in bfloat16 where the hardware has it.
    """
    encoder = embedder.encoder
    with encoding(encoder, bf16=bf16):
        vectors = encoder(batch_to_device(features_of(embedder, ids), encoder.device))["sentence_embedding"]
    return vectors[:, : encoder.truncate_dim].float().cpu()


def features_of(embedder: Embedder, ids: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """Return N texts as the body of a model reads them: padded, or one after the other if the body is a static table."""
    if isinstance(embedder.encoder[0], StaticEmbedding):
        ends = torch.tensor([0, *map(len, ids)]).cumsum(0)
        return {"input_ids": torch.tensor([*flatten(ids)], dtype=torch.long), "offsets": ends[:-1]}
    padded = embedder.tokenizer.pad({"input_ids": [list(row) for row in ids]}, return_tensors="pt")
    return {name: padded[name] for name in ("input_ids", "attention_mask")}
