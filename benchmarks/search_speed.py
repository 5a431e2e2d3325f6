"""Measure the speed of search: our sparse search against bm25s, and engines with a growing number of documents.

This is a part of benchmarks/sparse.py. Times are milliseconds of processor time per query on one thread, because other processes
do not disturb processor time. All engines get encoded queries.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import bm25s
import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from runner import kept
from text2token.search.engines.base import Engine
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.milvus import MilvusEngine

K = 10  # hits of a search
ROUNDS = 5  # rounds in which two engines take turns
SIZES = (10_000, 100_000, 1_000_000)
ASKED = 100  # queries of each measurement of growth
BATCH = 10_000  # documents that are added at once
DIMENSIONS = 576  # length of the dense vectors of the default backbone
JITTER, SWAPPED = 0.2, 0.2  # resampled documents: σ of the logarithm of weights, and share of exchanged tokens
SEED = 0

Search = Callable[[int], Sequence[str]]
"""Number of a query → ids of its hits."""


class Vectors(NamedTuple):
    """Sparse vectors of N documents and of queries."""

    documents: csr_array
    queries: csr_array

    def checksum(self) -> str:
        """Return a short hash of all vectors."""
        arrays = [array for rows in self for array in (rows.indptr, rows.indices, rows.data)]
        return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:8]


def measure(
    runs: Path, vectors: Vectors, corpus: list[str], questions: list[str]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure everything: figures, and the numbers behind them.

    Args:
        runs: Folder that keeps every finished measurement.
        vectors: Sparse vectors of the texts.
        corpus: Texts of the documents.
        questions: Texts of the queries.
    """
    faiss.omp_set_num_threads(1)
    folder = runs / "search_speed" / vectors.checksum()
    against = kept(folder / "bm25s.json", lambda: beside_bm25s(vectors, corpus, questions))
    growth = [
        {"engine": name, "documents": size}
        | kept(folder / f"{name}-{size}.json", partial(grown, contender, size, vectors))
        for size in SIZES
        for name, contender in CONTENDERS.items()
        if size <= contender.largest
    ]
    shape = {
        "documents": vectors.documents.shape[0],
        "tokens_a_document": vectors.documents.nnz / vectors.documents.shape[0],
        "tokens_a_query": vectors.queries.nnz / vectors.queries.shape[0],
    }
    figures = {
        "sparse_p50_over_bm25s": against["over numpy"]["median"],
        "sparse_p50_over_bm25s_numba": against["over numba"]["median"],
    }
    return figures, {"vectors": shape, "bm25s": against, "growth": growth}


