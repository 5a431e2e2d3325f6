"""Estimate what large collections need, from the measured parts of scale.py and from published figures."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np

from collection import Collection
from text2token.model.embedder import Embedder
from text2token.model.encoding import count_text_tokens
from turns import seconds

COLLECTIONS = (10**6, 10**7, 10**8, 10**9)
SHARD = 10_000_000  # documents of a shard
DRAWS = 20_000  # simulated searches
SLOW = 5.0  # factor of the time of a slow shard
SEED = 0
ENCODED = 64  # documents whose encoding is timed

PUBLISHED: dict[str, dict[str, Any]] = {
    "gpu_tokens_s": {
        "value": 230_000,
        "text": "tokens per second of a model of 109 million parameters on an A10G",
        "source": "https://www.snowflake.com/en/engineering-blog/embedding-inference-arctic-16x-faster/",
    },
    "gpu_dollars": {
        "value": 1.006,
        "text": "dollars an hour of a machine with an A10G (g5.xlarge)",
        "source": "https://www.factualminds.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/",
    },
    "cpu_dollars": {
        "value": 0.0816,
        "text": "dollars an hour of a machine with two virtual CPUs and 8 GiB (m7g.large)",
        "source": "https://www.factualminds.com/blog/amazon-ec2-on-demand-pricing-instance-families-2026/",
    },
}
USABLE = 6.0  # of the 8 GB of such a machine; the rest is for the system and the processes


def encoding(path: str, collection: Collection) -> dict[str, Any]:
    """Measure how fast documents are encoded here, in the precision that the machine is fastest in.

    Args:
        path: A folder that ``fit`` wrote.
        collection: Its first documents are encoded, all in one call.
    """
    embedder = Embedder.open(path)
    embedder.use_precision("auto")
    texts = [document.content for document in collection.documents[:ENCODED]]
    embedder.embed(texts[:4])  # warm-up
    taken = seconds(partial(embedder.embed, texts))
    tokens = sum(count_text_tokens(embedder.encoder, texts))
    details = {
        "precision": embedder.precision,
        "documents_s": len(texts) / taken,
        "tokens_a_document": tokens / len(texts),
    }
    return {"figures": {}, "details": details}


def capacity(details: dict[str, Any]) -> dict[str, Any]:
    """Estimate disk, memory, encoding, shards, latencies and cost for growing collections.

    Args:
        details: Parts of scale.py: bytes a document, the rate of encoding, and the times of searches in the embedded engine.

    Returns:
        ``rows``, one for each size, and the ``published`` figures that they use.
    """
    size, searches = details["embedded"]["documents"], np.array(details["embedded"]["milliseconds"])
    size_of, encoded = details["quality"]["bytes_a_document"], details["encoding"]
    known = {name: fact["value"] for name, fact in PUBLISHED.items()}
    rng, rows = np.random.default_rng(SEED), []
    for documents in COLLECTIONS:
        shards = max(1, documents // SHARD)
        times = searches * (documents / shards / size)  # the time of an exact search grows with the documents
        gigabytes = {name: value * documents / 1e9 for name, value in size_of.items()}
        machines = math.ceil(gigabytes["embedded"] / USABLE)
        rows.append(
            {
                "documents": documents,
                "shards": shards,
                "gigabytes": gigabytes,
                "memory_gigabytes": gigabytes["embedded"],  # an exact search reads all vectors
                "cpu_hours": documents / encoded["documents_s"] / 3600,
                "gpu_hours": documents * encoded["tokens_a_document"] / known["gpu_tokens_s"] / 3600,
                "machines": machines,
                "dollars_an_hour": machines * known["cpu_dollars"],
                "milliseconds": _fan_out(rng, times, shards, 1.0),
                "milliseconds_slow": _fan_out(rng, times, shards, SLOW),
            }
        )
    return {"rows": rows, "published": PUBLISHED}


def _fan_out(rng: np.random.Generator, times: Any, shards: int, slow: float) -> dict[str, float]:
    """Simulate searches that wait for all shards, each with a drawn time; one shard is slower by a factor."""
    drawn = rng.choice(times, (DRAWS, shards))
    drawn[:, 0] *= slow
    longest = drawn.max(axis=1)
    return {"p50": float(np.median(longest)), "p99": float(np.percentile(longest, 99))}
