"""Estimate what large collections need, from the measured parts of scale.py. Every row says how its numbers came about."""

from __future__ import annotations

from typing import Any

import numpy as np

COLLECTIONS = (10**6, 10**7, 10**8, 10**9)
SHARD = 10_000_000  # documents of a shard
DRAWS = 20_000  # simulated searches
SLOW = 5.0  # factor of the time of a slow shard
SEED = 0


def capacity(details: dict[str, Any]) -> list[dict[str, Any]]:
    """Estimate disk, shards and latencies for growing collections.

    Args:
        details: Parts of scale.py: bytes a document (measured), and the times of searches in the embedded engine (measured).

    Returns:
        For each size: gigabytes of vectors on disk for each engine, shards, and milliseconds of a sparse search.
    """
    size, searches = details["embedded"]["documents"], np.array(details["embedded"]["milliseconds"])
    rng, rows = np.random.default_rng(SEED), []
    for documents in COLLECTIONS:
        shards = max(1, documents // SHARD)
        times = searches * (documents / shards / size)  # the time of an exact search grows with the documents
        rows.append(
            {
                "documents": documents,
                "shards": shards,
                "gigabytes": {
                    name: value * documents / 1e9 for name, value in details["quality"]["bytes_a_document"].items()
                },
                "milliseconds": _fan_out(rng, times, shards, 1.0),
                "milliseconds_slow": _fan_out(rng, times, shards, SLOW),
            }
        )
    return rows


def _fan_out(rng: np.random.Generator, times: Any, shards: int, slow: float) -> dict[str, float]:
    """Simulate searches that wait for all shards, each with a drawn time; one shard is slower by a factor."""
    drawn = rng.choice(times, (DRAWS, shards))
    drawn[:, 0] *= slow
    longest = drawn.max(axis=1)
    return {"p50": float(np.median(longest)), "p99": float(np.percentile(longest, 99))}
