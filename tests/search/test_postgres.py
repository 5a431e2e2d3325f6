"""The PostgreSQL engine on real servers: its tables and indexes, what it refuses, and what it survives."""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from struct import pack

import numpy as np
import pytest
from psycopg.conninfo import conninfo_to_dict
from scipy import sparse

from conftest import SENTENCES, done, refused, text2token
from postgres_server import servers
from text2token import UserError
from text2token.model.embedder import Embedder
from text2token.search import Document, Index
from text2token.search.engines import postgres as module
from text2token.search.engines import postgres_postings as postings
from text2token.search.engines import postgres_schema as schema
from text2token.search.engines import postgres_values as values
from text2token.search.engines.addresses import stored_address, without_password
from text2token.search.engines.base import LostShardError
from text2token.search.engines.postgres import PostgresEngine
from text2token.search.engines.postgres_shard import Shard, _hosts
from text2token.search.filters import Filter
from text2token.settings.search import Calibration
from text2token.settings.templates import Template

SETTINGS = {
    "encoder": {"template": Template(), "pooling": "mean"},
    "calibration": Calibration(correction="centre", texts=5),
}
SECRET = "s3cr3t word"
serving = pytest.mark.serving


def rows(number, tokens=200, each=12, seed=0):
    """Sparse rows and dense rows."""
    rng = np.random.default_rng(seed)
    columns = np.concatenate([rng.choice(tokens, each, replace=False) for _ in range(number)])
    weights = rng.random(number * each).astype(np.float32) + 0.1
    tokens_of = sparse.csr_array((weights, (np.repeat(np.arange(number), each), columns)), shape=(number, tokens))
    return {"sparse": tokens_of, "dense": rng.normal(size=(number, 8)).astype(np.float32)}


def names(number):
    return [f"d{i}" for i in range(number)]


def test_a_password_is_not_kept():
    uri = "postgresql://me:a%3Bb@h1,h2:5433/db?sslmode=require&password=x;postgresql://c"
    assert without_password(uri.split(";")[0]) == "postgresql://me@h1,h2:5433/db?sslmode=require"
    assert stored_address("postgres", uri) == "postgresql://me@h1,h2:5433/db?sslmode=require;postgresql://c"
    assert stored_address("postgres", "postgresql:///db?host=/run") == "postgresql:///db?host=/run"
    assert stored_address("postgres", "postgresql://h?password=x") == "postgresql://h"
    for wrong in (
        "me:secret@host",
        "postgresql://me:secret@host;",
        "http://me:secret@host",
        "postgresql://me:se/secret@h",
    ):
        with pytest.raises(UserError, match="is not an address of postgres: set `uri` to postgresql") as error:
            stored_address("postgres", wrong)
        assert "secret" not in str(error.value)
    with pytest.raises(UserError, match="needs an address: set `uri` to postgresql://user@host"):
        stored_address("postgres", None)


def test_libpq_refuses_an_address_without_repeating_it():
    with pytest.raises(UserError, match="cannot read the address of shard 2") as error:
        PostgresEngine("postgresql://h;postgresql://me:secret@[::1/db", "t")
    assert "secret" not in str(error.value)


def test_the_missing_package_is_named(monkeypatch, tmp_path, backbone):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "text2token.search.engines.postgres")
    monkeypatch.delitem(sys.modules, "text2token.search.engines.postgres_shard")
    with pytest.raises(UserError, match=r"the package 'psycopg': pip install 'text2token\[postgres\]'"):
        Index.create(tmp_path / "i", backbone("llama"), engine="postgres", uri="postgresql://h", **SETTINGS)


