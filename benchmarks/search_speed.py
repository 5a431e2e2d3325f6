"""Measure the speed of search: our sparse search against bm25s, and engines with a growing number of documents.

This is a part of benchmarks/sparse.py. Times are milliseconds of processor time per query on one thread, because other processes
do not disturb processor time. All engines get encoded queries.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
from scipy.sparse import csr_array

from runner import spread
from text2token.search.engines.base import Engine, Matrix
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.milvus import MilvusEngine
from text2token.settings.search import FieldName

K = 10  # hits of a search
BACKENDS = {"": "numpy", "_numba": "numba"}  # of bm25s
ROUNDS = 5  # rounds in which two engines take turns
SIZES = (10_000, 100_000, 1_000_000)
ENGINES: dict[str, tuple[Callable[[Path], Engine], int]] = {  # how to make it, and the largest number of documents
    "embedded": (EmbeddedEngine, 1_000_000),
    "milvus-lite": (lambda folder: MilvusEngine(str(folder / "m.db")), 100_000),  # more would take hours
}
ASKED = 100  # queries of each measurement of growth
BATCH = 10_000  # documents that are added at once
JITTER, SWAPPED = 0.2, 0.2  # resampled documents: σ of the logarithm of weights, and share of exchanged tokens
SEED = 0

Search = Callable[[int], Sequence[str]]
"""Number of a query → ids of its hits."""


def measure(
    once: Callable[[str, Callable[[], Any]], Any],
    vectors: tuple[csr_array, csr_array],
    texts: tuple[list[str], list[str]],
) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure everything: figures, and the numbers behind them.

    Args:
        once: Takes the name of a measurement and a function that measures, and keeps the result.
        vectors: Sparse vectors of the documents and of the queries.
        texts: Texts of the documents and of the queries.
    """
    documents, queries = vectors
    against = once("speed-bm25s", lambda: beside_bm25s(documents, queries, *texts))
    growth = [
        {"engine": name, "documents": size}
        | once(f"speed-{name}-{size}", partial(grown, make, size, documents, queries))
        for size in SIZES
        for name, (make, largest) in ENGINES.items()
        if size <= largest
    ]
    shape = {
        "documents": documents.shape[0],
        "tokens_a_document": documents.nnz / documents.shape[0],
        "tokens_a_query": queries.nnz / queries.shape[0],
    }
    figures = {
        f"sparse_p50_over_bm25s{name}": against[f"over {backend}"]["median"] for name, backend in BACKENDS.items()
    }
    return figures, {"vectors": shape, "bm25s": against, "growth": growth}


def beside_bm25s(documents: csr_array, queries: csr_array, corpus: list[str], questions: list[str]) -> dict[str, Any]:
    """Measure the median time of the embedded engine over that of bm25s, on the same documents, in turns."""
    tokens = bm25s.tokenize(corpus, stopwords="en", show_progress=False)
    asked = bm25s.tokenize(questions, stopwords="en", return_ids=False, show_progress=False)
    count = len(questions)

    def search_words(index: Any, i: int) -> Sequence[str]:
        found: Sequence[str] = index.retrieve([asked[i]], k=K, show_progress=False).documents[0]
        return found

    with tempfile.TemporaryDirectory() as folder:
        searches = {"sparse": add_all(EmbeddedEngine(Path(folder)), [documents], queries)}
        for backend in BACKENDS.values():
            index = bm25s.BM25(backend=backend)
            index.index(tokens, show_progress=False)
            searches[backend] = partial(search_words, index)
        for search in searches.values():
            timed(search, count)  # warm-up
        rounds = [{name: timed(search, count) for name, search in searches.items()} for _ in range(ROUNDS)]
    result: dict[str, Any] = {"rounds": rounds}
    for backend in BACKENDS.values():
        result[f"over {backend}"] = spread([row["sparse"]["p50"] / row[backend]["p50"] for row in rounds])
    return result


def fill(engine: Engine, field: FieldName, batches: Iterable[Matrix], clock: Callable[[], float]) -> float:
    """Add documents whose ids are their numbers, and return the seconds that the engine took by a clock."""
    taken, done = 0.0, 0
    for rows in batches:
        started = clock()
        engine.add([str(number) for number in range(done, done + rows.shape[0])], {field: rows})
        taken += clock() - started
        done += rows.shape[0]
    started = clock()
    engine.finish()
    return taken + clock() - started


def add_all(engine: Engine, batches: list[csr_array], queries: csr_array) -> Search:
    """Fill an engine, and return its search."""
    fill(engine, "sparse", batches, time.process_time)
    asked = [queries[[i]] for i in range(queries.shape[0])]
    engine.search("sparse", asked[0], K)  # the first search loads the index
    return lambda i: [hit.id for hit in engine.search("sparse", asked[i], K)]


def grown(make: Callable[[Path], Engine], size: int, documents: csr_array, queries: csr_array) -> dict[str, float]:
    """Measure build time, size, search time and recall@10 (against exact search) of an engine with many documents."""
    batches, queries = list(resampled(documents, size)), queries[:ASKED]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        started = time.process_time()
        search = add_all(make(folder), batches, queries)
        build = time.process_time() - started
        used = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        times = timed(search, queries.shape[0])
        recall = [len({*search(i)} & {*exact(batches, queries, i)}) / K for i in range(0, queries.shape[0], 2)]
    return {"build_seconds": build, "bytes_a_document": used / size, **times, "recall10": float(np.mean(recall))}


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


def exact(batches: list[csr_array], queries: csr_array, i: int) -> list[str]:
    """Return the ids of the best documents by brute force."""
    query = queries[[i]].T
    scores = np.concatenate([(rows @ query).toarray() for rows in batches]).ravel()
    return [str(row) for row in np.argsort(-scores, kind="stable")[:K]]


def timed(search: Search, queries: int) -> dict[str, float]:
    """Measure the median and the 99th percentile of the time of a query."""
    times = [milliseconds(partial(search, i)) for i in range(queries)]
    return {"p50": float(np.median(times)), "p99": float(np.percentile(times, 99))}


def milliseconds(work: Callable[[], Any]) -> float:
    """Measure processor time, which other processes do not disturb."""
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)
