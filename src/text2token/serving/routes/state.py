"""The state of the server: probes, metrics, and the explorer page."""

from __future__ import annotations

import asyncio
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from text2token.serving.errors import ApiError
from text2token.serving.schemas.common import TeiError
from text2token.serving.schemas.tei import Health
from text2token.serving.service import service_of

router = APIRouter(tags=["state"])
EXPLORER = Path(__file__).parents[1] / "explorer"


@router.get("/health", response_model=Health, responses={503: {"model": TeiError}})
async def health(request: Request) -> Any:
    """Check that the model answers. If it was idle for a minute, the check runs the model."""
    service = service_of(request)
    if not await asyncio.get_running_loop().run_in_executor(service.probes, service.model.worker.is_alive):
        raise ApiError(503, "The model does not answer: restart the server.", "Unhealthy")
    return {"status": "ok"}


@router.get("/ready", response_model=Health, responses={503: {"model": TeiError}})
async def ready(request: Request) -> Any:
    """Check that the server takes requests: the model is loaded, and the server does not shut down."""
    if not service_of(request).ready:
        raise ApiError(503, "The server is starting or shutting down: try again later.", "Unhealthy")
    return {"status": "ok"}


@router.get("/metrics", response_class=Response, responses={401: {"model": TeiError}})
async def metrics(request: Request) -> Response:
    """Metrics in the format of Prometheus."""
    return Response(generate_latest(service_of(request).metrics.registry), media_type=CONTENT_TYPE_LATEST)


@router.get("/explorer/report.css", include_in_schema=False)
def style() -> Response:
    """The style sheet of all our pages."""
    return Response(
        (files("text2token.utils") / "templates" / "style.css.j2").read_text("utf-8"), media_type="text/css"
    )


@router.get("/", include_in_schema=False)
def explorer() -> FileResponse:
    """The page of the explorer."""
    return FileResponse(EXPLORER / "index.html")