@serving
def test_large_shards_are_searched_approximately_and_filters_still_give_k_hits(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 1_000)
    engine, number = PostgresEngine(postgres.uri, "large"), 2_000
    vectors = rows(number)
    metadata = [{"kind": "rare" if i % 100 == 7 else "common", "number": i} for i in range(number)]
    engine.add(names(number), vectors, metadata)
    engine.finish()
    exact = vectors["sparse"] @ vectors["sparse"][:50].T
    found = [{hit.id for hit in engine.search("sparse", vectors["sparse"][[i]], 10)} for i in range(50)]
    best = [{f"d{row}" for row in np.argsort(-exact[:, [i]].toarray().ravel(), kind="stable")[:10]} for i in range(50)]
    assert np.mean([len(a & b) / 10 for a, b in zip(found, best, strict=True)]) > 0.97
    explain = "EXPLAIN (FORMAT JSON) SELECT id FROM large ORDER BY dense::halfvec(8) <#> '[1,1,1,1,1,1,1,1]' LIMIT 3"
    ((plan,),) = postgres.execute(explain, options="-c enable_seqscan=off")
    assert "large_dense" in json.dumps(plan)
    query = vectors["dense"][[0]]
    nearest = engine.search("dense", query, 10)
    scores = (vectors["dense"] @ query[0])[[int(hit.id[1:]) for hit in nearest]]
    np.testing.assert_allclose([hit.score for hit in nearest], scores, rtol=1e-6)  # 32 bits a number
    for filters in ([Filter("kind", "=", "rare")], [Filter("number", "<", "20")]):
        for field, query in (("sparse", vectors["sparse"][[0]]), ("dense", vectors["dense"][:1])):
            hits = engine.search(field, query, 20, filters)
            rare = filters[0].column == "kind"
            allowed = {f"d{i}" for i in range(number) if (i % 100 == 7 if rare else i < 20)}
            assert {hit.id for hit in hits} <= allowed
            assert len(hits) == 20 or field == "sparse"
    one_token = sparse.csr_array(([1.0], ([0], [3])), shape=(1, 200))
    having = np.flatnonzero(vectors["sparse"][:, [3]].toarray().ravel())
    hits = engine.search("sparse", one_token, 500)  # more than there are: found with a repeated, exact search
    assert {hit.id for hit in hits} == {f"d{i}" for i in having}


@serving
def test_a_reader_uses_the_indexes_that_another_process_builds(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 5)
    monkeypatch.setattr(module, "REREAD", 0)
    reader, writer, vectors = PostgresEngine(postgres.uri, "built"), PostgresEngine(postgres.uri, "built"), rows(8)
    writer.add(names(3), {field: matrix[:3] for field, matrix in vectors.items()})
    writer.finish()
    assert len(reader.search("dense", vectors["dense"][:1], 8)) == 3
    writer.add(names(8)[3:], {field: matrix[3:] for field, matrix in vectors.items()})
    writer.finish()
    reader.follow()
    assert len(reader.search("dense", vectors["dense"][:1], 8)) == 8
    (table,) = reader._tables.values()
    assert table.approximate == {"sparse", "dense"}


def ranked(engine, vectors, alive, queries):
    """Hits of an engine for some queries, and those by hand among the living rows."""
    scores = (vectors["sparse"] @ vectors["sparse"][queries].T).toarray()
    for place, row in enumerate(queries):
        found = [hit.id for hit in engine.search("sparse", vectors["sparse"][[row]], 5)]
        yield found, [f"d{own}" for own in sorted(alive, key=lambda own: (-scores[own, place], f"d{own}"))[:5]]


@serving
def test_postings_follow_additions_and_deletions(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 100)
    monkeypatch.setattr(postings, "MAX_WAITING", 100)
    engine, vectors = PostgresEngine(postgres.uri, "posted"), rows(400)
    state = (
        "SELECT last, posted, (SELECT sum(length) FROM posted_postings) FROM text2token_indexes WHERE name = 'posted'"
    )

    def add(start, end):
        engine.add(names(end)[start:], {field: matrix[start:end] for field, matrix in vectors.items()})
        engine.finish()

    add(0, 300)
    assert postgres.execute(state) == [(300, 300, 300 * 12)]
    assert all(found == best for found, best in ranked(engine, vectors, range(300), [1, 200]))
    add(300, 350)  # too few for postings: scored one by one
    assert postgres.execute(state) == [(300, 300, 300 * 12)]
    assert all(found == best for found, best in ranked(engine, vectors, range(350), [1, 320]))
    add(350, 400)
    assert postgres.execute(state) == [(400, 400, 400 * 12)]
    engine.delete(names(20))
    assert all(found == best for found, best in ranked(engine, vectors, range(20, 400), [1, 320]))
    engine.delete(names(150))
    engine.finish()
    assert postgres.execute(state) == [(400, 250, 250 * 12)]
    assert all(found == best for found, best in ranked(engine, vectors, range(150, 400), [1, 320]))


@serving
def test_a_budget_of_postings_finds_almost_all(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 1_000)
    engine, vectors = PostgresEngine(postgres.uri, "budget"), rows(2_000)
    engine.add(names(2_000), vectors)
    engine.finish()
    monkeypatch.setattr(postings, "_BLOCK", 16)
    pairs = list(ranked(engine, vectors, range(2_000), range(30)))
    assert all(found == best for found, best in pairs)  # the budget covers everything
    monkeypatch.setattr(postings, "POSTINGS", 300)
    monkeypatch.setattr(postings, "CANDIDATES", 100)
    shares = [len({*found} & {*best}) / 5 for found, best in ranked(engine, vectors, range(2_000), range(30))]
    assert 0.7 < np.mean(shares) < 1


