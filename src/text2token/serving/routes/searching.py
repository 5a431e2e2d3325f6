"""Routes that search the indexes of the server and change their documents."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from text2token.data.text import clean, clean_id
from text2token.search import Document, Fusion, Index, SearchHit
from text2token.search.documents import simple_metadata
from text2token.serving.errors import ApiError, as_api_error
from text2token.serving.responses import answer, errors
from text2token.serving.schemas.common import TeiError
from text2token.serving.schemas.searching import (
    AddRequest,
    Changed,
    DeleteRequest,
    Indexes,
    ManySearchRequest,
    Map,
    SearchRequest,
    SearchResults,
    SearchSettings,
    StoredDocument,
)
from text2token.serving.service import ClientGoneError, Service, Timing, service_of
from text2token.settings.search import HYBRID_WEIGHTS

router = APIRouter(tags=["search"])
log = logging.getLogger(__name__)


@router.get("/indexes", response_model=Indexes, responses={401: {"model": TeiError}, 503: {"model": TeiError}})
def indexes(request: Request) -> Any:
    """The indexes that this server searches."""
    service = service_of(request)
    return {
        "indexes": [
            {"name": name, "documents": len(index), "fields": list(index.fields), "writable": service.settings.writable}
            for name, index in service.indexes.items()
        ]
    }


@router.get("/map", response_model=Map, responses=errors(TeiError, 404, 503))
async def plane(request: Request, index: str) -> Response:
    """Documents of an index on a plane. Documents with similar aligned tokens lie close together."""
    service, timing = service_of(request), Timing()
    service.index(index)
    return answer(await service.run(request, timing, service.planes[index].get), timing)


@router.post("/search", response_model=SearchResults, responses=errors(TeiError, 404, 503))
async def search(request: Request, body: SearchRequest) -> Response:
    """The best documents of each index for a query, each with the tokens that matched."""
    service, timing = service_of(request), Timing()
    asked = _asked(service, body)
    return answer({"results": await service.run(request, timing, lambda: _search(asked, body.query, body))}, timing)


@router.post(
    "/search/stream",
    response_class=StreamingResponse,
    responses={
        **errors(TeiError, 404),
        200: {"content": {"application/x-ndjson": {}}, "description": "one line for each query"},
    },
)
async def search_many(request: Request, body: ManySearchRequest) -> StreamingResponse:
    """Search many queries. Each line of the response is a JSON object: the number of a query and the results of ``/search``.

    A query that fails ends the stream: the last line then has ``error`` and ``error_type`` in place of ``results``.
    """
    service = service_of(request)
    service.check_count(len(body.queries))
    asked = _asked(service, body)

    async def lines() -> AsyncIterator[bytes]:
        for number, query in enumerate(body.queries):
            try:
                found = await service.run(request, Timing(), partial(_search, asked, query, body))
                line = orjson.dumps({"query": number, "results": found})
            except ClientGoneError:
                return
            except Exception as error:
                told = as_api_error(error)
                if told.status == 500:
                    log.exception("A query of a stream failed")
                yield orjson.dumps({"query": number, "error": told.message, "error_type": told.kind}) + b"\n"
                return
            yield line + b"\n"

    return StreamingResponse(lines(), media_type="application/x-ndjson")


@router.post("/indexes/{name}/documents", response_model=Changed, responses=errors(TeiError, 403, 404, 409, 503))
async def add(request: Request, name: str, body: AddRequest) -> Response:
    """Add documents, or replace documents with the same ids. They can be found as soon as the response arrives."""
    service, timing = service_of(request), Timing()
    index = _writable(service, name)
    documents = [_document(place, row) for place, row in enumerate(body.documents)]
    service.check_count(len(documents))
    return await _change(request, service, name, timing, lambda: index.add(documents))


@router.delete("/indexes/{name}/documents", response_model=Changed, responses=errors(TeiError, 403, 404, 409, 503))
async def delete(request: Request, name: str, body: DeleteRequest) -> Response:
    """Delete documents. Unknown ids are ignored."""
    service, timing = service_of(request), Timing()
    index = _writable(service, name)
    return await _change(request, service, name, timing, lambda: index.delete([clean_id(key) for key in body.ids]))


async def _change(request: Request, service: Service, name: str, timing: Timing, change: Callable[[], int]) -> Response:
    """Change an index. Requests of one server wait for each other; the lock of another process is an error."""
    changed = await service.write(request, timing, name, change)
    return answer({"changed": changed, "documents": len(service.indexes[name])}, timing)


def _asked(service: Service, body: SearchSettings) -> dict[str, Index]:
    names = list(service.indexes) if body.indexes is None else body.indexes
    if not names:
        raise ApiError(404, "This server has no index: start it with --index.", "NotFound", param="indexes")
    return {name: service.index(name) for name in names}


def _search(indexes: dict[str, Index], query: str, body: SearchSettings) -> list[dict[str, Any]]:
    fusion = Fusion(body.fusion, body.weights or (HYBRID_WEIGHTS if body.fusion == "scores" else {}))
    results = []
    for name, index in indexes.items():
        found = index.search(
            query, body.k, body.mode, inference_free=body.inference_free, fusion=fusion, filters=body.filters
        )
        results.append({"index": name, "hits": [_hit(hit) for hit in found.hits], "note": found.note})
    return results


def _hit(hit: SearchHit) -> dict[str, Any]:
    metadata = simple_metadata(hit.metadata)  # an older index can hold integers beyond 64 bits
    return {**hit._asdict(), "matches": [match._asdict() for match in hit.matches], "metadata": metadata}


def _document(place: int, row: StoredDocument) -> Document:
    document = Document(clean_id(row.id), clean(row.title), clean(row.text), row.metadata)
    if not document.id or not document.content:
        raise ApiError(422, f"Document {place} has no id or no text: give it both.", "Empty", param="documents")
    return document


def _writable(service: Service, name: str) -> Index:
    index = service.index(name)
    if not service.settings.writable:
        raise ApiError(403, "The indexes of this server are read-only: start it with --writable to change them.")
    return index
