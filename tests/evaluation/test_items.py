"""Scores, intervals and paired differences of items."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import average_precision_score

from text2token.evaluation.items import DRAWS, Items, Part

RNG = np.random.default_rng(0)


def mean_items(values):
    return Items("query", (Part("mean", np.asarray(values, float), np.empty(0)),))


def test_the_interval_of_a_mean_is_that_of_statistics():
    values = RNG.normal(0.5, 0.2, size=400)
    low, high = mean_items(values).interval()
    error = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - error, values.mean() + error), abs=0.15 * error)


def test_paired_differences_see_what_intervals_do_not():
    hard = RNG.uniform(size=300)
    ours, theirs = mean_items(hard + 0.01), mean_items(hard)
    draws = ours.draws(7) - theirs.draws(7)
    assert len(draws) == DRAWS
    assert draws == pytest.approx(0.01)
    assert ours.interval()[0] < theirs.interval()[1]
    assert ours.matches(theirs)
    assert not ours.matches(mean_items(hard[:9]))


def test_spearman_and_precision_of_items():
    values, gold = RNG.normal(size=50), RNG.integers(0, 2, size=50).astype(float)
    spearman = Items("pair", (Part("spearman", values, gold),))
    assert spearman.score == pytest.approx(spearmanr(values, gold)[0])
    precision = Items("pair", (Part("average_precision", values, gold),))
    assert precision.score == pytest.approx(average_precision_score(gold, values))
    both = Items("pair", (*spearman.parts, *precision.parts))
    assert both.score == pytest.approx((spearman.score + precision.score) / 2)


def test_draws_without_a_positive_pair_do_not_count():
    values, gold = np.arange(20.0), np.zeros(20)
    gold[19] = 1  # the pair with the highest value, so the precision is 1 whenever it is drawn
    perfect = Items("pair", (Part("average_precision", values, gold),))
    assert perfect.score == 1
    assert perfect.interval() == (1, 1)


def test_a_kill_while_items_are_written_keeps_those_that_were_there(tmp_path, monkeypatch):
    def half(stream, **_):
        stream.write(b"PK")
        raise KeyboardInterrupt

    mean_items([0.5, 1]).save(tmp_path / "task.npz")
    monkeypatch.setattr(np, "savez_compressed", half)
    with pytest.raises(KeyboardInterrupt):
        mean_items([0.25, 1]).save(tmp_path / "task.npz")
    assert Items.load(tmp_path / "task.npz").score == 0.75