def beside_bm25s(vectors: Vectors, corpus: list[str], questions: list[str]) -> dict[str, Any]:
    """Measure the median time of the embedded engine over that of bm25s, on the same documents, in turns."""
    tokens = bm25s.tokenize(corpus, stopwords="en", show_progress=False)
    asked = bm25s.tokenize(questions, stopwords="en", return_ids=False, show_progress=False)
    count = len(questions)
    with tempfile.TemporaryDirectory() as folder:
        searches = {"sparse": add_all(EmbeddedEngine(Path(folder)), [vectors.documents], vectors.queries)}
        for backend in ("numpy", "numba"):
            index = bm25s.BM25(backend=backend)
            index.index(tokens, show_progress=False)
            searches[backend] = partial(words_search, index, asked)
        for search in searches.values():
            timed(search, count)  # warm-up
        rounds = [{name: timed(search, count) for name, search in searches.items()} for _ in range(ROUNDS)]
    result: dict[str, Any] = {"rounds": rounds}
    for backend in ("numpy", "numba"):
        ratios = sorted(row["sparse"]["p50"] / row[backend]["p50"] for row in rounds)
        result[f"over {backend}"] = {"median": ratios[ROUNDS // 2], "min": ratios[0], "max": ratios[-1]}
    return result


def words_search(index: Any, asked: list[list[str]], i: int) -> Sequence[str]:
    """Search with bm25s."""
    return index.retrieve([asked[i]], k=K, show_progress=False).documents[0]


class Contender(NamedTuple):
    """An engine that is measured with a growing number of documents.

    Attributes:
        largest: Largest number of documents; more would take hours.
        build: Builds an index from folder, batches and queries, and returns its search.
        dense: Whether it searches dense vectors.
    """

    largest: int
    build: Callable[[Path, list[Any], Any], Search]
    dense: bool = False


def add_all(engine: Engine, batches: list[csr_array], queries: csr_array) -> Search:
    """Fill an engine with documents whose ids are their numbers, and return its search."""
    done = 0
    for rows in batches:
        engine.add([str(number) for number in range(done, done + rows.shape[0])], {"sparse": rows})
        done += rows.shape[0]
    asked = [queries[[i]] for i in range(queries.shape[0])]
    engine.finish()
    engine.search("sparse", asked[0], K)  # the first search loads the index
    return lambda i: [hit.id for hit in engine.search("sparse", asked[i], K)]


def build_faiss(index: Any, folder: Path, batches: list[NDArray[np.float32]], queries: NDArray[np.float32]) -> Search:
    """Fill an index of faiss, write it, and return its search."""
    for rows in batches:
        index.add(rows)
    faiss.write_index(index, str(folder / "index"))
    return lambda i: [str(row) for row in index.search(queries[i : i + 1], K)[1][0]]


def hnsw() -> Any:
    """As the embedded engine has it."""
    index = faiss.IndexHNSWFlat(DIMENSIONS, 32, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = index.hnsw.efSearch = 128
    return index


CONTENDERS = {
    "embedded": Contender(1_000_000, lambda folder, *rest: add_all(EmbeddedEngine(folder), *rest)),
    "milvus-lite": Contender(100_000, lambda folder, *rest: add_all(MilvusEngine(str(folder / "m.db")), *rest)),
    "faiss flat": Contender(1_000_000, lambda *rest: build_faiss(faiss.IndexFlatIP(DIMENSIONS), *rest), dense=True),
    "faiss HNSW": Contender(100_000, lambda *rest: build_faiss(hnsw(), *rest), dense=True),
}


def grown(contender: Contender, size: int, vectors: Vectors) -> dict[str, float]:
    """Measure build time, size, search time and recall@10 (against exact search) of an engine with many documents."""
    batches, queries = list(resampled(vectors.documents, size)), vectors.queries[:ASKED]
    exact = partial(best_of, batches, queries)
    if contender.dense:
        project = np.random.default_rng(SEED).normal(size=(queries.shape[1], DIMENSIONS)).astype(np.float32)
        batches, queries = [projected(rows, project) for rows in batches], projected(queries, project)
        exact = partial(best_of, batches, queries)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        search = contender.build(folder, batches, queries)
        build = time.process_time() - started
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        times = timed(search, queries.shape[0])
        recall = np.mean([len({*search(i)} & {*exact(i)}) / K for i in range(0, queries.shape[0], 2)])
    return {"build_seconds": build, "bytes_a_document": used / size, **times, "recall10": float(recall)}


def resampled(documents: csr_array, size: int) -> Iterator[csr_array]:
    """Make batches of documents like the real ones: draw one of those, jitter its weights, and exchange some of its tokens."""
    rng = np.random.default_rng(SEED)
    for start in range(0, size, BATCH):
        rows = documents[rng.integers(documents.shape[0], size=min(BATCH, size - start))]
        swapped = rng.random(rows.nnz) < SWAPPED
        rows.indices[swapped] = rng.choice(documents.indices, swapped.sum())
        rows.data *= np.exp(rng.normal(0, JITTER, rows.nnz)).astype(np.float32)
        rows.sum_duplicates()
        yield rows


def projected(rows: csr_array, project: NDArray[np.float32]) -> NDArray[np.float32]:
    """Project sparse vectors at random to dense ones of unit length, which keeps their geometry."""
    dense = rows @ project
    return np.ascontiguousarray(dense / np.linalg.norm(dense, axis=1, keepdims=True).clip(1e-12), np.float32)


def best_of(batches: list[Any], queries: Any, i: int) -> list[str]:
    """Return the ids of the best documents by brute force."""
    query = queries[[i]].T
    scores = [rows @ query for rows in batches]
    flat = np.concatenate([part.toarray() if issparse(part) else part for part in scores]).ravel()
    return [str(row) for row in np.argsort(-flat, kind="stable")[:K]]


def timed(search: Search, queries: int) -> dict[str, float]:
    """Measure the median and the 99th percentile of the time of a query."""
    times = []
    for i in range(queries):
        started = time.process_time()
        search(i)
        times.append(1e3 * (time.process_time() - started))
    return {"p50": float(np.median(times)), "p99": float(np.percentile(times, 99))}
