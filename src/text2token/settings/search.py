"""Names and settings of an index. They stand apart from the search code, so that the command line starts quickly."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from text2token.settings.corrections import parse_steps, split_steps

FieldName = Literal["sparse", "dense", "bm25"]
"""A field of an index: one kind of vectors, which can be searched alone."""
Mode = Literal["hybrid", FieldName]
FusionMethod = Literal["scores", "rrf"]
EngineName = Literal["embedded", "milvus", "postgres", "qdrant"]

HYBRID_WEIGHTS: dict[FieldName, float] = {"bm25": 1.0, "sparse": 0.5, "dense": 0.25}
"""Weights of the fields in a hybrid search.

Among the weightings that never lost more than half a point to BM25 on five sets of known items, these had the largest mean gain.
They were tuned with an earlier model, without judgements; see docs/results-search.md.
"""


LANGUAGES: dict[str, str | None] = {
    "arabic": "ar", "armenian": "hy", "basque": "eu", "catalan": "ca", "danish": "da", "dutch": "nl", "english": "en",
    "finnish": "fi", "french": "fr", "german": "de", "greek": "el", "hindi": "hi", "hungarian": "hu", "indonesian": "id",
    "irish": "ga", "italian": "it", "lithuanian": "lt", "nepali": None, "norwegian": "no", "portuguese": "pt", "romanian": "ro",
    "russian": "ru", "serbian": None, "spanish": "es", "swedish": "sv", "tamil": None, "turkish": "tr", "yiddish": None,
    "none": None,
}  # fmt: skip
"""Languages that Snowball has a stemmer for, each with the code of its stop list if there is one; ``none`` stems nothing."""


class VectorSettings(BaseModel):
    """Number and weight of aligned tokens in sparse vectors. The index keeps these settings.

    The defaults were chosen on known items in Wikipedia paragraphs (docs/results-search.md). Shares from 0.3 to 0.8 and
    ``query_m`` from 16 to 64 score about the same there, and a smaller ``query_m`` makes a search cheaper.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document_k: int = Field(128, ge=1, description="aligned tokens of a document")
    query_m: int = Field(16, ge=0, description="aligned tokens of a query; 0: none")
    document_share: float = Field(
        0.5,
        ge=0,
        description="weight of a document's strongest aligned token; 1: the largest BM25 weight that a word can have",
    )
    query_share: float = Field(
        0.5,
        ge=0,
        description="weight of a query's strongest aligned token; 1: as much as a word that occurs once in the query",
    )


class Calibration(BaseModel):
    """Settings of the corpus mean and correction that an untrained backbone learns from the documents of its index.

    The defaults are those of :class:`text2token.settings.recipe.Recipe`.

    Attributes:
        correction: Steps joined by ``+``, or ``none``; see :mod:`text2token.settings.corrections`.
        keep_from: Start of the part of the spectrum that the step ``filter`` keeps, from 0 to 1.
        keep_to: End of that part.
        texts: Documents that are read.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    correction: str = "centre+filter"
    keep_from: float = Field(0.02, ge=0, le=1)
    keep_to: float = Field(0.9, ge=0, le=1)
    texts: int = Field(500, ge=1)

    @model_validator(mode="after")
    def _fits_together(self) -> Calibration:
        if self.keep_from >= self.keep_to:
            raise ValueError(f"keep_from ({self.keep_from}) must be below keep_to ({self.keep_to})")
        parse_steps(split_steps(self.correction))
        return self
