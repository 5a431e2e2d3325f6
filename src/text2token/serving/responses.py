"""JSON responses with timing headers, and the errors that the OpenAPI document lists."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response

from text2token.serving.schemas.common import OpenAIError, TeiError
from text2token.serving.service import Timing

_REASONS = {
    400: "the body cannot be read, or an input cannot be used",
    401: "the API key is missing or wrong",
    403: "the indexes are read-only",
    404: "the server has no model or index of this name",
    409: "another process writes the index",
    413: "too many inputs, or a body that is too large",
    422: "an input is not valid",
    429: "the queue is full; Retry-After says when to try again",
    500: "the server failed",
    503: "the index cannot be used now",
}


def errors(model: type[TeiError | OpenAIError], *more: int) -> dict[int | str, dict[str, Any]]:
    """Return the errors of a route for the OpenAPI document: those of every route, and the statuses in ``more``."""
    return {
        status: {"model": model, "description": _REASONS[status]} for status in sorted({400, 401, 413, 422, 429, *more})
    }


def answer(content: Any, timing: Timing, status: int = 200) -> Response:
    """Return a JSON response. NumPy arrays become lists."""
    body = orjson.dumps(content, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, status, timing.headers(), "application/json")
