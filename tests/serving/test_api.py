"""Every route gives what the library gives, and every wrong request one sentence in the dialect of its API."""

import base64
import errno
import json
import re
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from qdrant_client import QdrantClient
from scipy.sparse import csr_array
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Pooling, WordEmbeddings
from sentence_transformers.sentence_transformer.modules.tokenizer import WhitespaceTokenizer

from conftest import SENTENCES, calibrated, refused
from text2token import UserError
from text2token.analysis.explain import explain_instructions, explain_pair
from text2token.model.embedder import Embedder
from text2token.model.static import spaced, static_encoder
from text2token.search import Document, Index
from text2token.search.engines.milvus import MilvusEngine
from text2token.search.engines.postgres import PostgresEngine
from text2token.search.engines.qdrant import QdrantEngine
from text2token.search.index_folder import write_lock
from text2token.serving import worker
from text2token.serving.plane import project
from text2token.settings.templates import TEMPLATES
from text2token.utils.errors import UnavailableError

MIXED = [*SENTENCES, "cat", "The cat sat on the mat. " * 3, "a b c d e f"]


@pytest.fixture(scope="module")
def embedder(model_folder):
    return Embedder.open(model_folder)


def vectors(response):
    assert response.status_code == 200, response.text
    return np.array(response.json(), np.float32)


@pytest.mark.parametrize("template", TEMPLATES)
@pytest.mark.parametrize("family", ["llama", "bert"])
def test_vectors_are_those_of_the_library_alone_and_in_a_batch(serve, backbone, family, template):
    made = calibrated(backbone(family), template=TEMPLATES[template], pooling="last")
    client, dense, sparse = serve(made, batch_tokens=200), made.encode(MIXED), made.encode_sparse(MIXED)
    np.testing.assert_allclose(vectors(client.post("/embed", json={"inputs": MIXED})), dense, atol=2e-6)
    alone = [vectors(client.post("/embed", json={"inputs": text}))[0] for text in MIXED]
    np.testing.assert_allclose(alone, dense, atol=2e-6)
    for row, ids, weights in zip(
        client.post("/embed_sparse", json={"inputs": MIXED}).json(), sparse.ids, sparse.weights, strict=True
    ):
        expected = {int(token): weight for token, weight in zip(ids, weights, strict=True) if weight > 0}
        assert {entry["index"]: entry["value"] for entry in row} == pytest.approx(expected, abs=1e-4)


def test_a_model_that_cuts_its_vectors_is_served_as_it_is(serve, bert_folder, tmp_path):
    shutil.copytree(bert_folder, tmp_path / "cut")
    file = tmp_path / "cut" / "config_sentence_transformers.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"truncate_dim": 8}))
    cut = Embedder.open(tmp_path / "cut")
    served = vectors(serve(cut).post("/embed", json={"inputs": MIXED}))
    assert served.shape == (len(MIXED), 8)
    np.testing.assert_allclose(served, cut.encode(MIXED), atol=2e-6)
    alone = SentenceTransformer(str(tmp_path / "cut")).encode(MIXED, normalize_embeddings=True)
    np.testing.assert_allclose(served, alone, atol=2e-6)


