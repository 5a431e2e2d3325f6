"""Measure engines: PostgreSQL against the embedded engine on the same vectors, a failover, and a million embedded documents.

This is a part of scale.py. Each part returns its ``figures`` and the ``details`` behind them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from collection import Collection, ndcg
from postgres_server import servers
from search_speed import ASKED, BATCH, SEED, fill, resampled, timed
from sparse import Model, rank, sparse_vectors
from text2token.search import Index
from text2token.search.encoder import TextEncoder
from text2token.search.engines import postgres
from text2token.search.engines.base import Engine, Matrix
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.postgres import PostgresEngine
from text2token.settings.search import FieldName, Mode
from turns import seconds

K = 10
MODES: tuple[Mode, ...] = ("sparse", "dense", "bm25", "hybrid")
KILLS = 5  # failovers; the slowest counts
SERVER = {"shared_buffers": "2GB", "maintenance_work_mem": "2GB", "max_wal_size": "8GB"}
JITTER = 0.3  # length of the random part of a drawn dense vector of length 1


def quality(model: Model, collections: list[Collection]) -> dict[str, Any]:
    """Score the same collections with both engines, in all fields and hybrid."""
    scores: dict[str, Any] = {}
    disk: dict[str, float] = {}
    with servers() as (server, *_):
        server.create(SERVER)
        for collection in collections:
            indexes = {
                "embedded": model.index(collection)[0],
                "postgres": model.index(collection, engine="postgres", uri=server.uri)[0],
            }
            scores[collection.name] = {
                name: {mode: ndcg(collection, rank(index, collection, mode=mode)) for mode in MODES}
                for name, index in indexes.items()
            }
            table = indexes["postgres"].settings.collection
            ((size,),) = server.execute(f"SELECT pg_total_relation_size('{table}')")
            files = (model.folder(collection) / "vectors").rglob("*")
            disk = {
                "embedded": sum(file.stat().st_size for file in files if file.is_file()) / len(collection.documents),
                "postgres": size / len(collection.documents),
            }
    worst = max(abs(row["postgres"][mode] - row["embedded"][mode]) for row in scores.values() for mode in MODES)
    return {"figures": {"postgres_same_ndcg": worst}, "details": {"ndcg": scores, "bytes_a_document": disk}}


def recall(model: Model, collection: Collection, drawn: int) -> dict[str, Any]:
    """Compare approximate searches of PostgreSQL with exact ones, and their time with that of the embedded engine."""
    index, _ = model.index(collection)
    asked = list(collection.queries.values())[:ASKED]
    documents, queries = sparse_vectors(index, asked)
    encoder, texts = TextEncoder(model.embedder, "document"), [document.content for document in collection.documents]
    embeddings = encoder.dense(*encoder.embed(texts), len(texts))
    dense = np.asarray(index.query_vectors(asked, "dense")["dense"])
    cases: dict[str, tuple[FieldName, Callable[[], Iterator[Matrix]], Matrix]] = {
        f"{collection.name}, sparse": ("sparse", lambda: iter([documents]), queries),
        f"{collection.name}, dense": ("dense", lambda: iter([embeddings]), dense),
        f"{drawn:,} drawn, sparse": ("sparse", partial(resampled, documents, drawn), queries),
        f"{drawn:,} drawn, dense": ("dense", partial(drawn_dense, embeddings, drawn), dense),
    }
    rows = {name: beside_embedded(*case) for name, case in cases.items()}
    figures = {
        "postgres_recall10": min(row["recall10"] for row in rows.values()),
        "postgres_p50_over_embedded": rows[f"{drawn:,} drawn, sparse"]["p50_over_embedded"],
    }
    return {"figures": figures, "details": rows}


def drawn_dense(embeddings: NDArray[np.float32], size: int) -> Iterator[NDArray[np.float32]]:
    """Make batches of embeddings like the real ones: draw one of those, and move it in a random direction."""
    rng = np.random.default_rng(SEED)
    for start in range(0, size, BATCH):
        rows = embeddings[rng.integers(len(embeddings), size=min(BATCH, size - start))]
        noise = rng.normal(size=rows.shape).astype(np.float32)
        moved = rows + JITTER * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        yield moved / np.linalg.norm(moved, axis=1, keepdims=True)


def beside_embedded(field: FieldName, batches: Callable[[], Iterator[Matrix]], queries: Matrix) -> dict[str, float]:
    """Fill both engines with the same vectors of one field, and search them in turns. PostgreSQL searches approximately."""
    asked = [queries[[i]] for i in range(queries.shape[0])]
    with (
        tempfile.TemporaryDirectory() as folder,
        servers() as (server, *_),
        patch.object(postgres, "APPROXIMATE_FROM", 0),
    ):
        server.create(SERVER)
        engines: dict[str, Engine] = {
            "embedded": EmbeddedEngine(Path(folder)),
            "postgres": PostgresEngine(server.uri, "measured"),
        }
        built = {name: fill(engine, field, batches(), time.perf_counter) for name, engine in engines.items()}
        found: dict[str, list[set[str]]] = {name: [] for name in engines}
        times: dict[str, list[float]] = {name: [] for name in engines}
        for engine in engines.values():
            engine.search(field, asked[0], K)  # warm-up
        for query in asked:
            for name, engine in engines.items():
                started = time.perf_counter()
                hits = engine.search(field, query, K)
                times[name].append(1000 * (time.perf_counter() - started))
                found[name].append({hit.id for hit in hits})
    agreed = [len(a & b) / K for a, b in zip(found["embedded"], found["postgres"], strict=True)]
    p50 = {name: float(np.median(values)) for name, values in times.items()}
    return {
        "recall10": float(np.mean(agreed)),
        "p50_over_embedded": p50["postgres"] / p50["embedded"],
        **{f"{name}_p50_ms": value for name, value in p50.items()},
        **{f"{name}_p99_ms": float(np.percentile(values, 99)) for name, values in times.items()},
        **{f"{name}_build_s": seconds for name, seconds in built.items()},
    }


def failover() -> dict[str, Any]:
    """Measure the seconds from the kill of a primary to the next right answer, which its replica gives."""
    rows: Any = csr_array(np.random.default_rng(SEED).random((1_000, 50)).astype(np.float32))
    taken = []
    for _ in range(KILLS):
        with servers() as (primary, replica, _):
            primary.create()
            replica.replica_of(primary, "replica")
            primary.execute("ALTER SYSTEM SET synchronous_standby_names = 'replica'")
            primary.execute("SELECT pg_reload_conf()")
            engine = PostgresEngine(f"postgresql://postgres@{primary.host},{replica.host}/postgres", "measured")
            fill(engine, "sparse", [rows], time.perf_counter)
            expected = engine.search("sparse", rows[[0]], K)
            started = time.perf_counter()
            primary.kill()
            answer = engine.search("sparse", rows[[0]], K)
            taken.append(time.perf_counter() - started)
            if answer != expected:
                raise RuntimeError("The replica gives another answer than its primary.")
    return {"figures": {"failover_s": max(taken)}, "details": {"seconds": taken}}


def embedded(model: Model, collection: Collection, size: int) -> dict[str, Any]:
    """Measure build, search and a small addition in the embedded engine; times as in search_speed.py, but for the addition."""
    index: Index = model.index(collection)[0]
    documents, queries = sparse_vectors(index, list(collection.queries.values())[:ASKED])
    asked = [queries[[i]] for i in range(queries.shape[0])]
    with tempfile.TemporaryDirectory() as folder:
        engine = EmbeddedEngine(Path(folder))
        build = fill(engine, "sparse", resampled(documents, size), time.process_time)
        engine.search("sparse", asked[0], K)  # the first search loads the index
        times = timed(lambda i: [hit.id for hit in engine.search("sparse", asked[i], K)], len(asked))
        wall = [1000 * seconds(partial(engine.search, "sparse", query, K)) for query in asked]
        started = time.perf_counter()
        engine.add(
            [f"new {number}" for number in range(100)], {"sparse": documents[np.arange(100) % documents.shape[0]]}
        )
        engine.finish()
        added = time.perf_counter() - started
    millions = "1m" if size == 1_000_000 else str(size)
    figures = {
        f"embedded_{millions}_sparse_p50_ms": times["p50"],
        f"embedded_{millions}_build_s": build,
        f"embedded_{millions}_add100_s": added,
    }
    return {"figures": figures, "details": {"documents": size, "milliseconds": wall, **times}}
