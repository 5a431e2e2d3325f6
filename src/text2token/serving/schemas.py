"""Bodies of requests and responses, as the OpenAPI document shows them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StrictInt, StrictStr

TokenIds = list[StrictInt]
Texts = list[StrictStr]
Direction = Annotated[
    Literal["left", "right"], BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Mode = Literal["hybrid", "sparse", "dense", "bm25"]
Count = Annotated[int, Field(ge=1, le=1_000)]


class Body(BaseModel):
    """A request; fields that are not known are ignored, as the APIs that we speak do."""

    model_config = ConfigDict(extra="ignore")


class TeiError(BaseModel):
    """An error of text-embeddings-inference."""

    error: str
    error_type: str


class OpenAIErrorDetail(BaseModel):
    """What is wrong."""

    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    """An error of OpenAI's API."""

    error: OpenAIErrorDetail


class Usage(BaseModel):
    """Tokens of the inputs, with the template around each."""

    prompt_tokens: int
    total_tokens: int


class OpenAIEmbeddingsRequest(Body):
    """``POST /v1/embeddings``."""

    input: StrictStr | Texts | TokenIds | list[TokenIds]
    model: StrictStr
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = Field(None, description="refused unless it is the model's own number")
    user: StrictStr | None = None


class OpenAIEmbedding(BaseModel):
    """One vector: numbers, or their little-endian float32 bytes in base64."""

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
    """All models that are served: one."""

    object: Literal["list"]
    data: list[OpenAIModel]


class Truncation(Body):
    """What happens to a text that is too long."""

    truncate: bool = Field(False, description="cut a text that is too long; otherwise it is an error")
    truncation_direction: Direction = Field("right", description="end that is cut")


class EmbedRequest(Truncation):
    """``POST /embed``."""

    inputs: StrictStr | Texts | TokenIds | list[TokenIds]
    normalize: bool = True
    prompt_name: StrictStr | None = None
    dimensions: StrictInt | None = Field(None, description="refused unless it is the model's own number")


class EmbedSparseRequest(Truncation):
    """``POST /embed_sparse``."""

    inputs: StrictStr | Texts | TokenIds | list[TokenIds]
    prompt_name: StrictStr | None = None


class SparseValue(BaseModel):
    """A vocabulary entry and its weight."""

    index: int
    value: float


class SimilarityInputs(BaseModel):
    """One text, and those that it is compared with."""

    source_sentence: StrictStr
    sentences: Texts


class SimilarityRequest(Body):
    """``POST /similarity``."""

    inputs: SimilarityInputs
    parameters: dict[str, Any] | None = None


class RerankRequest(Truncation):
    """``POST /rerank``."""

    query: StrictStr
    texts: Texts
    raw_scores: bool = Field(False, description="cosines from -1 to 1; otherwise they are mapped to 0 to 1")
    return_text: bool = False


class RerankRank(BaseModel):
    """A text and its score, with the tokens that query and text have in common."""

    index: int
    score: float
    text: str | None = None


class Match(BaseModel):
    """A token, and what it adds to the cosine of two token vectors."""

    token: str
    amount: float


class CohereRerankRequest(Body):
    """``POST /v1/rerank``."""

    model: StrictStr
    query: StrictStr
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


class TokenizeRequest(Body):
    """``POST /tokenize``."""

    inputs: StrictStr | Texts
    add_special_tokens: bool = Field(True, description="show the template of the model too")
    prompt_name: StrictStr | None = None


class Piece(BaseModel):
    """A token of a text."""

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


class ExplainRequest(Body):
    """``POST /explain``."""

    text: StrictStr
    k: Count = 20
    filtered: bool = Field(False, description="show no stop words, punctuation and pieces of characters")
    instructions: Annotated[Texts, Field(max_length=8)] = []
    against: bool = Field(False, description="show the plain backbone too, if the server has one")


class ShownToken(BaseModel):
    """An aligned token; ``literal``: the text holds it."""

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
    """What an instruction changes: tokens under it, those that rose and those that fell."""

    instruction: str
    tokens: list[ShownToken]
    rose: list[TokenPart]
    fell: list[TokenPart]


class Explanation(BaseModel):
    """What a vector says."""

    tokens: list[ShownToken]
    against: list[ShownToken] | None
    instructions: list[UnderInstruction]


class CompareRequest(Body):
    """``POST /compare``."""

    first: StrictStr
    second: StrictStr
    k: Count = 15
    filtered: bool = False


class PairComparison(BaseModel):
    """Why two texts are near or far; ``cosine`` is that of their token logits, ``dense_cosine`` that of their dense vectors."""

    cosine: float
    dense_cosine: float
    dot: float
    alike: list[TokenPart]
    in_first: list[TokenPart]
    in_second: list[TokenPart]


class SearchSettings(Body):
    """How an index is searched."""

    indexes: Annotated[Texts, Field(min_length=1, max_length=100)] | None = Field(None, description="default: all")
    k: Count = 10
    mode: Mode = "hybrid"
    inference_free: bool = Field(False, description="match the words of the query alone; the model does not run")
    fusion: Literal["scores", "rrf"] = "scores"
    weights: dict[Literal["sparse", "dense", "bm25"], Weight] = {}
    filters: Annotated[Texts, Field(max_length=20)] = Field([], description="conditions on metadata, as year>=2020")


class SearchRequest(SearchSettings):
    """``POST /search``."""

    query: StrictStr


class ManySearchRequest(SearchSettings):
    """``POST /search/stream``."""

    queries: Annotated[Texts, Field(min_length=1)]


class HitMatch(BaseModel):
    """A token or word that query and document share, and what it gave to the score."""

    token: str
    field: str
    amount: float


class SearchHit(BaseModel):
    """A document and what made it a hit."""

    id: str
    score: float
    title: str
    snippet: str
    dense: float
    matches: list[HitMatch]
    metadata: dict[str, str | bool | int | float]


class IndexHits(BaseModel):
    """Hits of one index; ``note`` says what could not be used of the query."""

    index: str
    hits: list[SearchHit]
    note: str | None


class SearchResults(BaseModel):
    """Hits of each index asked."""

    results: list[IndexHits]


class StoredDocument(BaseModel):
    """A document of an index."""

    id: StrictStr
    title: StrictStr = ""
    text: StrictStr
    metadata: dict[StrictStr, StrictStr | StrictBool | StrictInt | float] = {}


class AddRequest(Body):
    """``POST /indexes/{name}/documents``."""

    documents: Annotated[list[StoredDocument], Field(min_length=1)]


class DeleteRequest(Body):
    """``DELETE /indexes/{name}/documents``."""

    ids: Annotated[Texts, Field(min_length=1)]


class Changed(BaseModel):
    """How many documents were encoded or deleted, and how many the index holds now."""

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
    """A document on the plane, and its strongest token."""

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


class Health(BaseModel):
    """The state of the server."""

    status: Literal["ok"]