def test_base64_holds_the_same_numbers(client, embedder):
    body = {"model": "tiny", "input": MIXED}
    floats = client.post("/v1/embeddings", json=body).json()
    encoded = client.post("/v1/embeddings", json=body | {"encoding_format": "base64"}).json()
    for one, other, expected in zip(floats["data"], encoded["data"], embedder.encode(MIXED), strict=True):
        decoded = np.frombuffer(base64.b64decode(other["embedding"]), "<f4")
        np.testing.assert_array_equal(np.array(one["embedding"], np.float32), decoded)
        np.testing.assert_allclose(decoded, expected, atol=1e-6)
    assert [row["index"] for row in floats["data"]] == list(range(len(MIXED)))
    tokens = sum(map(len, embedder.tokenizer(MIXED)["input_ids"]))
    assert floats["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}


def test_token_ids_are_the_models_own(client, embedder):
    ids = embedder.tokenizer(SENTENCES[:2], add_special_tokens=False)["input_ids"]
    expected = embedder.encode(SENTENCES[:2])
    for route, body in (("/embed", "inputs"), ("/v1/embeddings", "input")):
        many = client.post(route, json={body: ids, "model": "tiny"}).json()
        one = client.post(route, json={body: ids[0], "model": "tiny"}).json()
        rows = [row["embedding"] for row in many["data"]] if route == "/v1/embeddings" else many
        first = one["data"][0]["embedding"] if route == "/v1/embeddings" else one[0]
        np.testing.assert_allclose(rows, expected, atol=1e-6)
        np.testing.assert_allclose(first, expected[0], atol=1e-6)


def test_a_text_that_is_too_long_is_cut_only_when_asked(client, embedder):
    long = " ".join(SENTENCES)
    for side in ("right", "left"):
        body = {"inputs": long, "truncate": True, "truncation_direction": side}
        cut = vectors(client.post("/embed", json=body))
        capital = client.post("/embed", json=body | {"truncation_direction": side.capitalize()})
        np.testing.assert_array_equal(vectors(capital), cut)
        if side == "right":
            np.testing.assert_allclose(cut, embedder.encode([long]), atol=1e-6)
    refused = client.post("/embed", json={"inputs": long})
    assert (refused.status_code, refused.json()["error_type"]) == (422, "Tokenizer")
    assert client.post("/v1/embeddings", json={"input": long, "model": "tiny"}).status_code == 400
    million = client.post("/embed", json={"inputs": "x " * 500_000, "truncate": True})
    assert million.status_code == 200


LONG = " ".join(SENTENCES)
TOO_LONG = [
    ("/embed", {"inputs": LONG}, True),
    ("/embed_sparse", {"inputs": LONG, "truncate": None}, True),
    ("/similarity", {"inputs": {"source_sentence": LONG, "sentences": ["a"]}}, True),
    ("/rerank", {"query": "a", "texts": [LONG]}, True),
    ("/v1/embeddings", {"model": "tiny", "input": LONG}, False),
    ("/explain", {"text": LONG}, False),
    ("/compare", {"first": "a", "second": LONG}, False),
]


@pytest.mark.parametrize(("path", "body", "can_cut"), TOO_LONG)
def test_truncate_is_advised_only_where_it_can_be_set(client, path, body, can_cut):
    error = client.post(path, json=body).json()["error"]
    said = error["message"] if path.startswith("/v1/") else error
    assert said.endswith(": shorten it, or set truncate." if can_cut else ": shorten it.")


def test_similarity_reads_its_texts_as_its_parameters_say(serve, model_folder, embedder):
    made = Embedder.open(model_folder)
    made.encoder.prompts["q"] = "Query: "
    client = serve(made)

    def asked(**parameters):
        body = {"inputs": {"source_sentence": LONG, "sentences": SENTENCES[:2]}, "parameters": parameters}
        return client.post("/similarity", json=body)

    cut = embedder.encode([LONG, *SENTENCES[:2]])
    assert asked(truncate=True).json() == pytest.approx(cut[1:] @ cut[0], abs=1e-6)
    left = asked(truncate=True, truncation_direction="Left").json()
    assert left != pytest.approx(cut[1:] @ cut[0], abs=1e-3)
    prompted = embedder.encode([f"Query: {text}" for text in (LONG, *SENTENCES[:2])])
    named = asked(truncate=True, prompt_name="q").json()
    assert named == pytest.approx(prompted[1:] @ prompted[0], abs=1e-6)
    assert "no prompt 'nope'" in asked(prompt_name="nope").json()["error"]


def test_reranking_in_cohere_s_form_cuts_what_is_too_long(client):
    body = {"query": LONG, "texts": [LONG, "a cat"], "truncate": True}
    scores = {row["index"]: row["score"] for row in client.post("/rerank", json=body).json()}
    ranks = client.post("/v1/rerank", json={"model": "tiny", "query": LONG, "documents": [LONG, "a cat"]}).json()
    assert {row["index"]: row["relevance_score"] for row in ranks["results"]} == pytest.approx(scores, abs=1e-6)


def test_unnormalised_vectors_point_the_same_way(client, embedder):
    raw = vectors(client.post("/embed", json={"inputs": SENTENCES, "normalize": False}))
    assert not np.allclose(np.linalg.norm(raw, axis=1), 1)
    unit = raw / np.linalg.norm(raw, axis=1, keepdims=True)
    np.testing.assert_allclose(unit, embedder.encode(SENTENCES), atol=1e-6)


def test_similarity_and_both_forms_of_rerank_rank_by_cosine(client, embedder):
    query, texts = SENTENCES[0], SENTENCES[1:]
    cosines = embedder.encode(texts) @ embedder.encode([query])[0]
    body = {"inputs": {"source_sentence": query, "sentences": texts}}
    assert client.post("/similarity", json=body).json() == pytest.approx(cosines, abs=1e-6)
    raw = client.post("/rerank", json={"query": query, "texts": texts, "raw_scores": True, "return_text": True}).json()
    assert [row["index"] for row in raw] == np.argsort(-cosines, kind="stable").tolist()
    assert [row["score"] for row in raw] == pytest.approx(sorted(cosines, reverse=True), abs=1e-6)
    assert [row["text"] for row in raw] == [texts[row["index"]] for row in raw]
    body = {"model": "tiny", "query": query, "documents": texts, "top_n": 3, "return_documents": True}
    ranks = client.post("/v1/rerank", json=body).json()
    assert [row["index"] for row in ranks["results"]] == [row["index"] for row in raw[:3]]
    logits = embedder.logits(embedder.embed([query, texts[raw[0]["index"]]])).relu()
    parts = torch.nn.functional.normalize(logits, dim=1).prod(dim=0)
    strongest = ranks["results"][0]["matches"][0]
    assert strongest["amount"] == pytest.approx(float(parts.max()), abs=1e-5)


def test_a_model_made_for_dot_products_gives_cosines(serve, backbone):
    made = calibrated(backbone("llama"))
    made.encoder.similarity_fn_name = "dot"
    assert not np.allclose(np.linalg.norm(made.encode(SENTENCES), axis=1), 1)
    client, text, others = serve(made), SENTENCES[0], SENTENCES
    ranks = client.post("/rerank", json={"query": text, "texts": others}).json()
    body = {"model": "tiny", "query": text, "documents": others}
    results = client.post("/v1/rerank", json=body).json()["results"]
    scores = [*(row["score"] for row in ranks), *(row["relevance_score"] for row in results)]
    assert 0 <= min(scores) <= max(scores) <= 1
    assert ranks[0]["score"] == results[0]["relevance_score"] == pytest.approx(1)
    body = {"inputs": {"source_sentence": text, "sentences": others}}
    assert client.post("/similarity", json=body).json()[0] == pytest.approx(1)
    assert client.post("/compare", json={"first": text, "second": text}).json()["dense_cosine"] == pytest.approx(1)


def test_tokens_and_their_places_are_told(client):
    (pieces,) = client.post("/tokenize", json={"inputs": "The cat sat."}).json()
    own = [piece for piece in pieces if not piece["special"]]
    assert ["The cat sat."[piece["start"] : piece["stop"]] for piece in own] == [piece["text"] for piece in own]
    template = "".join(piece["text"] for piece in pieces if piece["special"])
    assert template == "".join(TEMPLATES["keywords"].__dict__.values())
    (bare,) = client.post("/tokenize", json={"inputs": "The cat sat.", "add_special_tokens": False}).json()
    assert bare == own
    assert client.post("/decode", json={"ids": [piece["id"] for piece in own]}).json() == ["The cat sat."]


def test_the_prompt_is_tokenized_too(serve, model_folder):
    made = Embedder.open(model_folder)
    made.encoder.prompts["q"] = "Query: "
    client = serve(made)
    body = {"inputs": "The cat sat.", "add_special_tokens": False}
    (named,) = client.post("/tokenize", json=body | {"prompt_name": "q"}).json()
    (written,) = client.post("/tokenize", json=body | {"inputs": "Query: The cat sat."}).json()
    assert named == written
    refused = client.post("/tokenize", json=body | {"prompt_name": "nope"})
    assert (refused.status_code, "no prompt 'nope'" in refused.json()["error"]) == (422, True)


def post_with_a_cut_emoji(client, path, body):
    """Send a body in which each star is one half of an emoji, as JavaScript cuts it."""
    content = json.dumps(body).replace("*", "\\ud83d")
    return client.post(path, content=content, headers={"Content-Type": "application/json"})


def test_half_an_emoji_is_left_out(serve, model_folder, index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "own")
    client = serve(Embedder.open(model_folder), indexes={"own": tmp_path / "own"}, writable=True)
    ranks = post_with_a_cut_emoji(client, "/rerank", {"query": "a*", "texts": ["a cat*"], "return_text": True})
    assert ranks.json()[0]["text"] == "a cat"
    body = {"model": "tiny*", "query": "a*", "documents": ["a cat*"], "return_documents": True}
    ranks = post_with_a_cut_emoji(client, "/v1/rerank", body)
    assert ranks.json()["results"][0]["document"] == {"text": "a cat"}
    told = post_with_a_cut_emoji(client, "/explain", {"text": "a cat*", "instructions": ["Which?*"]})
    assert told.json()["instructions"][0]["instruction"] == "Which?"
    body = {"documents": [{"id": "z*", "text": "A zebra.*", "metadata": {"kind*": "animal*"}}]}
    assert post_with_a_cut_emoji(client, "/indexes/own/documents", body).status_code == 200
    hits = client.post("/search", json={"query": "zebra", "mode": "bm25"}).json()["results"][0]["hits"]
    assert [(hit["id"], hit["metadata"]) for hit in hits] == [("z", {"kind": "animal"})]
    for path, body in (
        ("/embed", {"inputs": "a", "prompt_name": "no*pe"}),
        ("/v1/embeddings", {"input": "a", "model": "no*pe"}),
        ("/search", {"query": "a", "indexes": ["no*pe"]}),
        ("/search", {"query": "a", "weights": {"no*pe": 1}}),
    ):
        response = post_with_a_cut_emoji(client, path, body)
        assert (400 <= response.status_code < 500, "nope" in response.text) == (True, True), response.text


def test_an_error_names_a_folder_that_is_not_utf_8(serve, model_folder, index_folder):
    client = serve(Embedder.open(model_folder), indexes={"b\udce4r": index_folder})
    response = client.post("/search", json={"query": "a", "indexes": ["nope"]})
    assert (response.status_code, response.json()["error"]) == (404, "There is no index 'nope': this server has b?r.")


def test_explanations_are_those_of_the_library(client, embedder):
    text, instruction = SENTENCES[0], "Which animal?"
    read = explain_instructions(embedder, text, [instruction], k=5)
    body = {"text": text, "instructions": [instruction], "k": 5}
    told = client.post("/explain", json=body).json()
    assert [token["weight"] for token in told["tokens"]] == pytest.approx([t.weight for t in read[""].tokens], abs=1e-4)
    assert all(
        token["literal"] == (token["token"].strip("␣").casefold() in text.casefold()) for token in told["tokens"]
    )
    (under,) = told["instructions"]
    assert [row["part"] for row in under["rose"]] == pytest.approx(
        [row.part for row in read[instruction].rose], abs=1e-4
    )
    pair = explain_pair(embedder, (SENTENCES[0], SENTENCES[1]), k=5)
    compared = client.post("/compare", json={"first": SENTENCES[0], "second": SENTENCES[1], "k": 5}).json()
    assert compared["cosine"] == pytest.approx(pair.cosine, abs=1e-6)
    assert [row["token"] for row in compared["alike"]] == [row.token for row in pair.alike]


def test_the_plain_backbone_is_shown_beside(serve, model_folder, backbone):
    plain = calibrated(backbone("qwen3"))
    client = serve(Embedder.open(model_folder), plain, against="qwen3")
    told = client.post("/explain", json={"text": SENTENCES[0], "against": True, "k": 3}).json()
    expected = plain.explain(SENTENCES[:1], k=3)[0]
    assert [token["weight"] for token in told["against"]] == pytest.approx([t.weight for t in expected], abs=1e-4)


@pytest.mark.parametrize("mode", ["hybrid", "sparse", "dense", "bm25"])
def test_hits_are_those_of_the_index(client, index_folder, mode):
    index = Index.open(index_folder)
    queries = ["a sitting cat", "the bank of a river"]
    lines = client.post("/search/stream", json={"queries": queries, "mode": mode, "k": 3}).text.splitlines()
    for number, query in enumerate(queries):
        expected = index.search(query, 3, mode).hits
        (found,) = client.post("/search", json={"query": query, "mode": mode, "k": 3}).json()["results"]
        assert found["index"] == "docs"
        assert [(hit["id"], hit["title"]) for hit in found["hits"]] == [(hit.id, hit.title) for hit in expected]
        assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)
        assert [len(hit["matches"]) for hit in found["hits"]] == [len(hit.matches) for hit in expected]
        assert json.loads(lines[number]) == {"query": number, "results": [found]}


