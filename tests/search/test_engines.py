"""One suite for every engine, against scores computed by hand in numpy."""

from __future__ import annotations

import zlib
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pymilvus
import pytest
from milvus_lite.server_manager import server_manager_instance
from qdrant_client import QdrantClient, models
from scipy import sparse

from text2token import UserError
from text2token.search.engines.base import Engine, ScoredId
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.milvus import MilvusEngine
from text2token.search.engines.postgres import PostgresEngine
from text2token.search.engines.qdrant import QdrantEngine, connect
from text2token.search.filters import Filter
from text2token.search.fusion import Fusion, fuse, search


class Kind(NamedTuple):
    """How to open an engine in a folder."""

    open: Callable[[Path], Engine]
    fields: tuple[str, ...] = ("sparse", "dense", "bm25")


def milvus(folder):
    server_manager_instance.release_all()  # what another process would find: only what is on disk
    return MilvusEngine(str(folder / "vectors.db"))


def two_databases(request):
    """Two databases of one PostgreSQL server as two shards."""
    server = request.getfixturevalue("postgres")
    return Kind(lambda folder: PostgresEngine(server.shards, f"suite_{zlib.crc32(str(folder).encode())}"))


def milvus_server(request):
    address = request.getfixturevalue("milvus_address")
    return Kind(lambda folder: MilvusEngine(address, f"suite_{zlib.crc32(str(folder).encode())}"))


MILVUS = Kind(milvus)
KINDS = {
    "embedded": lambda request: Kind(lambda folder: EmbeddedEngine(folder / "embedded")),
    "milvus": lambda request: MILVUS,
    "milvus-server": milvus_server,
    "postgres": two_databases,
    "qdrant": lambda request: Kind(lambda folder: QdrantEngine(CLIENTS[folder], "suite", "memory")),
}
CLIENTS = defaultdict(lambda: QdrantClient(":memory:"))
SERVERS = ("milvus-server", "postgres")
DOCUMENTS, TOKENS, DIMENSIONS = 60, 400, 16
TOLERANCE = 1e-5
STRANGE = ["it's", 'say "so"', "back\\slash", "Größe 大きさ", "a,b]", "{id}", "new\nline", "% _", "7"]


@pytest.fixture(params=[pytest.param(name, marks=[pytest.mark.serving] * (name in SERVERS)) for name in KINDS])
def kind(request):
    return KINDS[request.param](request)


@pytest.fixture
def engine(kind, tmp_path):
    return kind.open(tmp_path)


