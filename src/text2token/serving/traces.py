"""Spans of requests for OpenTelemetry. They hold routes, statuses and times, and no text of a request."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from fastapi import FastAPI

from text2token.utils.errors import requires_extra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace.export import SpanExporter


def trace(app: FastAPI, exporter: SpanExporter | None = None) -> Callable[[], None]:
    """Record a span for each request; probes and metrics have none.

    Args:
        app: Application that has not started.
        exporter: Takes the spans. None: OTLP over HTTP, to the address in ``OTEL_EXPORTER_OTLP_ENDPOINT``.

    Returns:
        Call it at the end: it sends the spans that wait.

    Raises:
        UserError: The extra ``otel`` is not installed.
    """
    with requires_extra("otel"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    name = os.environ.get("OTEL_SERVICE_NAME", "text2token")
    provider = TracerProvider(resource=Resource.create({"service.name": name}), shutdown_on_exit=False)
    provider.add_span_processor(BatchSpanProcessor(exporter or OTLPSpanExporter()))
    FastAPIInstrumentor.instrument_app(
        app, tracer_provider=provider, excluded_urls="/health,/ready,/metrics", exclude_spans=["receive", "send"]
    )
    return provider.shutdown
