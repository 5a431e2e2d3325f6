"""Names and settings of an index; apart from its code, so that the command line knows them without loading it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Side = Literal["sparse", "dense", "bm25"]
Mode = Literal["hybrid", Side]
FusionMethod = Literal["scores", "rrf"]
EngineName = Literal["embedded", "milvus", "seismic"]

HYBRID_WEIGHTS: dict[Side, float] = {"bm25": 1.0, "sparse": 0.5, "dense": 0.25}
"""Of the sides in a hybrid search, chosen on five sets of known items, without judgements (docs/search.md): the largest gain over
BM25 among the weights that nowhere lost half a point, with the first model they were tried on. Larger ones win more on text as
the model was trained on, less elsewhere.
"""


class VectorSettings(BaseModel):
    """How sparse vectors are made; kept with the index.

    Defaults were chosen on known items in Wikipedia paragraphs (docs/search.md). Shares from 0.3 to 0.8 and M from 16 to 64 are a
    plateau there, and a smaller M costs less.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    form: Literal["weighted", "paper"] = Field("weighted", description="ours, or that of arXiv 2406.17378")
    document_k: int = Field(128, ge=1, description="aligned tokens of a document")
    query_m: int = Field(16, ge=0, description="aligned tokens of a query; 0: none")
    document_share: float = Field(
        0.5,
        ge=0,
        description="weight of a document's strongest aligned token; 1: the most that a BM25 term weight can reach",
    )
    query_share: float = Field(
        0.5,
        ge=0,
        description="weight of a query's strongest aligned token; 1: as much as a word that occurs once in the query",
    )
    merge_forms: bool = Field(True, description="one column for ' cat', 'cat' and 'Cat'")
    parts: Literal["max", "sum"] = Field("max", description="how the parts of a long document become one")
