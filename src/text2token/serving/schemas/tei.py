"""Bodies of the API of text-embeddings-inference."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field

from text2token.serving.schemas.common import Body, Texts, TokenIds

Direction = Annotated[
    Literal["left", "right"],
    BeforeValidator(
        lambda value: value.lower() if value in ("Left", "Right") else value,
        json_schema_input_type=Literal["left", "right", "Left", "Right"],
    ),
]
"""The capital forms are those of text-embeddings-inference."""


Flag = Annotated[
    bool,
    BeforeValidator(lambda value: False if value is None else value, json_schema_input_type=bool | None),
]
"""A truth value; null is false, as in text-embeddings-inference."""


class Truncation(Body):
    """Treatment of a text that is too long."""

    truncate: Flag = Field(False, description="cut a text that is too long; otherwise it is an error")
    truncation_direction: Direction = Field("right", description="end at which a text is cut")


class TextSettings(Truncation):
    """Settings of how texts are read."""

    prompt_name: str | None = Field(None, description="name of the model's prompt that is put before each text")


class EmbedRequest(TextSettings):
    """``POST /embed``."""

    inputs: str | Texts | TokenIds | list[TokenIds]
    normalize: bool = True
    dimensions: int | None = Field(None, description="refused unless it is the model's own number")


class EmbedSparseRequest(TextSettings):
    """``POST /embed_sparse``."""

    inputs: str | Texts | TokenIds | list[TokenIds]


class SparseValue(BaseModel):
    """A vocabulary entry and its weight."""

    index: int
    value: float


class SimilarityInputs(Body):
    """A text, and the texts to compare it with."""

    source_sentence: str
    sentences: Texts


class SimilarityRequest(Body):
    """``POST /similarity``."""

    inputs: SimilarityInputs
    parameters: TextSettings | None = None


class RerankRequest(Truncation):
    """``POST /rerank``."""

    query: str
    texts: Texts
    raw_scores: bool = Field(False, description="cosines from -1 to 1; otherwise they are mapped to 0 to 1")
    return_text: bool = False


class RerankRank(BaseModel):
    """A text and its score."""

    index: int
    score: float
    text: str | None = None


class TokenizeRequest(Body):
    """``POST /tokenize``."""

    inputs: str | Texts
    add_special_tokens: bool = Field(True, description="show the template of the model too")
    prompt_name: str | None = Field(None, description="name of the model's prompt that is put before each text")


class Piece(BaseModel):
    """A token of a text, and the characters ``start`` to ``stop`` of prompt and text that it stands for."""

    id: int
    text: str
    special: bool
    start: int | None
    stop: int | None


class DecodeRequest(Body):
    """``POST /decode``."""

    ids: TokenIds | list[TokenIds]
    skip_special_tokens: bool = True


class Info(BaseModel):
    """The model and the limits of the server."""

    model_id: str
    model_sha: str
    model_dtype: str
    served_model_name: str
    model_type: dict[str, Any]
    max_concurrent_requests: int
    max_input_length: int
    max_batch_tokens: int
    max_batch_requests: int | None
    max_client_batch_size: int
    auto_truncate: bool
    tokenization_workers: int
    version: str
    dimensions: int
    sparse: bool
    indexes: list[str]
    writable: bool
    against: str | None


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok"]
