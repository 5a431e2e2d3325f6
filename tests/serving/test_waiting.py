"""Requests that wait leave the others alone, and those whose clients have gone change and log nothing."""

import asyncio
import gc
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from conftest import SENTENCES
from text2token.model.embedder import Embedder
from text2token.search import Index
from text2token.serving import ServerSettings, Service, create_app, worker
from text2token.serving.routes import searching
from text2token.serving.tokens import RequestTokenizer

MANY = 45  # more than the threads of the pool
PATIENCE = 20.0  # seconds


@pytest.fixture
def own_index(index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "own")
    return {"own": tmp_path / "own"}


@contextmanager
def many_wait(monkeypatch, owner, name, ask):
    """Make many requests whose call of ``name`` waits until the end of the block; gives a pool for other requests."""
    begun, free = [], threading.Event()

    def counted(check):
        return lambda *given: begun.append(1) or check(*given)

    def waiting(*_given, **_more):
        assert free.wait(60)
        return 1 if name == "add" else []

    monkeypatch.setattr(owner, name, waiting)
    for check in ("_asked", "_writable"):  # with which every search and every change begins
        monkeypatch.setattr(searching, check, counted(getattr(searching, check)))
    with ThreadPoolExecutor(MANY + 5) as pool:
        asked = [pool.submit(ask, number) for number in range(MANY)]
        try:
            while len(begun) < MANY:
                time.sleep(0.01)
            yield pool
        finally:
            free.set()
        assert {answer.result(PATIENCE).status_code for answer in asked} == {200}


def test_writers_that_wait_hold_no_threads(serve, model_folder, own_index, monkeypatch):
    client = serve(Embedder.open(model_folder), indexes=own_index, writable=True)

    def add(number):
        return client.post("/indexes/own/documents", json={"documents": [{"id": f"z{number}", "text": "A zebra."}]})

    with many_wait(monkeypatch, Index, "add", add) as pool:
        for answer in (
            pool.submit(client.post, "/embed", json={"inputs": "a cat"}),
            pool.submit(client.post, "/search", json={"query": "a cat"}),
            pool.submit(client.get, "/health"),
        ):
            assert answer.result(PATIENCE).status_code == 200


def test_probes_and_metrics_answer_when_all_threads_are_taken(serve, model_folder, own_index, monkeypatch):
    client = serve(Embedder.open(model_folder), indexes=own_index)
    monkeypatch.setattr(worker, "_IDLE", 0.0)  # so that the probe runs the model

    def search(_):
        return client.post("/search", json={"query": "a cat"})

    with many_wait(monkeypatch, searching, "_search", search) as pool:
        for path in ("/health", "/ready", "/metrics"):
            assert pool.submit(client.get, path).result(PATIENCE).status_code == 200


def test_texts_are_tokenized_outside_of_the_event_loop(client, monkeypatch):
    encode, loops = RequestTokenizer.encode, []

    def watched(*given, **more):
        loops.append(asyncio._get_running_loop())
        return encode(*given, **more)

    monkeypatch.setattr(RequestTokenizer, "encode", watched)
    for path, body in (
        ("/embed", {"inputs": "a"}),
        ("/explain", {"text": "a", "instructions": ["b"]}),
        ("/compare", {"first": "a", "second": "b"}),
    ):
        assert client.post(path, json=body).status_code == 200
    assert loops
    assert set(loops) == {None}


async def ask(app, path, body, gone):
    """Make one request, whose client hangs up when ``gone`` is set. Gives what was sent."""
    unread, sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}], []

    async def receive():
        if unread:
            return unread.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    await app(scope, receive, send)
    return sent


def test_a_writer_that_is_gone_before_its_turn_changes_nothing(model_folder, own_index, monkeypatch):
    service = Service(ServerSettings("tiny", own_index, writable=True), Embedder.open(model_folder))
    app, added, begun, free = create_app(service), [], threading.Event(), threading.Event()

    def add(_, documents):
        begun.set()
        assert free.wait(60)
        added.extend(document.id for document in documents)
        return len(documents)

    monkeypatch.setattr(Index, "add", add)

    async def check():
        async with app.router.lifespan_context(app):
            leaves = [asyncio.Event() for _ in range(3)]
            asked = []
            for number, gone in enumerate(leaves):
                body = {"documents": [{"id": f"z{number}", "text": "A zebra."}]}
                asked.append(asyncio.create_task(ask(app, "/indexes/own/documents", body, gone)))
                await asyncio.to_thread(begun.wait, PATIENCE)
            await asyncio.sleep(0.1)
            leaves[0].set()  # its change has begun and goes on
            leaves[1].set()
            assert [await asked[0], await asked[1]] == [[], []]
            free.set()
            assert (await asked[2])[0]["status"] == 200

    asyncio.run(check())
    assert added == ["z0", "z2"]
    assert service.planes["own"].changes == 2  # so that the map shows both


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings"])
def test_a_request_that_a_shutdown_ends_is_answered(model_folder, monkeypatch, path):
    service = Service(ServerSettings("tiny"), Embedder.open(model_folder))
    app, begun, free, forward = create_app(service), threading.Event(), threading.Event(), worker.forward

    def waiting(*given, **how):
        begun.set()
        assert free.wait(60)
        return forward(*given, **how)

    monkeypatch.setattr(worker, "forward", waiting)

    async def check():
        async with app.router.lifespan_context(app):
            body = {"inputs": "a cat"} if path == "/embed" else {"model": "tiny", "input": "a cat"}
            asked = asyncio.create_task(ask(app, path, body, asyncio.Event()))
            await asyncio.to_thread(begun.wait, PATIENCE)
            asked.cancel()  # as uvicorn does at its limit
            start, content = await asked
            free.set()
        return start["status"], json.loads(content["body"])["error"]

    status, error = asyncio.run(check())
    assert status == 503
    assert (error["message"] if path.startswith("/v1") else error) == "The server shuts down: repeat the request later."


def test_work_that_fails_after_its_client_has_gone_is_not_logged(model_folder, own_index, monkeypatch):
    service = Service(ServerSettings("tiny", own_index), Embedder.open(model_folder))
    app, begun, free, logged = create_app(service), threading.Event(), threading.Event(), []

    def failing(*_):
        begun.set()
        assert free.wait(60)
        raise RuntimeError("nobody waits for this")

    monkeypatch.setattr(searching, "_search", failing)

    async def check():
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context["message"]))
        async with app.router.lifespan_context(app):
            gone = asyncio.Event()
            asked = asyncio.create_task(ask(app, "/search", {"query": SENTENCES[0]}, gone))
            await asyncio.to_thread(begun.wait, PATIENCE)
            gone.set()
            assert await asked == []
            free.set()
            while asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.sleep(0.01)
            gc.collect()

    asyncio.run(check())
    assert logged == []
