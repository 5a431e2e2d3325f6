"""One suite for every engine, against scores computed by hand in numpy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pymilvus
import pytest
from milvus_lite.server_manager import server_manager_instance
from scipy import sparse

from text2token import UserError
from text2token.search.engines.base import ScoredId
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.milvus import MilvusEngine
from text2token.search.fusion import Fusion, fuse, search


class Kind(NamedTuple):
    """How to open an engine in a folder, the sides it holds, and how far its scores may be off."""

    open: object
    sides: tuple[str, ...]
    tolerance: float = 1e-5


def milvus(folder):
    server_manager_instance.release_all()  # what another process would find: only what is on disk
    return MilvusEngine(str(folder / "vectors.db"))


KINDS = {
    "embedded": Kind(lambda folder: EmbeddedEngine(folder / "embedded"), ("sparse", "dense", "bm25")),
    "milvus": Kind(milvus, ("sparse", "dense", "bm25")),
}
DOCUMENTS, TOKENS, DIMENSIONS = 60, 400, 16
STRANGE = ["it's", 'say "so"', "back\\slash", "Größe 大きさ", "a,b]", "{id}", "new\nline", "% _", "7"]


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


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
    return {side: made[side] for side in kind.sides}


def names(number):
    return STRANGE + [f"d{i:03}" for i in range(number - len(STRANGE))]


def naive(ids, documents, query, side, k):
    """The ranking by hand: inner products of all, sorted."""
    product = documents[side] @ query[side].T
    scores = product.ravel() if side == "dense" else product.toarray().ravel()
    hits = [ScoredId(ids[i], float(scores[i])) for i in range(len(ids)) if side == "dense" or scores[i] > 0]
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def one(rows, number):
    return {side: matrix[number : number + 1] for side, matrix in rows.items()}


def agree(found, expected, tolerance):
    """The same documents with the same scores, in the same order but for scores that are nearer than the tolerance."""
    assert sorted(hit.id for hit in found) == sorted(hit.id for hit in expected)
    scores = {hit.id: hit.score for hit in expected}
    for column in (expected, [ScoredId(hit.id, scores[hit.id]) for hit in found]):
        np.testing.assert_allclose(
            [hit.score for hit in found], [hit.score for hit in column], rtol=tolerance, atol=1e-6
        )


def test_each_side_ranks_by_inner_product(kind, engine):
    documents, queries, ids = vectors(kind, 0, DOCUMENTS), vectors(kind, 1, 5), names(DOCUMENTS)
    engine.add(ids, documents)
    assert engine.count() == DOCUMENTS
    for number in range(5):
        query = one(queries, number)
        for side in kind.sides:
            found = engine.search(side, query[side], 10)
            agree(found, naive(ids, documents, query, side, 10), kind.tolerance)


@pytest.mark.parametrize(
    "fusion", [Fusion(), Fusion("rrf", {"sparse": 3.0}), Fusion("scores"), Fusion("scores", {"bm25": 0.3}, depth=7)]
)
def test_hybrid_fuses_the_rankings_of_the_sides(kind, engine, fusion):
    documents, queries, ids = vectors(kind, 0, DOCUMENTS), vectors(kind, 1, 3), names(DOCUMENTS)
    engine.add(ids, documents)
    for number in range(3):
        query = one(queries, number)
        rankings = {side: naive(ids, documents, query, side, fusion.depth) for side in kind.sides}
        found = search(engine, query, 6, fusion)
        assert len(found) == 6
        agree(found, fuse(rankings, 6, fusion), kind.tolerance)


def test_a_document_added_again_takes_its_own_place(kind, engine):
    ids, documents = names(20), vectors(kind, 0, 20)
    engine.add(ids, documents)
    newer = vectors(kind, 2, 20)
    engine.add([*ids[:12], "new"], {side: rows[:13] for side, rows in newer.items()})
    assert engine.count() == 21
    stack = {"dense": np.vstack}
    now = {s: stack.get(s, sparse.vstack)([newer[s][:12], documents[s][12:], newer[s][12:13]]) for s in kind.sides}
    query = one(vectors(kind, 1, 1), 0)
    for side in kind.sides:
        expected = naive([*ids, "new"], now, query, side, 50)
        agree(engine.search(side, query[side], 50), expected, kind.tolerance)


def test_finishing_changes_no_ranking(kind, engine):
    ids, documents, query = names(20), vectors(kind, 0, 20), one(vectors(kind, 1, 1), 0)
    engine.finish()
    engine.add(ids[:12], {side: rows[:12] for side, rows in documents.items()})
    engine.add(ids[12:], {side: rows[12:] for side, rows in documents.items()})
    engine.finish()
    assert engine.count() == 20
    for side in kind.sides:
        agree(engine.search(side, query[side], 9), naive(ids, documents, query, side, 9), kind.tolerance)


def test_deleted_documents_are_gone_and_may_return(kind, engine):
    ids, documents = names(20), vectors(kind, 0, 20)
    engine.delete(["not there"])
    engine.add(ids, documents)
    engine.delete([*ids[:15], "not there"])
    assert engine.count() == 5
    query = one(vectors(kind, 1, 1), 0)
    left = {side: rows[15:] for side, rows in documents.items()}
    for side in kind.sides:
        agree(engine.search(side, query[side], 9), naive(ids[15:], left, query, side, 9), kind.tolerance)
    engine.add(ids[:15], {side: rows[:15] for side, rows in documents.items()})
    assert engine.count() == 20
    engine.delete(ids)
    assert engine.count() == 0
    assert search(engine, query, 9, Fusion()) == []


def test_all_is_there_when_opened_again(kind, tmp_path):
    ids, documents = names(30), vectors(kind, 0, 30)
    engine = kind.open(tmp_path)
    engine.add(ids[:20], {side: rows[:20] for side, rows in documents.items()})
    query = one(vectors(kind, 1, 1), 0)
    search(engine, query, 3, Fusion())
    engine.add(ids[20:], {side: rows[20:] for side, rows in documents.items()})
    engine.delete(ids[:5])
    again = kind.open(tmp_path)
    assert again.count() == 25
    left = {side: rows[5:] for side, rows in documents.items()}
    for side in kind.sides:
        agree(again.search(side, query[side], 9), naive(ids[5:], left, query, side, 9), kind.tolerance)


def test_of_an_id_twice_in_one_call_the_last_counts(kind, engine):
    documents, query = vectors(kind, 0, 3), one(vectors(kind, 1, 1), 0)
    engine.add(["a", "b", "a"], documents)
    assert engine.count() == 2
    for side in kind.sides:
        expected = naive(["b", "a"], {side: documents[side][1:]}, query, side, 5)
        agree(engine.search(side, query[side], 5), expected, kind.tolerance)


def test_equal_scores_come_by_id(kind, engine):
    row = one(vectors(kind, 0, 1), 0)
    stack = {"dense": np.vstack}
    engine.add(["c", "a", "d", "b"], {side: stack.get(side, sparse.vstack)([rows] * 4) for side, rows in row.items()})
    for side in kind.sides:
        found = engine.search(side, row[side], 4)
        assert [hit.id for hit in found] == ["a", "b", "c", "d"]
        assert len({hit.score for hit in found}) == 1


def test_empty_vectors_are_kept_and_never_hit(kind, engine):
    """Texts without tokens: a document is counted and no hit of a sparse side, a query finds nothing there."""
    ids, documents = names(12), vectors(kind, 0, 12)
    for side in kind.sides:
        if side != "dense":
            nothing = sparse.csr_array((3, TOKENS), dtype=np.float32)
            documents[side] = sparse.vstack([nothing, documents[side][3:]], format="csr")
    engine.add(ids, documents)
    assert engine.count() == 12
    query = one(vectors(kind, 1, 1), 0)
    found = engine.search("sparse", query["sparse"], 12)
    agree(found, naive(ids, documents, query, "sparse", 12), kind.tolerance)
    nothing = nothing[:1]
    assert engine.search("sparse", nothing, 5) == []
    assert search(engine, {"sparse": nothing, "bm25": nothing}, 5, Fusion()) == []
    rest = {**query, "sparse": nothing}
    rankings = {side: naive(ids, documents, rest, side, 100) for side in kind.sides}
    agree(search(engine, rest, 5, Fusion()), fuse(rankings, 5, Fusion()), kind.tolerance)
    engine.delete(ids[:3])
    assert engine.count() == 9


def test_before_any_document(kind, engine):
    query = one(vectors(kind, 1, 1), 0)
    assert engine.count() == 0
    assert search(engine, query, 5, Fusion()) == []
    engine.delete(["a"])
    assert engine.count() == 0


@pytest.mark.parametrize("kind", [KINDS["milvus"]])
def test_other_sides_are_refused_in_one_sentence(kind, engine):
    documents = vectors(kind, 0, 3)
    engine.add(["a", "b", "c"], {"sparse": documents["sparse"]})
    with pytest.raises(UserError, match="sparse"):
        engine.add(["d", "e", "f"], documents)
    with pytest.raises(UserError, match="no bm25 field"):
        engine.search("bm25", documents["bm25"][:1], 3)
    assert engine.count() == 3


def test_milvus_takes_many_documents_in_batches(tmp_path):
    kind = KINDS["milvus"]
    ids, documents = names(1_203), vectors(kind, 0, 1_203)
    engine = kind.open(tmp_path)
    engine.add(ids, documents)
    assert engine.count() == 1_203
    query = one(vectors(kind, 1, 1), 0)
    for side in ("sparse", "bm25"):
        agree(engine.search(side, query[side], 100), naive(ids, documents, query, side, 100), 1e-5)
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