def test_weights_and_words_alone(client, index_folder):
    index = Index.open(index_folder)
    free = client.post("/search", json={"query": "a sitting cat", "mode": "sparse", "inference_free": True}).json()
    expected = index.search("a sitting cat", mode="sparse", inference_free=True).hits
    assert [hit["id"] for hit in free["results"][0]["hits"]] == [hit.id for hit in expected]
    weighted = client.post("/search", json={"query": "a sitting cat", "weights": {"dense": 0, "sparse": 0, "bm25": 1}})
    words = client.post("/search", json={"query": "a sitting cat", "mode": "bm25"})
    best = [response.json()["results"][0]["hits"][0]["id"] for response in (weighted, words)]
    assert best[0] == best[1]


def test_documents_come_and_go(serve, model_folder, index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "own")
    client = serve(Embedder.open(model_folder), indexes={"own": tmp_path / "own"}, writable=True)
    added = client.post(
        "/indexes/own/documents",
        json={"documents": [{"id": "z", "text": "A zebra crosses.", "metadata": {"year": 2020}}]},
    )
    assert added.json() == {"changed": 1, "documents": len(SENTENCES) + 1}
    body = {"query": "zebra", "mode": "bm25"}
    assert client.post("/search", json=body).json()["results"][0]["hits"][0]["id"] == "z"
    (found,) = client.post("/search", json={"query": "a cat", "filters": ["year>=2020"]}).json()["results"]
    assert [(hit["id"], hit["metadata"]) for hit in found["hits"]] == [("z", {"year": 2020})]
    refused = client.post("/search", json={"query": "a cat", "filters": ["yeer=1"]})
    assert refused.status_code in (400, 422)
    assert "no metadata column 'yeer'" in refused.json()["error"]
    gone = client.request("DELETE", "/indexes/own/documents", json={"ids": ["z", "nobody"]})
    assert gone.json() == {"changed": 1, "documents": len(SENTENCES)}
    assert client.post("/search", json=body).json()["results"][0]["hits"] == []


