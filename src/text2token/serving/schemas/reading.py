"""Bodies of the routes that explain vectors."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from text2token.serving.schemas.common import Body, Count, Texts


class ExplainRequest(Body):
    """``POST /explain``."""

    text: str
    k: Count = 20
    filtered: bool = Field(False, description="leave out stop words, punctuation and pieces of characters")
    instructions: Annotated[Texts, Field(max_length=8)] = Field([])
    against: bool = Field(False, description="show the plain backbone too, if the server has one")


class ShownToken(BaseModel):
    """An aligned token. ``literal`` is true if the text contains it."""

    token: str
    weight: float
    literal: bool


class TokenPart(BaseModel):
    """A token's weights in two vectors, and what it contributes to the sum."""

    token: str
    first: float
    second: float
    part: float


class UnderInstruction(BaseModel):
    """The aligned tokens under an instruction, and the tokens that rose or fell because of it."""

    instruction: str
    tokens: list[ShownToken]
    rose: list[TokenPart]
    fell: list[TokenPart]


class Explanation(BaseModel):
    """The aligned tokens of a text."""

    tokens: list[ShownToken]
    against: list[ShownToken] | None
    instructions: list[UnderInstruction]


class CompareRequest(Body):
    """``POST /compare``."""

    first: str
    second: str
    k: Count = 15
    filtered: bool = False


class PairComparison(BaseModel):
    """The tokens that make two texts similar or different, the cosine of their token logits and that of their dense vectors."""

    cosine: float
    dense_cosine: float
    dot: float
    alike: list[TokenPart]
    in_first: list[TokenPart]
    in_second: list[TokenPart]
