"""Bodies of OpenAI's API."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from text2token.serving.schemas.common import Body, Texts, TokenIds, Usage


class OpenAIEmbeddingsRequest(Body):
    """``POST /v1/embeddings``."""

    input: str | Texts | TokenIds | list[TokenIds]
    model: str
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, description="refused unless it is the model's own number")
    user: str | None = None


class OpenAIEmbedding(BaseModel):
    """A vector as numbers, or as little-endian float32 bytes in base64."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class OpenAIEmbeddings(BaseModel):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[OpenAIEmbedding]
    model: str
    usage: Usage


class OpenAIModel(BaseModel):
    """The model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(BaseModel):
    """List of the served models. It has one entry."""

    object: Literal["list"]
    data: list[OpenAIModel]