@pytest.mark.parametrize("of_index", ["fp32", "bf16"])
def test_an_index_keeps_its_precision(serve, model_folder, tmp_path, monkeypatch, of_index):
    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "precision", of_index)  # as on hardware that has bf16
        index = Index.create(tmp_path / "own", str(model_folder))
        index.add([Document("a", "", SENTENCES[0])])
        index.close()
    made, used, encoding = Embedder.open(model_folder), [], worker.encoding
    made.bf16 = of_index == "fp32"
    client = serve(made, indexes={"own": tmp_path / "own"}, writable=True)
    monkeypatch.setattr(worker, "encoding", lambda model, *, bf16: used.append(bf16) or encoding(model, bf16=bf16))
    for path, body, expected in (
        ("/search", {"query": "a cat", "mode": "dense"}, of_index == "bf16"),
        ("/indexes/own/documents", {"documents": [{"id": "z", "text": "A zebra crosses."}]}, of_index == "bf16"),
        ("/embed", {"inputs": "a cat"}, made.bf16),
        ("/explain", {"text": "a cat"}, made.bf16),
    ):
        assert client.post(path, json=body).status_code == 200
        assert set(used) == {expected}, path
        used.clear()


def test_a_stream_that_fails_ends_with_a_sentence(serve, model_folder, index_folder, monkeypatch):
    client = serve(Embedder.open(model_folder), indexes={"docs": index_folder})
    body = {"queries": ["a cat", "a broken cat", "a dog"], "mode": "bm25", "k": 1}
    search = Index.search

    def failing(index, query, *given, **more):
        if "broken" in query:
            raise UserError("This query cannot be used: send another.")
        return search(index, query, *given, **more)

    monkeypatch.setattr(Index, "search", failing)
    first, last = map(json.loads, client.post("/search/stream", json=body).text.splitlines())
    assert (first["query"], len(first["results"][0]["hits"])) == (0, 1)
    said = "This query cannot be used: send another."
    assert last == {"query": 1, "error": said, "error_type": "Validation"}


