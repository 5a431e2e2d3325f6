"""Types and errors that the bodies of several APIs share."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

TokenIds = list[int]
Texts = list[str]
Count = Annotated[int, Field(ge=1, le=1_000)]


class Body(BaseModel):
    """The body of a request.

    Unknown fields are ignored, as OpenAI's API and text-embeddings-inference do. Values must have the type that the OpenAPI
    document states: without ``strict``, pydantic would take ``"0"`` for false.
    """

    model_config = ConfigDict(extra="ignore", strict=True)


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
