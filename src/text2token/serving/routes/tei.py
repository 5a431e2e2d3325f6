"""The API of text-embeddings-inference, and reranking in the form of Cohere and Jina."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from typing import Any

import torch
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool
from torch import Tensor
from torch.nn.functional import normalize

from text2token import __version__
from text2token.model.vocabulary import spell
from text2token.serving.cosines import cosines
from text2token.serving.errors import ApiError
from text2token.serving.inputs import Inputs, as_ids, check_dimensions, check_model, named_prompt
from text2token.serving.responses import answer, errors
from text2token.serving.schemas.common import OpenAIError, TeiError
from text2token.serving.schemas.rerank import CohereRanks, CohereRerankRequest
from text2token.serving.schemas.tei import (
    DecodeRequest,
    EmbedRequest,
    EmbedSparseRequest,
    Info,
    Piece,
    RerankRank,
    RerankRequest,
    SimilarityRequest,
    SparseValue,
    TextSettings,
    TokenizeRequest,
)
from text2token.serving.service import Service, Timing, service_of

router = APIRouter(tags=["text-embeddings-inference"])
_MATCHES = 10  # tokens listed for a reranked document


@router.post("/embed", response_model=list[list[float]], responses=errors(TeiError))
async def embed(request: Request, body: EmbedRequest) -> Response:
    """Dense vectors."""
    service, timing = service_of(request), Timing()
    check_dimensions(service, body.dimensions)
    embeddings = await _embed(request, service, body.inputs, body, timing)
    vectors = service.model.plain.correct(embeddings)
    return answer(list((normalize(vectors) if body.normalize else vectors).numpy()), timing)


@router.post("/embed_sparse", response_model=list[list[SparseValue]], responses=errors(TeiError))
async def embed_sparse(request: Request, body: EmbedSparseRequest) -> Response:
    """Sparse vectors: token ids and weights, by falling weight."""
    service, timing = service_of(request), Timing()
    service.model.plain.require_calibration()
    embeddings = await _embed(request, service, body.inputs, body, timing)
    vectors = await run_in_threadpool(service.model.plain.sparsify, embeddings)
    rows = [
        [
            {"index": token, "value": weight}
            for token, weight in zip(ids.tolist(), weights.tolist(), strict=True)
            if weight
        ]
        for ids, weights in zip(vectors.ids, vectors.weights, strict=True)
    ]
    return answer(rows, timing)


@router.post("/similarity", response_model=list[float], responses=errors(TeiError))
async def similarity(request: Request, body: SimilarityRequest) -> Response:
    """Cosines between the dense vector of one text and those of other texts."""
    service, timing = service_of(request), Timing()
    inputs = body.inputs
    if not inputs.sentences:
        raise ApiError(422, "The list of sentences is empty: send at least one.", "Empty", param="sentences")
    texts = [inputs.source_sentence, *inputs.sentences]
    embeddings = await _embed(request, service, texts, body.parameters or TextSettings(), timing)
    return answer(cosines(service.model.plain, embeddings).numpy(), timing)


@router.post("/", include_in_schema=False)
async def embed_or_compare(request: Request, body: EmbedRequest | SimilarityRequest) -> Response:
    """Answer as ``/embed`` or ``/similarity``: the client of the Hugging Face hub sends both here."""
    return await (embed(request, body) if isinstance(body, EmbedRequest) else similarity(request, body))


@router.post("/rerank", response_model=list[RerankRank], responses=errors(TeiError))
async def rerank(request: Request, body: RerankRequest) -> Response:
    """Texts, ordered by the cosine of their dense vectors with that of the query, highest first."""
    service, timing = service_of(request), Timing()
    ids = await run_in_threadpool(
        as_ids, service, [body.query, *_some(body.texts, "texts")], timing,
        truncate=body.truncate, direction=body.truncation_direction,
    )  # fmt: skip
    raw = cosines(service.model.plain, await service.embed(request, ids, timing))
    scores = raw if body.raw_scores else (1 + raw) / 2
    ranks = [
        {"index": place, "score": float(scores[place])} | ({"text": body.texts[place]} if body.return_text else {})
        for place in scores.argsort(descending=True, stable=True).tolist()
    ]
    return answer(ranks, timing)


@router.post("/v1/rerank", response_model=CohereRanks, responses=errors(OpenAIError, 404))
async def rerank_with_reasons(request: Request, body: CohereRerankRequest) -> Response:
    """Documents, ordered by their cosine with the query, highest first, each with the tokens that both align with.

    A query or document that is too long is cut at its end.
    """
    service, timing = service_of(request), Timing()
    check_model(service, body.model)
    texts = [body.query, *_some(body.documents, "documents")]
    ids = await run_in_threadpool(as_ids, service, texts, timing, truncate=True)
    embeddings = await service.embed(request, ids, timing)
    scores = (1 + cosines(service.model.plain, embeddings)) / 2
    best = scores.argsort(descending=True, stable=True)[: body.top_n].tolist()
    matches = await run_in_threadpool(_matches, service, embeddings, best)
    content = {
        "id": uuid.uuid4().hex,
        "model": body.model,
        "results": [
            {"index": place, "relevance_score": float(scores[place]), "matches": found}
            | ({"document": {"text": body.documents[place]}} if body.return_documents else {})
            for place, found in zip(best, matches, strict=True)
        ],
        "usage": {"prompt_tokens": timing.tokens, "total_tokens": timing.tokens},
    }
    return answer(content, timing)


@router.post("/tokenize", response_model=list[list[Piece]], responses=errors(TeiError))
def tokenize(request: Request, body: TokenizeRequest) -> Any:
    """Tokens of texts as ``/embed`` reads them: after the prompt. Tokens of the template are marked as special."""
    service = service_of(request)
    texts = [body.inputs] if isinstance(body.inputs, str) else body.inputs
    service.check_count(len(texts))
    prompt = named_prompt(service, body.prompt_name)
    names = ("id", "text", "special", "start", "stop")
    pieces = service.model.request_tokenizer.pieces
    return [
        [dict(zip(names, piece, strict=True)) for piece in pieces(prompt + text, special=body.add_special_tokens)]
        for text in texts
    ]


@router.post("/decode", response_model=list[str], responses=errors(TeiError))
def decode(request: Request, body: DecodeRequest) -> list[str]:
    """Texts of token ids."""
    service = service_of(request)
    rows = [row for row in body.ids if isinstance(row, list)] or [
        [token for token in body.ids if isinstance(token, int)]
    ]
    service.check_count(len(rows))
    return [service.model.request_tokenizer.decode(row, skip_special=body.skip_special_tokens) for row in rows]


@router.get("/info", response_model=Info, responses={401: {"model": TeiError}})
def info(request: Request) -> Any:
    """The model and the limits of the server."""
    service = service_of(request)
    settings, plain = service.settings, service.model.plain
    return {
        "model_id": settings.model,
        "model_sha": service.fingerprint,
        "model_dtype": "bfloat16" if plain.bf16 else "float32",
        "served_model_name": settings.model,
        "model_type": {"embedding": {"pooling": service.pooling}},
        "max_concurrent_requests": settings.queue_tokens,
        "max_input_length": service.model.request_tokenizer.max_length,
        "max_batch_tokens": settings.batch_tokens,
        "max_batch_requests": None,
        "max_client_batch_size": settings.max_inputs,
        "auto_truncate": False,
        "tokenization_workers": 1,
        "version": __version__,
        "dimensions": service.dimensions,
        "sparse": plain.head is not None and plain.mean_logits is not None,
        "indexes": list(service.indexes),
        "writable": settings.writable,
        "against": settings.against,
    }


async def _embed(request: Request, service: Service, inputs: Inputs, settings: TextSettings, timing: Timing) -> Tensor:
    ids = await run_in_threadpool(
        as_ids, service, inputs, timing, prompt_name=settings.prompt_name, truncate=settings.truncate,
        direction=settings.truncation_direction,
    )  # fmt: skip
    return await service.embed(request, ids, timing)


def _some(texts: Sequence[str], name: str) -> Sequence[str]:
    if not texts:
        raise ApiError(422, f"The list of {name} is empty: send at least one.", "Empty", param=name)
    return texts


def _matches(service: Service, embeddings: Tensor, best: Sequence[int]) -> list[list[dict[str, Any]]]:
    """Return, for each of the best documents, the tokens that add most to the cosine of its token vector with the query's."""
    embedder = service.model.plain
    if embedder.head is None:
        return [[] for _ in best]
    weights = embedder.logits(embeddings[[0, *(place + 1 for place in best)]]).relu()
    parts = (normalize(weights[1:]) * normalize(weights[:1])).masked_fill_(
        ~embedder.displayed_tokens(filtered=False), 0
    )
    top = torch.topk(parts, min(_MATCHES, parts.shape[1]), dim=1)
    return [
        [
            {"token": token, "amount": amount}
            for token, amount in zip(spell(embedder.tokenizer, ids), amounts, strict=True)
            if amount > 0
        ]
        for ids, amounts in zip(top.indices.tolist(), top.values.tolist(), strict=True)
    ]
