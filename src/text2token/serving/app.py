"""The server as an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.concurrency import run_in_threadpool

from text2token.serving.errors import install_handlers
from text2token.serving.middleware import Gate
from text2token.serving.routes import openai, reading, searching, state, tei
from text2token.serving.service import Service


def create_app(service: Service, trace: Callable[[FastAPI], Callable[[], None]] | None = None) -> FastAPI:
    """Return the ASGI application of a server. The workers run from its start-up to its shutdown.

    Args:
        service: Models, indexes and limits of the server.
        trace: Instruments the application, and returns what is called at shutdown; see :func:`text2token.serving.traces.trace`.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.stop)
        if end_traces:
            await run_in_threadpool(end_traces)

    app = FastAPI(
        title="text2token",
        description="Dense, sparse and readable vectors of one model, and search with them.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
    )
    app.state.service = service
    install_handlers(app)
    app.add_middleware(Gate, service=service)
    for module in (openai, tei, reading, searching, state):
        app.include_router(module.router)
    app.mount("/explorer", StaticFiles(directory=state.EXPLORER), name="explorer")
    end_traces = trace(app) if trace else None
    return app
