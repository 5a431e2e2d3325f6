"""Metrics of the server. They have the names of text-embeddings-inference, so its dashboards work here, too."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import Metric

_SECONDS = [15e-6 * 1.5**step for step in range(35)]  # 15 µs to 15 s, the buckets of text-embeddings-inference
_POWERS = [float(2**power) for power in range(15)]


class BareCounter(Counter):
    """A counter whose exported name does not end in ``_total``.

    prometheus_client adds that ending to every metric of the type counter, so this one is exported as ``untyped``.
    """

    def collect(self) -> Iterable[Metric]:
        """Return the counts by label."""
        for counted in super().collect():
            bare = Metric(counted.name, counted.documentation, "unknown")
            for sample in counted.samples:
                if sample.name == f"{counted.name}_total":
                    bare.add_sample(counted.name, sample.labels, sample.value)
            yield bare


class Metrics:
    """The counters and histograms of one server, in a registry of its own."""

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = BareCounter("te_request_count", "Requests, by method", ["method"], registry=registry)
        self.successes = BareCounter(
            "te_request_success", "Requests that were answered, by method", ["method"], registry=registry
        )
        self.failures = BareCounter(
            "te_request_failure", "Requests that failed, by error type", ["err"], registry=registry
        )
        self.duration = Histogram("te_request_duration", "Seconds of a request", buckets=_SECONDS, registry=registry)
        self.tokenizing = Histogram(
            "te_request_tokenization_duration", "Seconds of tokenizing a request", buckets=_SECONDS, registry=registry
        )
        self.queueing = Histogram(
            "te_request_queue_duration",
            "Seconds until the first batch of a request began",
            buckets=_SECONDS,
            registry=registry,
        )
        self.inference = Histogram(
            "te_request_inference_duration", "Seconds of the batches of a request", buckets=_SECONDS, registry=registry
        )
        self.input_length = Histogram("te_request_input_length", "Tokens of a text", buckets=_POWERS, registry=registry)
        self.batch_size = Histogram("te_batch_next_size", "Texts of a batch", buckets=_POWERS, registry=registry)
        self.batch_tokens = Histogram(
            "te_batch_next_tokens", "Padded tokens of a batch", buckets=_POWERS, registry=registry
        )
        self.queue_size = Gauge("te_queue_size", "Tokens in the queue", registry=registry)
