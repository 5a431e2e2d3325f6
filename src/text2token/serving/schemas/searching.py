"""Bodies of the routes that search indexes and change them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, Field

from text2token.serving.schemas.common import Body, Count, Texts
from text2token.settings.search import FieldName, FusionMethod, Mode

Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class SearchSettings(Body):
    """Settings of a search."""

    indexes: Annotated[Texts, Field(min_length=1, max_length=100)] | None = Field(None, description="default: all")
    k: Count = 10
    mode: Mode = "hybrid"
    inference_free: bool = Field(False, description="match only the words of the query, without running the model")
    fusion: FusionMethod = "scores"
    weights: dict[FieldName, Weight] = Field({})
    filters: Annotated[Texts, Field(max_length=20)] = Field(
        [], description="conditions on metadata, such as year>=2020"
    )


class SearchRequest(SearchSettings):
    """``POST /search``."""

    query: str


class ManySearchRequest(SearchSettings):
    """``POST /search/stream``."""

    queries: Annotated[Texts, Field(min_length=1)]


class HitMatch(BaseModel):
    """A token or word that query and document share, and its part of the score."""

    token: str
    field: str
    amount: float


class SearchHit(BaseModel):
    """A document that was found, and the tokens that matched."""

    id: str
    score: float
    title: str
    snippet: str
    dense: float
    matches: list[HitMatch]
    metadata: dict[str, str | bool | int | float]


class IndexHits(BaseModel):
    """Hits of one index. ``note`` names fields in which no word of the query is known."""

    index: str
    hits: list[SearchHit]
    note: str | None


class SearchResults(BaseModel):
    """Hits of each searched index."""

    results: list[IndexHits]


class StoredDocument(Body):
    """A document of an index."""

    id: str
    title: str = ""
    text: str
    metadata: dict[str, str | bool | int | float] = Field({})


class AddRequest(Body):
    """``POST /indexes/{name}/documents``."""

    documents: Annotated[list[StoredDocument], Field(min_length=1)]


class DeleteRequest(Body):
    """``DELETE /indexes/{name}/documents``."""

    ids: Annotated[Texts, Field(min_length=1)]


class Changed(BaseModel):
    """Number of documents that were encoded or deleted, and number of documents now in the index."""

    changed: int
    documents: int


class IndexInfo(BaseModel):
    """An index that the server searches."""

    name: str
    documents: int
    fields: list[str]
    writable: bool


class Indexes(BaseModel):
    """All indexes of the server."""

    indexes: list[IndexInfo]


class Point(BaseModel):
    """Place of a document on the plane, and its strongest token."""

    id: str
    title: str
    text: str
    token: str
    x: float
    y: float


class Map(BaseModel):
    """Documents of an index on a plane: all of them, or a sample of a large index."""

    points: list[Point]
    documents: int
