"""The estimates of the benchmark on scale, its drawn vectors, and its page."""

from __future__ import annotations

import numpy as np
import pytest

from conftest import origin
from page_scale import context
from pages import render
from scale_capacity import capacity
from scale_engines import drawn_dense

DETAILS = {
    "embedded": {"documents": 1_000_000, "milliseconds": [10.0] * 99 + [50.0]},
    "quality": {"bytes_a_document": {"embedded": 2_000.0, "postgres": 5_000.0}, "ndcg": {}},
    "encoding": {"precision": "fp32", "documents_s": 10.0, "tokens_a_document": 230.0},
}


def test_a_fan_out_waits_for_its_slowest_shard():
    one, ten, hundred, thousand = capacity(DETAILS)["rows"]
    assert [row["shards"] for row in (one, ten, hundred, thousand)] == [1, 1, 10, 100]
    assert one["gigabytes"] == {"embedded": 2.0, "postgres": 5.0}
    assert one["cpu_hours"] == pytest.approx(1e5 / 3600)
    assert one["gpu_hours"] == pytest.approx(1e3 / 3600)
    assert (one["machines"], ten["machines"]) == (1, 4)  # 20 GB, 6 on each
    assert one["milliseconds"]["p50"] == pytest.approx(10)
    assert ten["milliseconds"]["p50"] == pytest.approx(100)  # ten times as many documents on one shard
    assert hundred["milliseconds"]["p50"] == pytest.approx(100)
    assert thousand["milliseconds"]["p50"] == pytest.approx(500)  # one of a hundred shards is slow in most searches
    assert hundred["milliseconds_slow"]["p50"] == pytest.approx(500)


def test_drawn_vectors_are_near_the_real_ones_and_repeatable():
    real = np.eye(16, dtype=np.float32)
    first, again = (np.concatenate(list(drawn_dense(real, 300))) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, rtol=1e-5)
    assert (first @ real.T).max(axis=1).min() > 0.9
    assert len(np.unique(first, axis=0)) == 300


def test_the_page_shows_what_is_missing(tmp_path):
    result = {
        "figures": {"failover_s": 0.5},
        "details": {**DETAILS, "documents": 1_000, "recall": {}, "capacity": capacity(DETAILS)},
        **origin("scale"),
    }
    page = render("results-scale.md.j2", context(result, tmp_path))
    assert "| 0.5 | ≤ 2 | reached |" in page
    assert "not measured" in page
    assert "cut to 1,000 documents" in page
    assert "| 1,000,000,000 | 100 | 2000 / 5000 | 2000 |" in page
    assert "hours of encoding, one GPU" in (tmp_path / "scale.svg").read_text()
