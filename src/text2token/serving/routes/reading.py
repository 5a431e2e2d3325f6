"""Routes that explain a vector, or compare two texts; the explorer uses them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.concurrency import run_in_threadpool

from text2token.analysis.explain import TokenPart, explain_instructions, explain_pair
from text2token.model.decoding import AlignedToken
from text2token.model.embedder import Embedder
from text2token.serving.cosines import cosines
from text2token.serving.errors import ApiError
from text2token.serving.responses import answer, errors
from text2token.serving.schemas.common import TeiError
from text2token.serving.schemas.reading import CompareRequest, ExplainRequest, Explanation, PairComparison
from text2token.serving.service import Service, Timing, service_of
from text2token.utils.page import bars

router = APIRouter(tags=["reading"])


@router.post("/explain", response_model=Explanation, responses=errors(TeiError))
async def explain(request: Request, body: ExplainRequest) -> Response:
    """Aligned tokens of a text, with and without instructions, and those of the plain backbone."""
    service, timing = service_of(request), Timing()
    text, *instructions = await run_in_threadpool(checked, service, [body.text, *body.instructions])
    if body.against and service.against is None:
        raise ApiError(422, "This server has no plain backbone: start it with --against.", param="against")

    def work() -> dict[str, Any]:
        shown: dict[str, Any] = {"k": body.k, "filtered": body.filtered}
        read = explain_instructions(service.model.embedder, text, instructions, **shown)
        plain = service.against.embedder.explain([text], **shown)[0] if body.against and service.against else None
        return {
            "tokens": _tokens(read[""].tokens, text),
            "against": None if plain is None else _tokens(plain, text),
            "instructions": [
                {
                    "instruction": instruction,
                    "tokens": _tokens(read[instruction].tokens, text),
                    "rose": _parts(read[instruction].rose),
                    "fell": _parts(read[instruction].fell),
                }
                for instruction in dict.fromkeys(instructions)
            ],
        }

    return answer(await service.run(request, timing, work), timing)


@router.post("/compare", response_model=PairComparison, responses=errors(TeiError))
async def compare(request: Request, body: CompareRequest) -> Response:
    """Tokens that make two texts similar, and tokens that make them different."""
    service, timing = service_of(request), Timing()
    first_text, second_text = await run_in_threadpool(checked, service, [body.first, body.second])
    pair = first_text, second_text

    def work() -> dict[str, Any]:
        embedder: Embedder = service.model.embedder
        read = explain_pair(embedder, pair, k=body.k, filtered=body.filtered)
        return {
            "cosine": read.cosine,
            "dense_cosine": float(cosines(embedder, embedder.embed(pair))),
            "dot": read.dot,
            "alike": _parts(read.alike),
            "in_first": _parts(read.in_first),
            "in_second": _parts(read.in_second),
        }

    return answer(await service.run(request, timing, work), timing)


def checked(service: Service, texts: Sequence[str]) -> list[str]:
    """Check that the model can read the complete texts, and return them without surrounding white space.

    Raises:
        ApiError: A text is empty or too long.
    """
    service.model.request_tokenizer.encode(texts)
    return [text.strip() for text in texts]


def _tokens(tokens: Sequence[AlignedToken], text: str) -> list[dict[str, Any]]:
    return [{"token": bar.token, "weight": bar.weight, "literal": bar.in_text} for bar in bars(tokens, text)]


def _parts(parts: Sequence[TokenPart]) -> list[dict[str, Any]]:
    return [part._asdict() for part in parts]
