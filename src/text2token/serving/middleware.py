"""Middleware for every request: it checks the API key and the size of the body, and counts and times the request."""

from __future__ import annotations

import asyncio
import hmac
import time

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from text2token.serving.errors import ApiError, error_response
from text2token.serving.service import ClientGoneError, Service

_OPEN = ("/health", "/ready", "/explorer/", "/openapi.json")
"""Paths that need no key: probes, and the explorer, which asks for the key itself."""


class Gate:
    """Refuses requests without a valid key or with too large a body, and updates the metrics.

    Args:
        app: Application that handles accepted requests.
        service: Gives settings and metrics.
    """

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app, self._service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, headers = scope["path"], dict(scope["headers"])
        if refusal := self._refusal(scope["method"], path, headers):
            await error_response(path, refusal)(scope, receive, send)
            self._count(path, refusal.status, refusal.kind, 0.0)
            return
        # HEAD is a GET whose body is dropped, which uvicorn does (RFC 9110, 9.3.2); routes of FastAPI refuse it.
        if scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        status, begun, started = 500, False, time.monotonic()

        async def watched(message: Message) -> None:
            nonlocal status, begun
            if message["type"] == "http.response.start":
                status, begun = message["status"], True
            await send(message)

        try:
            await self._app(scope, _limited(receive, self._service.settings.max_bytes), watched)
        except ClientGoneError:
            status = 499
        except asyncio.CancelledError:  # the server ends before this request
            if not begun:  # of a stream, the rest is missing
                ends = ApiError(503, "The server shuts down: repeat the request later.", "Unhealthy", retry_after=1)
                await error_response(path, ends)(scope, receive, watched)
        finally:
            self._count(path, status, "Backend" if status >= 500 else "Validation", time.monotonic() - started)

    def _refusal(self, method: str, path: str, headers: dict[bytes, bytes]) -> ApiError | None:
        settings = self._service.settings
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > settings.max_bytes:
            return ApiError(
                413, f"The body has {int(length)} bytes, but the limit is {settings.max_bytes}: send it in parts."
            )
        open_path = path.startswith(_OPEN) or (path == "/" and method in ("GET", "HEAD"))
        if settings.keys and not open_path and not _has_key(headers.get(b"authorization", b""), settings.keys):
            return ApiError(
                401, "The request has no valid API key: send it as 'Authorization: Bearer KEY'.", "Unauthorized",
                code="invalid_api_key",
            )  # fmt: skip
        return None

    def _count(self, path: str, status: int, kind: str, seconds: float) -> None:
        metrics, method = self._service.metrics, path.strip("/").partition("/")[0] or "root"
        known = method if method in _METHODS else "other"
        metrics.requests.labels(known).inc()
        if status < 400:
            metrics.successes.labels(known).inc()
            metrics.duration.observe(seconds)
        else:
            metrics.failures.labels("overloaded" if status == 429 else kind.lower()).inc()


# Only these paths get a label of their own. A label for every requested path would fill the memory.
_METHODS = frozenset(
    {
        *("v1", "embed", "embed_sparse", "similarity", "rerank", "tokenize", "decode", "explain", "compare", "search"),
        *("indexes", "info", "health", "ready", "metrics", "explorer", "root"),
    }
)


def _limited(receive: Receive, most: int) -> Receive:
    """Return a ``receive`` that refuses a body of more than ``most`` bytes."""
    taken = 0

    async def limited() -> Message:
        nonlocal taken
        message = await receive()
        taken += len(message.get("body", b""))
        if taken > most:
            raise HTTPException(413, f"The body has more than {most} bytes: send it in parts")
        return message

    return limited


def _has_key(header: bytes, keys: tuple[str, ...]) -> bool:
    """Return True if the header contains one of the keys. Every key is compared, in constant time."""
    scheme, _, given = header.partition(b" ")
    matches = [hmac.compare_digest(given.strip(), key.encode()) for key in keys]
    return scheme.lower() == b"bearer" and any(matches)