def test_an_integer_beyond_64_bits_is_found_as_text(serve, model_folder, index_folder, tmp_path, monkeypatch):
    shutil.copytree(index_folder, tmp_path / "own")
    client = serve(Embedder.open(model_folder), indexes={"own": tmp_path / "own"}, writable=True)
    documents = [{"id": "z", "text": "A zebra.", "metadata": {"isbn": 2**64, "least": -(2**63), "most": 2**63 - 1}}]

    def found():
        (results,) = client.post("/search", json={"query": "zebra", "mode": "bm25"}).json()["results"]
        return [hit["metadata"] for hit in results["hits"]]

    assert client.post("/indexes/own/documents", json={"documents": documents}).status_code == 200
    expected = {"isbn": str(2**64), "least": -(2**63), "most": 2**63 - 1}
    assert found() == [expected]
    search = Index.search

    def of_an_older_index(*given, **more):
        results = search(*given, **more)
        return results._replace(hits=[hit._replace(metadata={**expected, "isbn": 2**64}) for hit in results.hits])

    monkeypatch.setattr(Index, "search", of_an_older_index)
    assert found() == [expected]


def test_results_that_cannot_be_written_end_a_stream_with_a_sentence(client, monkeypatch):
    monkeypatch.setattr("text2token.serving.routes.searching._search", lambda *_: [object()])
    (line,) = client.post("/search/stream", json={"queries": ["a cat"]}).text.splitlines()
    assert json.loads(line) == {"query": 0, "error": "The server failed on this request.", "error_type": "Backend"}


def test_several_indexes_are_searched_at_once_in_the_order_asked(serve, model_folder, index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "copy")
    client = serve(Embedder.open(model_folder), indexes={"docs": index_folder, "copy": tmp_path / "copy"})
    body = {"query": "a sitting cat", "k": 3}
    both = client.post("/search", json=body).json()["results"]
    assert [found["index"] for found in both] == ["docs", "copy"]
    assert both[0]["hits"] == both[1]["hits"] != []
    (one,) = client.post("/search", json={**body, "indexes": ["copy"]}).json()["results"]
    assert one["index"] == "copy"
    turned = client.post("/search", json={**body, "indexes": ["copy", "docs"]}).json()["results"]
    assert [found["index"] for found in turned] == ["copy", "docs"]


def test_an_index_that_another_process_writes_is_a_conflict(serve, model_folder, index_folder, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(index_folder, folder)
    client = serve(Embedder.open(model_folder), indexes={"own": folder}, writable=True)
    body = {"documents": [{"id": "z", "text": "A zebra."}]}
    with write_lock(folder):
        for response in (
            client.post("/indexes/own/documents", json=body),
            client.request("DELETE", "/indexes/own/documents", json={"ids": ["0"]}),
        ):
            assert (response.status_code, response.json()["error_type"]) == (409, "Overloaded")
            assert response.json()["error"] == "Another process is writing the index: repeat the request later."
    assert client.post("/indexes/own/documents", json=body).json()["changed"] == 1


UNAVAILABLE = {
    "qdrant": lambda: QdrantEngine(
        QdrantClient(url="http://127.0.0.1:9", check_compatibility=False), "docs", "10.0.0.7"
    ),
    "milvus": lambda: MilvusEngine("http://127.0.0.1:9"),
    "postgres": lambda: PostgresEngine("postgresql://127.0.0.1:9/x", "docs").count(),
    "a full disk": lambda: fail(OSError(errno.ENOSPC, "No space left on device")),
    "a changed folder": lambda: fail(UnavailableError("The index in '/srv/docs' has changed: open it again.")),
}


def fail(error):
    raise error


@pytest.mark.parametrize("fails", UNAVAILABLE.values(), ids=UNAVAILABLE)
def test_what_fails_behind_an_index_is_no_fault_of_the_request(
    serve, model_folder, index_folder, tmp_path, monkeypatch, fails, caplog
):
    """No path and no address of the server is told; its log has them."""
    monkeypatch.setattr("text2token.search.engines.milvus._TIMEOUT", 0.1)
    folder = shutil.copytree(index_folder, tmp_path / "own")
    client = serve(Embedder.open(model_folder), indexes={"own": folder}, writable=True)
    monkeypatch.setattr("text2token.search.writer.IndexWriter.add", lambda *_, **__: fails())
    response = client.post("/indexes/own/documents", json={"documents": [{"id": "z", "text": "A zebra."}]})
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")
    said = "The index cannot be used now: repeat the request later."
    assert response.json() == {"error": said, "error_type": "Unhealthy"}
    assert 'te_request_failure{err="backend"} 1.0' in client.get("/metrics").text
    (record,) = [record for record in caplog.records if record.name == "text2token.serving.errors"]
    assert re.search(r"127\.0\.0\.1|10\.0\.0\.7|/", record.getMessage())


def test_additions_at_the_same_time_wait_for_each_other(serve, model_folder, index_folder, tmp_path):
    shutil.copytree(index_folder, tmp_path / "own")
    client = serve(Embedder.open(model_folder), indexes={"own": tmp_path / "own"}, writable=True)

    def add(number):
        body = {"documents": [{"id": f"z{number}", "text": f"Zebra number {number}."}]}
        return client.post("/indexes/own/documents", json=body).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(add, range(8))) == {200}
    assert client.get("/indexes").json()["indexes"][0]["documents"] == len(SENTENCES) + 8


