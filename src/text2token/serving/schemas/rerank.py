"""Bodies of ``/v1/rerank``, in the form of Cohere and Jina."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from text2token.serving.schemas.common import Body, Texts, Usage


class Match(BaseModel):
    """A token, and what it adds to the cosine of two token vectors."""

    token: str
    amount: float


class CohereRerankRequest(Body):
    """``POST /v1/rerank``."""

    model: str
    query: str
    documents: Texts
    top_n: Annotated[int, Field(ge=1)] | None = None
    return_documents: bool = False


class CohereDocument(BaseModel):
    """The text of a document."""

    text: str


class CohereRank(BaseModel):
    """A document, its score from 0 to 1, and the tokens that it shares with the query."""

    index: int
    relevance_score: float
    document: CohereDocument | None = None
    matches: list[Match]


class CohereRanks(BaseModel):
    """Documents by falling score."""

    id: str
    model: str
    results: list[CohereRank]
    usage: Usage
