"""OpenAI's API: embeddings and the list of models."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from text2token.serving.inputs import as_ids, check_dimensions, check_model
from text2token.serving.responses import answer, errors
from text2token.serving.schemas.common import OpenAIError
from text2token.serving.schemas.openai import OpenAIEmbeddings, OpenAIEmbeddingsRequest, OpenAIModels
from text2token.serving.service import Timing, service_of

router = APIRouter(prefix="/v1", tags=["OpenAI"])
_STARTED = int(time.time())


@router.post("/embeddings", response_model=OpenAIEmbeddings, responses=errors(OpenAIError, 404))
async def embeddings(request: Request, body: OpenAIEmbeddingsRequest) -> Response:
    """Dense vectors of texts or of token ids. Ids are those of the served model's tokenizer."""
    service, timing = service_of(request), Timing()
    check_model(service, body.model)
    check_dimensions(service, body.dimensions)
    ids = await run_in_threadpool(as_ids, service, body.input, timing)
    vectors = service.model.plain.densify(await service.embed(request, ids, timing)).numpy()
    rows: list[Any] = [encoded(vector) for vector in vectors] if body.encoding_format == "base64" else list(vectors)
    content = {
        "object": "list",
        "data": [{"object": "embedding", "index": place, "embedding": row} for place, row in enumerate(rows)],
        "model": body.model,
        "usage": {"prompt_tokens": timing.tokens, "total_tokens": timing.tokens},
    }
    return answer(content, timing)


@router.get("/models", response_model=OpenAIModels, responses={401: {"model": OpenAIError}})
async def models(request: Request) -> dict[str, Any]:
    """The model that is served."""
    name = service_of(request).settings.model
    return {"object": "list", "data": [{"id": name, "object": "model", "created": _STARTED, "owned_by": "text2token"}]}


def encoded(vector: np.ndarray[Any, np.dtype[np.float32]]) -> str:
    """Encode a vector as OpenAI's clients expect it: little-endian float32 bytes in base64."""
    return base64.b64encode(vector.astype("<f4").tobytes()).decode()