def test_a_student_is_served_without_a_transformer(serve, backbone, tmp_path):
    made = calibrated(backbone("llama"))
    made = Embedder(static_encoder(spaced(made.tokenizer.backend_tokenizer), made.decoding_head.weight), made.head)
    made.calibrate(SENTENCES)
    made.save(tmp_path / "student")
    index = Index.create(tmp_path / "index", tmp_path / "student")
    index.add([Document(str(number), "", text) for number, text in enumerate(SENTENCES)])
    index.close()
    made, long = Embedder.open(tmp_path / "student"), " ".join(SENTENCES * 20)
    client = serve(made, indexes={"own": tmp_path / "index"}, batch_tokens=200)
    texts = [*MIXED, long]
    np.testing.assert_allclose(vectors(client.post("/embed", json={"inputs": texts})), made.encode(texts), atol=2e-6)
    ids = [token["id"] for token in client.post("/tokenize", json={"inputs": "The cat sat."}).json()[0]]
    by_ids = client.post("/v1/embeddings", json={"model": "tiny", "input": ids}).json()["data"][0]["embedding"]
    np.testing.assert_allclose(by_ids, made.encode(["The cat sat."])[0], atol=2e-6)
    assert client.post("/decode", json={"ids": ids}).json()[0].strip() == "The cat sat."
    assert client.get("/info").json()["model_type"] == {"embedding": {"pooling": "mean"}}
    assert client.get("/health").status_code == 200
    best = client.post("/search", json={"query": SENTENCES[3], "k": 1}).json()
    assert [hit["id"] for hit in best["results"][0]["hits"]] == ["3"]
    read = client.post("/explain", json={"text": "The cat sat.", "k": 3}).json()
    expected = made.explain(["The cat sat."], k=3)[0]
    assert [row["weight"] for row in read["tokens"]] == pytest.approx([token.weight for token in expected], abs=1e-4)


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path, monkeypatch):
    words = WordEmbeddings(WhitespaceTokenizer(["cat", "dog"]), np.eye(2, dtype=np.float32))
    SentenceTransformer(modules=[words, Pooling(2, "mean")]).save(str(tmp_path / "words"))
    for hardware in (True, False):
        monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device, has=hardware: has)
        assert "The server needs a transformer or a student" in refused("serve", tmp_path / "words", "--port", "0")


def test_read_only_indexes_refuse_changes(client):
    body = {"documents": [{"id": "z", "text": "A zebra."}]}
    assert client.post("/indexes/docs/documents", json=body).status_code == 403
    assert client.request("DELETE", "/indexes/docs/documents", json={"ids": ["0"]}).status_code == 403


