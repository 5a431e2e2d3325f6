"""Spans of requests."""

import pytest

from conftest import refused
from text2token import UserError
from text2token.model.embedder import Embedder
from text2token.serving import ServerSettings, Service, create_app
from text2token.serving.traces import trace


def test_a_request_is_a_span_without_its_text(model_folder):
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    from fastapi.testclient import TestClient

    exporter = memory.InMemorySpanExporter()
    service = Service(ServerSettings(model="tiny"), Embedder.open(model_folder))
    with TestClient(create_app(service, lambda app: trace(app, exporter))) as client:
        body = {"inputs": "a secret text"}
        assert client.post("/embed", json=body, headers={"Authorization": "Bearer key-1"}).status_code == 200
        assert client.post("/embed", json={"inputs": []}).status_code == 422
        assert client.get("/health").status_code == 200
    spans = exporter.get_finished_spans()  # those that waited are sent at shutdown
    assert [span.name for span in spans] == ["POST /embed", "POST /embed"]
    written = "".join(span.to_json() for span in spans)
    assert "/embed" in written
    assert "422" in written
    assert not any(word in written for word in ("secret", "key-1"))


def test_without_the_extra_one_sentence_says_what_to_install(model_folder, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "opentelemetry.instrumentation.fastapi", None)
    with pytest.raises(UserError, match=r"pip install 'text2token\[otel\]'"):
        create_app(Service(ServerSettings(model="tiny"), Embedder.open(model_folder)), trace)
    assert "text2token[otel]" in refused("serve", model_folder, "--port", "0", "--traces")