def sparse_rows(rng, number, density=0.3):
    rows = np.zeros((number, TOKENS), dtype=np.float32)
    rows[:, ::10] = rng.random((number, TOKENS // 10)) * (rng.random((number, TOKENS // 10)) < density)
    return sparse.csr_array(rows)


def dense_rows(rng, number):
    rows = rng.normal(size=(number, DIMENSIONS)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def vectors(kind, seed, number):
    rng = np.random.default_rng(seed)
    made = {"sparse": sparse_rows(rng, number), "dense": dense_rows(rng, number), "bm25": sparse_rows(rng, number, 0.1)}
    return {field: made[field] for field in kind.fields}


def names(number):
    return STRANGE + [f"d{i:03}" for i in range(number - len(STRANGE))]


def naive(ids, documents, query, field, k):
    """The ranking by hand: inner products of all, sorted."""
    product = documents[field] @ query[field].T
    scores = product.ravel() if field == "dense" else product.toarray().ravel()
    hits = [ScoredId(ids[i], float(scores[i])) for i in range(len(ids)) if field == "dense" or scores[i] > 0]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def one(rows, number):
    return {field: matrix[number : number + 1] for field, matrix in rows.items()}


def agree(found, expected):
    """The same documents with the same scores, in the same order but for scores that are nearer than the tolerance."""
    assert sorted(hit.id for hit in found) == sorted(hit.id for hit in expected)
    scores = {hit.id: hit.score for hit in expected}
    for column in (expected, [ScoredId(hit.id, scores[hit.id]) for hit in found]):
        np.testing.assert_allclose(
            [hit.score for hit in found], [hit.score for hit in column], rtol=TOLERANCE, atol=TOLERANCE / 2
        )


def test_each_field_ranks_by_inner_product(kind, engine):
    documents, queries, ids = vectors(kind, 0, DOCUMENTS), vectors(kind, 1, 5), names(DOCUMENTS)
    engine.add(ids, documents)
    assert engine.count() == DOCUMENTS
    for number in range(5):
        query = one(queries, number)
        for field in kind.fields:
            found = engine.search(field, query[field], 10)
            agree(found, naive(ids, documents, query, field, 10))


@pytest.mark.parametrize(
    "fusion", [Fusion(), Fusion("rrf", {"sparse": 3.0}), Fusion("scores"), Fusion("scores", {"bm25": 0.3}, depth=7)]
)
def test_hybrid_fuses_the_rankings_of_the_fields(kind, engine, fusion):
    documents, queries, ids = vectors(kind, 0, DOCUMENTS), vectors(kind, 1, 3), names(DOCUMENTS)
    engine.add(ids, documents)
    for number in range(3):
        query = one(queries, number)
        rankings = {field: naive(ids, documents, query, field, fusion.depth) for field in kind.fields}
        found = search(engine, query, 6, fusion)
        assert len(found) == 6
        agree(found, fuse(rankings, 6, fusion))


def test_an_id_as_long_as_the_engine_takes(kind, engine):
    letters = np.random.default_rng(0).choice(
        list("abcdefghijklmnopqrstuvwxyz0123456789"), engine.max_id_bytes or 10_000
    )
    ids, documents = ["".join(letters), "b"], vectors(kind, 0, 2)
    engine.add(ids, documents)
    assert {hit.id for hit in engine.search("dense", documents["dense"][:1], 2)} == set(ids)


def test_a_document_added_again_takes_its_own_place(kind, engine):
    ids, documents = names(20), vectors(kind, 0, 20)
    engine.add(ids, documents)
    newer = vectors(kind, 2, 20)
    engine.add([*ids[:12], "new"], {field: rows[:13] for field, rows in newer.items()})
    assert engine.count() == 21
    stack = {"dense": np.vstack}
    now = {s: stack.get(s, sparse.vstack)([newer[s][:12], documents[s][12:], newer[s][12:13]]) for s in kind.fields}
    query = one(vectors(kind, 1, 1), 0)
    for field in kind.fields:
        expected = naive([*ids, "new"], now, query, field, 50)
        agree(engine.search(field, query[field], 50), expected)


def test_finishing_changes_no_ranking(kind, engine):
    ids, documents, query = names(20), vectors(kind, 0, 20), one(vectors(kind, 1, 1), 0)
    engine.finish()
    engine.add(ids[:12], {field: rows[:12] for field, rows in documents.items()})
    engine.add(ids[12:], {field: rows[12:] for field, rows in documents.items()})
    engine.finish()
    assert engine.count() == 20
    for field in kind.fields:
        agree(engine.search(field, query[field], 9), naive(ids, documents, query, field, 9))


def test_deleted_documents_are_gone_and_may_return(kind, engine):
    ids, documents = names(20), vectors(kind, 0, 20)
    engine.delete(["not there"])
    engine.add(ids, documents)
    engine.delete([*ids[:15], "not there"])
    assert engine.count() == 5
    query = one(vectors(kind, 1, 1), 0)
    left = {field: rows[15:] for field, rows in documents.items()}
    for field in kind.fields:
        agree(engine.search(field, query[field], 9), naive(ids[15:], left, query, field, 9))
    engine.add(ids[:15], {field: rows[:15] for field, rows in documents.items()})
    assert engine.count() == 20
    engine.delete(ids)
    assert engine.count() == 0
    assert search(engine, query, 9, Fusion()) == []


def test_all_is_there_when_opened_again(kind, tmp_path):
    ids, documents = names(30), vectors(kind, 0, 30)
    engine = kind.open(tmp_path)
    engine.add(ids[:20], {field: rows[:20] for field, rows in documents.items()})
    query = one(vectors(kind, 1, 1), 0)
    search(engine, query, 3, Fusion())
    engine.add(ids[20:], {field: rows[20:] for field, rows in documents.items()})
    engine.delete(ids[:5])
    again = kind.open(tmp_path)
    assert again.count() == 25
    left = {field: rows[5:] for field, rows in documents.items()}
    for field in kind.fields:
        agree(again.search(field, query[field], 9), naive(ids[5:], left, query, field, 9))


def test_of_an_id_twice_in_one_call_the_last_counts(kind, engine):
    documents, query = vectors(kind, 0, 3), one(vectors(kind, 1, 1), 0)
    engine.add(["a", "b", "a"], documents)
    assert engine.count() == 2
    for field in kind.fields:
        expected = naive(["b", "a"], {field: documents[field][1:]}, query, field, 5)
        agree(engine.search(field, query[field], 5), expected)


def test_equal_scores_come_by_id(kind, engine):
    row = one(vectors(kind, 0, 1), 0)
    stack = {"dense": np.vstack}
    engine.add(
        ["c", "a", "d", "b"], {field: stack.get(field, sparse.vstack)([rows] * 4) for field, rows in row.items()}
    )
    for field in kind.fields:
        found = engine.search(field, row[field], 4)
        assert [hit.id for hit in found] == ["a", "b", "c", "d"]
        assert len({hit.score for hit in found}) == 1


def test_empty_vectors_are_kept_and_never_hit(kind, engine):
    """Texts without tokens: a document is counted and no hit of a sparse field, a query finds nothing there."""
    ids, documents = names(12), vectors(kind, 0, 12)
    for field in kind.fields:
        if field != "dense":
            nothing = sparse.csr_array((3, TOKENS), dtype=np.float32)
            documents[field] = sparse.vstack([nothing, documents[field][3:]], format="csr")
    engine.add(ids, documents)
    assert engine.count() == 12
    query = one(vectors(kind, 1, 1), 0)
    found = engine.search("sparse", query["sparse"], 12)
    agree(found, naive(ids, documents, query, "sparse", 12))
    nothing = nothing[:1]
    assert engine.search("sparse", nothing, 5) == []
    assert search(engine, {"sparse": nothing, "bm25": nothing}, 5, Fusion()) == []
    rest = {**query, "sparse": nothing}
    rankings = {field: naive(ids, documents, rest, field, 100) for field in kind.fields}
    agree(search(engine, rest, 5, Fusion()), fuse(rankings, 5, Fusion()))
    engine.delete(ids[:3])
    assert engine.count() == 9


def test_before_any_document(kind, engine):
    query = one(vectors(kind, 1, 1), 0)
    assert engine.count() == 0
    assert search(engine, query, 5, Fusion()) == []
    engine.delete(["a"])
    assert engine.count() == 0


@pytest.mark.parametrize("kind", [MILVUS])
def test_other_fields_are_refused_in_one_sentence(kind, engine):
    documents = vectors(kind, 0, 3)
    engine.add(["a", "b", "c"], {"sparse": documents["sparse"]})
    with pytest.raises(UserError, match="sparse"):
        engine.add(["d", "e", "f"], documents)
    with pytest.raises(UserError, match="no bm25 field"):
        engine.search("bm25", documents["bm25"][:1], 3)
    assert engine.count() == 3


def test_milvus_takes_many_documents_in_batches(tmp_path):
    kind = MILVUS
    ids, documents = names(1_203), vectors(kind, 0, 1_203)
    engine = kind.open(tmp_path)
    engine.add(ids, documents)
    assert engine.count() == 1_203
    query = one(vectors(kind, 1, 1), 0)
    for field in ("sparse", "bm25"):
        agree(engine.search(field, query[field], 100), naive(ids, documents, query, field, 100))
    engine.delete(ids[1:])
    assert engine.count() == 1


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1", "no-such-folder/vectors.db", "vectors"])
def test_milvus_that_is_not_there_is_one_sentence(uri):
    with pytest.raises(UserError, match=uri) as error:
        MilvusEngine(uri)
    assert "\n" not in str(error.value)


def test_milvus_collections_of_another_kind_are_refused(tmp_path):
    uri = str(tmp_path / "vectors.db")
    pymilvus.MilvusClient(uri).create_collection("theirs", dimension=4)
    with pytest.raises(UserError, match="'theirs' was not made by text2token"):
        MilvusEngine(uri, "theirs")
    MilvusEngine(uri, "ours").add(["a"], {"dense": np.ones((1, 4), np.float32)})
    with pytest.raises(UserError, match="'ours' holds dense of 4 dimensions, not dense of 8 dimensions"):
        MilvusEngine(uri, "ours").add(["a"], {"dense": np.ones((1, 8), np.float32)})


def test_a_milvus_collection_of_an_earlier_version_is_searched_but_not_filtered(tmp_path):
    uri = str(tmp_path / "vectors.db")
    client = pymilvus.MilvusClient(uri)
    schema = client.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field("id", pymilvus.DataType.VARCHAR, is_primary=True, max_length=99)
    schema.add_field("dense", pymilvus.DataType.FLOAT_VECTOR, dim=2)
    indexes = client.prepare_index_params()
    indexes.add_index("dense", index_type="AUTOINDEX", metric_type="IP")
    client.create_collection("old", schema=schema, index_params=indexes, consistency_level="Strong")
    engine = MilvusEngine(uri, "old")
    engine.add(["a", "b"], {"dense": np.eye(2, dtype=np.float32)}, [{"x": 1}, {}])
    query = np.array([[0.0, 1.0]], np.float32)
    assert engine.search("dense", query, 1) == [ScoredId("b", 1.0)]
    with pytest.raises(UserError, match="made by an earlier version and has no metadata"):
        engine.search("dense", query, 1, [Filter("x", "=", "1")])


def test_qdrant_filters_compare_as_the_other_engines_do():
    engine, vectors = (
        QdrantEngine(QdrantClient(":memory:"), "filters", "memory"),
        {"dense": np.ones((4, 2), np.float32)},
    )
    metadata = [{"a.b": 1, "day": "2021-06-01"}, {"a.b": "x", "day": "2020-01-01"}, {"a.b": 2.0}, {}]
    engine.add(["1", "2", "3", "4"], vectors, metadata)

    def having(*filters):
        return {hit.id for hit in engine.search("dense", vectors["dense"][:1], 9, [Filter(*own) for own in filters])}

    assert having(("a.b", "=", "2")) == {"3"}
    assert having(("a.b", ">=", "1")) == {"1", "3"}
    assert having(("a.b", "<", "2"), ("day", ">", "2021-01-01")) == {"1"}
    assert having(("no", "=", "2")) == set()
    with pytest.raises(UserError, match="compares numbers and dates such as 2021-06-01, and 'b' is neither"):
        having(("a.b", "<", "b"))


def test_qdrant_gets_long_documents_in_smaller_batches(monkeypatch):
    client, sent = QdrantClient(":memory:"), []
    upsert = client.upsert

    def count(name, points, **how):
        sent.append([point.payload["id"] for point in points])
        return upsert(name, points, **how)

    monkeypatch.setattr(client, "upsert", count)
    monkeypatch.setattr("text2token.search.engines.qdrant._WEIGHTS", 20)
    rows = np.zeros((5, 30), np.float32)
    for number, words in enumerate((6, 6, 30, 6, 1)):
        rows[number, :words] = 1
    engine = QdrantEngine(client, "long", "memory")
    engine.add(["a", "b", "c", "d", "e"], {"bm25": sparse.csr_array(rows), "dense": np.ones((5, 4), np.float32)})
    assert sent == [["a", "b"], ["c"], ["d", "e"]]
    assert engine.count() == 5


@pytest.mark.parametrize(
    "kind", ["embedded", "qdrant", *(pytest.param(name, marks=pytest.mark.serving) for name in SERVERS)], indirect=True
)
def test_two_processes_may_begin_a_collection(kind, tmp_path):
    ids, documents = names(20), vectors(kind, 0, 20)
    one, other = kind.open(tmp_path), kind.open(tmp_path)
    other.add(ids[:10], {field: rows[:10] for field, rows in documents.items()})
    one.follow()
    assert one.count() == 10
    one.add(ids[10:], {field: rows[10:] for field, rows in documents.items()})
    other.follow()
    assert one.count() == other.count() == 20


def test_qdrant_that_is_not_there_is_one_sentence():
    with pytest.raises(UserError, match=r"Qdrant at http://127.0.0.1:1: .*Check that it runs") as error:
        QdrantEngine(connect("http://127.0.0.1:1"), "c", "http://127.0.0.1:1")
    assert "\n" not in str(error.value)


def test_qdrant_collections_of_another_kind_are_refused():
    client = QdrantClient(":memory:")
    client.create_collection("theirs", vectors_config=models.VectorParams(size=4, distance=models.Distance.DOT))
    with pytest.raises(UserError, match="'theirs' was not made by text2token"):
        QdrantEngine(client, "theirs", "memory")
    QdrantEngine(client, "ours", "memory").add(["a"], {"dense": np.ones((1, 4), np.float32)})
    with pytest.raises(UserError, match="'ours' holds dense of 4 dimensions, not dense of 8 dimensions"):
        QdrantEngine(client, "ours", "memory").add(["a"], {"dense": np.ones((1, 8), np.float32)})
