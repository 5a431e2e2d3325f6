"""Errors of requests, in the format of OpenAI's API below ``/v1`` and in that of text-embeddings-inference elsewhere."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import Any, Literal

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from text2token.utils.errors import BusyError, UnavailableError, UserError

ErrorType = Literal[
    "Unhealthy", "Backend", "Overloaded", "Validation", "Tokenizer", "Empty", "Unauthorized", "NotFound"
]
_JSON = re.compile(r"\s*application/(?:[^;]*\+)?json\s*(?:;|$)", re.IGNORECASE)  # the types that FastAPI reads as JSON
log = logging.getLogger(__name__)
_OPENAI_TYPES = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """An error in the answer to a request.

    Args:
        status: HTTP status.
        message: One sentence for the client. What UTF-8 cannot encode, as in the name of a file, becomes a question mark.
        kind: Error type of text-embeddings-inference.
        param: The wrong field of the request. None if no single field is wrong.
        code: Error code of OpenAI's API. None if it has no code for this error.
        retry_after: Seconds after which a repeated request can succeed.
    """

    def __init__(
        self,
        status: int,
        message: str,
        kind: ErrorType = "Validation",
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        message = message.encode(errors="replace").decode()
        super().__init__(message)
        self.status, self.message, self.kind = status, message, kind
        self.param, self.code, self.retry_after = param, code, retry_after


def is_openai(path: str) -> bool:
    """Return True if a path belongs to OpenAI's API."""
    return path.startswith("/v1/")


def error_response(path: str, error: ApiError) -> JSONResponse:
    """Return the response for an error on a path.

    For a request that is too long or malformed, OpenAI's API uses status 400 and text-embeddings-inference 422.
    """
    headers = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
    if is_openai(path):
        status = 400 if error.status == 422 else error.status
        kind = _OPENAI_TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
        content: dict[str, Any] = {
            "error": {"message": error.message, "type": kind, "param": error.param, "code": error.code}
        }
        return JSONResponse(content, status, headers)
    return JSONResponse({"error": error.message, "error_type": error.kind}, error.status, headers)


def as_api_error(error: Exception) -> ApiError:
    """Return the error that a client is told. It shows neither a traceback nor a path or address of the server."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, BusyError):
        return ApiError(
            409, "Another process is writing the index: repeat the request later.", "Overloaded", retry_after=1
        )
    if isinstance(error, UnavailableError):
        log.error("An index cannot be used: %s", error)
        return ApiError(503, "The index cannot be used now: repeat the request later.", "Unhealthy", retry_after=1)
    if isinstance(error, UserError):
        return ApiError(422, str(error))
    return ApiError(500, "The server failed on this request.", "Backend")


def _unread_body(error: Mapping[str, Any], content_type: str) -> str | None:
    """Return what is wrong with a body that could not be read as JSON at all; None if the error is another one."""
    if error["loc"][:1] != ("body",):
        return None
    if error["type"] == "json_invalid":  # its place is a character and no field
        return "The body of the request is not JSON: send a JSON object."
    if error["type"] == "missing" and len(error["loc"]) == 1:
        return "The request has no body: send a JSON object."
    if not _JSON.match(content_type):
        return "The body of the request is not marked as JSON: send the header 'Content-Type: application/json'."
    return None


def install_handlers(app: FastAPI) -> None:
    """Turn every error of ``app`` into a response in the format of its path. No response contains a traceback."""

    async def on_anything(request: Request, error: Exception) -> JSONResponse:
        return error_response(request.url.path, as_api_error(error))

    async def on_validation(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        if told := _unread_body(first, request.headers.get("content-type", "")):
            return error_response(request.url.path, ApiError(422, told))
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        what = f"{place}: {first['msg']}" if place else first["msg"]
        param = place.partition(".")[0] or None
        return error_response(request.url.path, ApiError(422, f"The request is not valid: {what}.", param=param))

    async def on_http(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        kind: ErrorType = "NotFound" if error.status_code == 404 else "Validation"
        response = error_response(request.url.path, ApiError(error.status_code, f"{error.detail}.", kind))
        response.headers.update(error.headers or {})
        return response

    for kind in (ApiError, UserError, Exception):
        app.add_exception_handler(kind, on_anything)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