def test_keys_open_everything_but_the_probes(serve, model_folder):
    client = serve(Embedder.open(model_folder), keys=("first", "sécond"))
    for path in ("/info", "/metrics", "/v1/models", "/indexes"):
        assert client.get(path).status_code == 401
        for key in ("first", "sécond"):
            assert client.get(path, headers={"Authorization": f"Bearer {key}".encode()}).status_code == 200
        for wrong in (b"Bearer nope", b"Basic first", b"first", b"Bearer "):
            assert client.get(path, headers={"Authorization": wrong}).status_code == 401
    refused = client.post("/v1/embeddings", json={"input": "a", "model": "tiny"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
    for path in ("/health", "/ready", "/", "/explorer/explorer.js", "/explorer/report.css"):
        assert client.get(path).status_code == 200
    assert client.post("/", json={"inputs": "a"}).status_code == 401


SENTENCE = r"[A-Z'].*[.?]"
WRONG = [
    ("/embed", {"inputs": []}, 422, "is empty"),
    ("/embed", {"inputs": ""}, 422, "has no text"),
    ("/embed", {"inputs": ["a", " \0"]}, 422, "Input 1 has no text"),
    ("/embed", {"inputs": [1, 99_999]}, 422, "99999 is outside the vocabulary"),
    ("/embed", {"inputs": [[]]}, 422, "empty"),
    ("/embed", {"inputs": ["a"] * 2_049}, 413, "2049 inputs, but the limit is 2048"),
    ("/embed", {"inputs": "a", "dimensions": 3}, 400, "cannot be shortened"),
    ("/embed", {"inputs": "a", "prompt_name": "nope"}, 422, "no prompt 'nope'"),
    ("/embed", {}, 422, "inputs: Field required"),
    ("/embed", {"inputs": 7}, 422, "not valid"),
    ("/embed", {"inputs": "a", "normalize": "0"}, 422, "normalize: Input should be a valid boolean"),
    (
        "/embed",
        {"inputs": "a", "truncation_direction": "RIGHT"},
        422,
        "truncation_direction: Input should be 'left' or 'right'",
    ),
    ("/v1/embeddings", {"input": [], "model": "tiny"}, 400, "is empty"),
    ("/v1/embeddings", {"input": "a", "model": "gpt"}, 404, "'gpt' is not served here: ask for 'tiny'"),
    ("/v1/embeddings", {"input": "a", "model": "tiny", "dimensions": 3}, 400, "cannot be shortened"),
    ("/v1/embeddings", {"input": "x " * 500_000, "model": "tiny"}, 400, "the model reads"),
    ("/rerank", {"query": "a", "texts": []}, 422, "is empty"),
    ("/v1/rerank", {"model": "tiny", "query": "a", "documents": []}, 400, "is empty"),
    ("/similarity", {"inputs": {"source_sentence": "a", "sentences": []}}, 422, "is empty"),
    ("/decode", {"ids": [99_999]}, 422, "outside the vocabulary"),
    ("/explain", {"text": " "}, 422, "no text"),
    ("/explain", {"text": "a", "against": True}, 422, "no plain backbone"),
    ("/search", {"query": "a", "indexes": ["nope"]}, 404, "no index 'nope': this server has docs"),
    ("/search", {"query": "a", "weights": {"dense": -1}}, 422, "greater than or equal to 0"),
    ("/search", {"query": "a", "k": 0}, 422, "greater than or equal to 1"),
    ("/search", {"query": "a", "k": "5"}, 422, "k: Input should be a valid integer"),
]


@pytest.mark.parametrize(("path", "body", "status", "said"), WRONG)
def test_a_wrong_request_is_one_sentence(client, path, body, status, said):
    response = client.post(path, json=body)
    content = response.json()
    sentence = content["error"]["message"] if path.startswith("/v1/") else content["error"]
    assert (response.status_code, said in sentence) == (status, True), sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200  # the server goes on


@pytest.mark.parametrize(
    "body", [b"{nope", b"\xff\xfe", b"[" * 100_000, b'{"query": "a", "weights": {"dense": NaN}}', b""]
)
def test_a_body_that_is_no_json_is_told(client, body):
    for path in ("/search", "/v1/embeddings"):
        response = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code in (400, 422)
        assert set(response.json()) == ({"error"} if path.startswith("/v1") else {"error", "error_type"})


@pytest.mark.parametrize("path", ["/", "/embed", "/v1/embeddings"])
def test_a_body_that_cannot_be_read_is_told_by_its_cause(client, path):
    def said(content, content_type):
        error = client.post(path, content=content, headers={"Content-Type": content_type}).json()
        assert "param" not in error["error"] or error["error"]["param"] is None
        return error["error"]["message"] if path.startswith("/v1/") else error["error"]

    body = json.dumps({"inputs": "a", "input": "a", "model": "tiny"})
    for content_type in ("application/x-www-form-urlencoded", "text/plain", "application/jsonl"):
        assert "send the header 'Content-Type: application/json'" in said(body, content_type)
    for content_type in ("application/json", "Application/JSON; charset=utf-8", "application/vnd.api+json"):
        assert said(body[:-1], content_type) == "The body of the request is not JSON: send a JSON object."
        assert client.post(path, content=body, headers={"Content-Type": content_type}).status_code == 200
    assert said(b"", "application/json") == "The request has no body: send a JSON object."


def test_head_answers_as_get_does(serve, model_folder):
    client = serve(Embedder.open(model_folder), keys=("first",))
    for path, status in {"/": 200, "/health": 200, "/ready": 200, "/v1/models": 401, "/nope": 401}.items():
        assert (client.head(path).status_code, client.get(path).status_code) == (status, status)
    key = {"Authorization": "Bearer first"}
    assert client.head("/v1/models", headers=key).status_code == 200
    assert client.head("/embed", headers=key).status_code == 405


def test_large_bodies_are_refused_with_and_without_a_length(serve, model_folder):
    client = serve(Embedder.open(model_folder), max_bytes=1_000)
    body = json.dumps({"inputs": "x" * 2_000}).encode()
    headers = {"Content-Type": "application/json"}
    assert client.post("/embed", content=body, headers=headers).status_code == 413
    assert client.post("/embed", content=iter([body[:900], body[900:]]), headers=headers).status_code == 413


def test_a_model_without_a_head_has_no_sparse_vectors(serve, backbone):
    plain = untrained_without_head(backbone)
    client = serve(plain)
    response = client.post("/embed_sparse", json={"inputs": "a"})
    assert (response.status_code, "decoding head" in response.json()["error"]) == (422, True)
    assert client.get("/info").json()["sparse"] is False
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200


def untrained_without_head(backbone):
    made = calibrated(backbone("llama"))
    return Embedder(made.encoder)


def test_a_text_that_the_model_fails_on_fails_alone(serve, model_folder, monkeypatch):
    forward = worker.forward

    def failing(embedder, ids, **how):
        if any(len(row) == 40 for row in ids):
            raise RuntimeError("broken")
        return forward(embedder, ids, **how)

    client = serve(Embedder.open(model_folder))
    ids = client.post("/tokenize", json={"inputs": SENTENCES[0], "add_special_tokens": False}).json()[0]
    around = len(client.post("/tokenize", json={"inputs": "a"}).json()[0]) - 1
    monkeypatch.setattr(worker, "forward", failing)
    broken = client.post("/embed", json={"inputs": [ids[0]["id"]] * (40 - around)})
    assert (broken.status_code, broken.json()["error_type"]) == (500, "Backend")
    assert "Traceback" not in broken.text
    assert client.post("/embed", json={"inputs": "a"}).status_code == 200


def test_headers_and_metrics_tell_what_a_request_took(client, embedder):
    response = client.post("/embed", json={"inputs": SENTENCES})
    tokens = sum(map(len, embedder.tokenizer(SENTENCES)["input_ids"]))
    assert int(response.headers["x-compute-tokens"]) == tokens
    assert int(response.headers["x-compute-characters"]) == sum(map(len, SENTENCES))
    assert int(response.headers["x-total-time"]) >= int(response.headers["x-inference-time"])
    client.post("/embed", json={"inputs": []})
    read = client.get("/metrics").text
    assert 'te_request_count{method="embed"} 2.0' in read
    assert 'te_request_success{method="embed"} 1.0' in read
    assert 'te_request_failure{err="validation"} 1.0' in read
    for name in ("te_request_count", "te_request_success", "te_request_failure"):
        assert f"# TYPE {name} untyped" in read
    assert "_total" not in read
    assert f"te_request_input_length_sum {float(tokens)}" in read
    for kind in ("queue", "inference"):
        assert f"te_request_{kind}_duration_count 1.0" in read
    assert "te_queue_size 0.0" in read


def test_probes_run_the_model_when_nothing_else_has(serve, model_folder, monkeypatch):
    client, runs = serve(Embedder.open(model_folder)), []
    forward = worker.forward
    monkeypatch.setattr(worker, "forward", lambda *given, **how: runs.append(1) or forward(*given, **how))
    assert client.get("/health").status_code == 200
    assert runs == []
    monkeypatch.setattr(worker, "_IDLE", 0.0)
    assert client.get("/health").status_code == 200
    assert runs == [1]
    monkeypatch.setattr(worker, "forward", lambda *_, **_how: (_ for _ in ()).throw(RuntimeError("dead")))
    assert client.get("/health").status_code == 503
    assert client.get("/ready").status_code == 200


def test_a_failed_batch_is_no_sign_of_life(serve, model_folder, monkeypatch):
    client, later = serve(Embedder.open(model_folder)), time.monotonic() + 60
    forward = worker.forward
    monkeypatch.setattr(worker, "time", SimpleNamespace(monotonic=lambda: later))
    monkeypatch.setattr(worker, "forward", lambda *_: (_ for _ in ()).throw(RuntimeError("dead")))
    assert client.post("/embed", json={"inputs": "a"}).status_code == 500
    assert [client.get("/health").status_code for _ in range(2)] == [503, 503]
    monkeypatch.setattr(worker, "forward", forward)
    assert client.get("/health").status_code == 200


def test_info_names_the_model_and_the_limits(client, embedder):
    told = client.get("/info").json()
    assert (told["model_id"], told["dimensions"]) == ("tiny", embedder.encode(["a"]).shape[1])
    assert told["indexes"] == ["docs"]
    assert client.get("/v1/models").json()["data"][0]["id"] == "tiny"


def test_the_map_shows_every_document_by_its_strongest_token(client, index_folder):
    told = client.get("/map", params={"index": "docs"}).json()
    documents, rows, names = Index.open(index_folder).sample(100)
    assert told["documents"] == len(told["points"]) == len(SENTENCES)
    for point, document, row in zip(told["points"], documents, rows.toarray(), strict=True):
        assert (point["id"], point["token"]) == (document.id, names[row.argmax()])
    unit = rows.toarray() / np.linalg.norm(rows.toarray(), axis=1, keepdims=True)
    centred = unit - unit.mean(axis=0)
    _, strengths, _ = np.linalg.svd(centred)
    spread = np.array([[point["x"], point["y"]] for point in told["points"]])
    np.testing.assert_allclose(np.linalg.norm(spread, axis=0), strengths[:2], atol=1e-4)
    assert client.get("/map", params={"index": "nope"}).status_code == 404


@pytest.mark.parametrize("row", [[0.0, 2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0], [0.3, 0.2, 0.0, 0.7]])
@pytest.mark.parametrize("documents", [0, 1, 3, 5])
def test_documents_that_do_not_differ_lie_in_one_place(row, documents):
    class Alike:
        def __len__(self):
            return documents

        def sample(self, _):
            rows = csr_array(np.array([row] * documents, np.float32).reshape(-1, 4))
            return [Document(str(number), "", "a") for number in range(documents)], rows, ["a", "b", "c", "d"]

    assert [(point["x"], point["y"]) for point in project(Alike())["points"]] == [(0, 0)] * documents
