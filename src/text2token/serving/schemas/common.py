"""Types and errors that the bodies of several APIs share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

TokenIds = list[int]
Texts = list[str]
Count = Annotated[int, Field(ge=1, le=1_000)]


class Body(BaseModel):
    """The body of a request.

    Unknown fields are ignored, as OpenAI's API and text-embeddings-inference do. Values must have the type that the OpenAPI
    document states: without ``strict``, pydantic would take ``"0"`` for false. Lone surrogates, which JSON can contain and UTF-8
    cannot, are removed from all strings.
    """

    model_config = ConfigDict(extra="ignore", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _without_surrogates(cls, values: Any) -> Any:
        return _encodable(values, depth=2)


class TeiError(BaseModel):
    """An error of text-embeddings-inference."""

    error: str
    error_type: str


class OpenAIErrorDetail(BaseModel):
    """Details of an error."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error of OpenAI's API."""

    error: OpenAIErrorDetail


class Usage(BaseModel):
    """Number of tokens of all inputs, template included."""

    prompt_tokens: int
    total_tokens: int


def _encodable(value: Any, depth: int) -> Any:
    """Remove lone surrogates from a string, or from the strings in lists and objects up to a depth.

    Fields of a body are strings, or lists or objects of strings (depth 2); deeper ones are in a body of their own.
    """
    if isinstance(value, str):
        return value.encode(errors="ignore").decode()
    if depth and isinstance(value, list):
        return [_encodable(item, depth - 1) for item in value]
    if depth and isinstance(value, dict):
        return {_encodable(key, 0): _encodable(item, depth - 1) for key, item in value.items()}
    return value