@serving
def test_psql_users_find_comments_and_a_list_of_indexes(postgres):
    PostgresEngine(postgres.uri, "commented").add(["a"], {**rows(1), "bm25": rows(1)["sparse"]})
    columns = postgres.execute(
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute "
        "WHERE attrelid = 'commented'::regclass AND attnum > 0"
    )
    assert [name for name, _ in columns] == [
        "id",
        "sparse",
        "dense",
        "bm25",
        "tokens",
        "words",
        "metadata",
        "numbers",
        "number",
    ]
    assert all(comment for _, comment in columns)
    listed = postgres.execute("SELECT version, shard, shards, fields FROM text2token_indexes WHERE name = 'commented'")
    assert listed == [(3, 1, 1, {"sparse": 200, "dense": 8, "bm25": 0})]


@serving
def test_weights_beyond_the_limits_of_pgvector_are_left_out(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 1)
    wide = sparse.csr_array(np.linspace(1, 2, 17_000, dtype=np.float32)[None])
    engine = PostgresEngine(postgres.uri, "wide")
    engine.add(["a"], {"sparse": wide, "bm25": wide})
    engine.finish()
    ones = sparse.csr_array(np.r_[np.zeros(1_000), np.ones(16_000)].astype(np.float32)[None])
    (hit,) = engine.search("sparse", ones, 1)
    assert hit.score == pytest.approx(wide.data[-16_000:].sum(), rel=1e-4)
    (hit,) = engine.search("bm25", ones, 1)
    assert hit.score == pytest.approx(wide.data[-16_000:].sum(), rel=1e-4)


@serving
def test_what_a_server_refuses_is_one_sentence(postgres, monkeypatch):
    engine, vectors = PostgresEngine(postgres.shards, "refusals"), rows(3)
    engine.add(names(3), vectors)
    with pytest.raises(
        UserError, match="holds dense of 8 dimensions and sparse of 200 dimensions, not dense of 9 dimensions"
    ):
        engine.add(["x"], {"dense": np.ones((1, 9), np.float32)})
    with pytest.raises(UserError, match="the dense vector of the query has 9"):
        engine.search("dense", np.ones((1, 9), np.float32), 3)
    with pytest.raises(UserError, match="Address 1 of 1 in `uri` leads to shard 1 of 2: give all 2 shards"):
        PostgresEngine(postgres.uri, "refusals").count()
    with pytest.raises(UserError, match="Address 1 of 2 in `uri` leads to shard 2 of 2"):
        PostgresEngine(";".join(postgres.shards.split(";")[::-1]), "refusals").count()
    with pytest.raises(UserError, match=r"refuses the work .*NUL"):
        engine.add(["nul\0"], {field: matrix[:1] for field, matrix in vectors.items()})
    assert engine.count() == 3
    postgres.execute("UPDATE text2token_indexes SET version = 9 WHERE name = 'refusals'")
    with pytest.raises(UserError, match=r"later version of text2token \(schema 9, not 3\): update text2token"):
        PostgresEngine(postgres.shards, "refusals").search("dense", vectors["dense"][:1], 3)


@serving
def test_roles_without_rights_and_wrong_passwords(postgres, monkeypatch):
    uri = postgres.require_password("guest", SECRET)
    postgres.execute("CREATE DATABASE bare OWNER guest")
    bare = uri.replace("/postgres", "/bare")
    assert PostgresEngine(bare.replace("guest@", "guest:s3cr3t%20word@"), "t").count() == 0
    monkeypatch.setenv("PGPASSWORD", "an0ther")
    with pytest.raises(
        LostShardError, match=r"password authentication failed .*: start it, or check `uri`, PGUSER"
    ) as error:
        PostgresEngine(bare, "t").count()
    assert "an0ther" not in str(error.value)
    assert "\n" not in str(error.value)
    monkeypatch.setenv("PGPASSWORD", SECRET)
    with pytest.raises(
        UserError, match="no extension 'vector', and this role may not create it: ask its administrator"
    ):
        PostgresEngine(bare, "t").add(["a"], rows(1))
    postgres.execute("CREATE EXTENSION vector", dbname="bare")
    engine = PostgresEngine(bare, "t")
    engine.add(["a"], rows(1))
    assert engine.count() == 1
    postgres.execute("UPDATE pg_extension SET extversion = '0.7.4' WHERE extname = 'vector'", dbname="bare")
    with pytest.raises(UserError, match=r"has pgvector 0.7.4, and 0.8 is needed"):
        PostgresEngine(bare, "u").add(["a"], rows(1))


@serving
def test_an_index_in_a_database_by_command(postgres, tmp_path, backbone, monkeypatch):
    texts = [{"id": i, "text": text, "year": 2015 + i} for i, text in enumerate(SENTENCES)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, texts)))
    index, setting = tmp_path / "i", ("--template", "none", "--pooling", "mean")
    make = "index", backbone("llama"), tmp_path / "d.jsonl", "-o", index, *setting, "--engine", "postgres"
    assert "does not answer" in refused(*make, "--uri", "postgresql://me:secret@127.0.0.1:1/x")
    uri = postgres.require_password("owner", SECRET)
    postgres.execute("CREATE DATABASE commands OWNER owner")
    postgres.execute("CREATE EXTENSION vector", dbname="commands")
    address = uri.replace("/postgres", "/commands")
    done(*make, "--uri", address.replace("owner@", "owner:s3cr3t%20word@"))
    assert b"s3cr3t" not in b"".join(file.read_bytes() for file in index.rglob("*") if file.is_file())
    assert "password" in refused("search", index, "cat", "--mode", "bm25")
    monkeypatch.setenv("PGPASSWORD", SECRET)
    found = json.loads(done("search", index, "a galaxy of stars", "--filter", "year>=2020", "--json"))
    assert found[0]["id"] == "5"
    moved = address.replace("127.0.0.1", "localhost")
    done("index", "-o", index, "--uri", moved)
    assert Index.open(index).settings.uri == moved
    assert "give all 1 shards" in refused("index", "-o", index, "--uri", f"{address};{uri}")
    done("index", "-o", index, "--delete", "5")
    assert "5" not in {hit["id"] for hit in json.loads(done("search", index, "galaxy", "--json"))}


@pytest.fixture
def cluster():
    """Two shards; the first has a replica that confirms each commit."""
    with servers() as (first, replica, second):
        first.create()
        second.create()
        replica.replica_of(first, "replica")
        first.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
        first.execute("SELECT pg_reload_conf()")
        uri = f"postgresql://postgres@{first.host},{replica.host}/postgres;{second.uri}"
        yield first, replica, second, uri


class Additions(threading.Thread):
    """Adds documents one by one until an addition fails, and keeps what was acknowledged."""

    def __init__(self, engine):
        super().__init__()
        self.engine, self.acknowledged, self.error = engine, [], None

    def run(self):
        vectors = rows(1)
        for number in range(100_000):
            try:
                self.engine.add([f"d{number}"], vectors)
            except UserError as error:
                self.error = error
                return
            self.acknowledged.append(f"d{number}")


@serving
def test_a_killed_primary_loses_nothing_and_searches_go_on(cluster):
    first, replica, _, uri = cluster
    engine = PostgresEngine(uri, "killed")
    additions = Additions(engine)
    additions.start()
    while len(additions.acknowledged) < 200:
        time.sleep(0.01)
    first.kill()
    query = rows(1)["sparse"]
    additions.join()
    hits = engine.search("sparse", query, 100_000)  # the replica answers
    acknowledged = set(additions.acknowledged)
    assert acknowledged <= {hit.id for hit in hits}
    assert "only a replica answers, which takes no changes" in str(additions.error)
    with pytest.raises(LostShardError, match="shard 1 of 2"):  # writes stop
        engine.add(names(50), {field: matrix[[0] * 50] for field, matrix in rows(1).items()})

    first.start()
    engine.add(["after a restart"], rows(1))  # the same connections find the primary again
    everything = {hit.id for hit in engine.search("sparse", query, 100_000)}
    assert acknowledged | {"after a restart"} <= everything

    first.kill()
    replica.promote()
    engine.add(["after a promotion"], rows(1))
    everything = {hit.id for hit in engine.search("sparse", query, 100_000)}
    assert acknowledged | {"after a restart", "after a promotion"} <= everything
    assert engine.count() == len(everything)


@serving
def test_searches_survive_the_kill_of_a_primary(cluster):
    first, _, _, uri = cluster
    engine, vectors = PostgresEngine(uri, "searched"), rows(300)
    engine.add(names(300), vectors)
    expected = engine.search("sparse", vectors["sparse"][[0]], 10)
    killer = threading.Timer(0.3, first.kill)
    killer.start()
    answers = []
    while killer.is_alive() or len(answers) < 100:
        answers.append(engine.search("sparse", vectors["sparse"][[0]], 10))
    assert all(answer == expected for answer in answers)


@serving
def test_a_lost_shard_is_an_error_or_a_partial_answer_that_says_so(cluster, tmp_path, backbone, serve):
    _, _, second, uri = cluster
    index = Index.create(tmp_path / "i", backbone("llama"), engine="postgres", uri=uri, **SETTINGS)
    index.add([Document(str(i), "", text) for i, text in enumerate(SENTENCES)])
    whole = [hit.id for hit in index.search("cat", 10, "dense").hits]
    assert len(whole) == 10
    second.kill()
    with pytest.raises(LostShardError, match=r"shard 2 of 2 .* does not answer"):
        index.search("cat", 10, "dense")
    assert "shard 2 of 2" in refused("search", tmp_path / "i", "cat", "--mode", "bm25")
    found = Index.open(tmp_path / "i", partial=True).search("cat", 10, "dense")
    assert 0 < len(found.hits) < 10
    assert [hit.id for hit in found.hits] == [name for name in whole if name in {hit.id for hit in found.hits}]
    said = "The answer is partial, because these shards did not answer: shard 2 of 2"
    assert found.note.startswith(said)
    shown = text2token("search", tmp_path / "i", "cat", "--mode", "dense", "--partial", "--json")
    assert said in shown.stderr
    assert [hit["id"] for hit in json.loads(shown.stdout)] == [hit.id for hit in found.hits]

    embedder, asked = Embedder.open(backbone("llama"), **SETTINGS["encoder"]), {"query": "cat", "mode": "dense"}
    served = serve(embedder, indexes={"i": tmp_path / "i"}, partial=True)
    ((answer,),) = served.post("/search", json=asked).json().values()
    assert answer["note"].startswith(said)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in found.hits]
    assert served.get("/indexes").json()["indexes"][0]["documents"] == len(found.hits)
    second.start()
    whole_again = serve(embedder, indexes={"i": tmp_path / "i"})
    assert len(whole_again.post("/search", json=asked).json()["results"][0]["hits"]) == 10
    second.kill()
    refusal = whole_again.post("/search", json=asked)
    assert (refusal.status_code, refusal.headers["retry-after"]) == (503, "1")
    assert refusal.json()["error"] == "The index cannot be used now: repeat the request later."


@serving
def test_a_table_of_schema_1_is_searched_and_upgraded(postgres, monkeypatch):
    monkeypatch.setattr(module, "APPROXIMATE_FROM", 50)
    vectors, uri = rows(60), postgres.uri
    with monkeypatch.context() as older:
        older.setattr(schema, "_STEPS", schema._STEPS[:1])
        older.setattr(
            values, "dense_binary", lambda matrix: (pack(">HH", 8, 0) + r.astype(">f2").tobytes() for r in matrix)
        )
        PostgresEngine(uri, "older").add(names(60), vectors)
    postgres.execute("CREATE INDEX older_dense ON older USING hnsw (dense halfvec_ip_ops)")
    postgres.execute("CREATE INDEX older_sparse ON older USING gin (tokens)")
    engine = PostgresEngine(uri, "older")
    for field in ("sparse", "dense"):
        query = vectors[field][[3]]
        exact = vectors[field] @ query.T
        best = np.argsort(-(exact.ravel() if field == "dense" else exact.toarray().ravel()), kind="stable")[:5]
        assert [hit.id for hit in engine.search(field, query, 5)] == [f"d{row}" for row in best]
    engine.add(["new"], {field: matrix[:1] for field, matrix in vectors.items()})
    engine.finish()
    ((kind,),) = postgres.execute(
        "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'older'::regclass AND attname = 'dense'"
    )
    assert kind == "vector(8)"
    found = PostgresEngine(uri, "older").search("dense", vectors["dense"][:1], 2)
    assert {hit.id for hit in found} == {"new", "d0"}


def test_an_address_of_several_hosts_is_asked_host_by_host():
    hosts = [conninfo_to_dict(one) for one in _hosts("postgresql://me@a,b:5433/db")]
    assert [(own["host"], own["port"], own["user"]) for own in hosts] == [("a", "", "me"), ("b", "5433", "me")]
    assert [conninfo_to_dict(one)["port"] for one in _hosts("host=a,b port=5432 dbname=db")] == ["5432", "5432"]
    assert len(_hosts("dbname=db")) == 1


@serving
def test_a_host_that_is_silent_is_passed_over(postgres):
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it accepts connections and says nothing
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        shard = Shard(f"postgresql://postgres@{host},{postgres.host}/postgres?connect_timeout=2", 1, 1, {})
        assert shard.run(lambda connection: connection.execute("SELECT 1").fetchone()) == (1,)
