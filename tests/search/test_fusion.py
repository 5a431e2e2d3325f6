"""Fused scores against values computed by hand."""

from __future__ import annotations

import re

import pytest

from text2token.search.engines.base import ScoredId
from text2token.search.fusion import Fusion, fields_to_search, fuse, search
from text2token.utils.errors import UserError

SPARSE = [ScoredId("a", 8.0), ScoredId("b", 4.0), ScoredId("c", 2.0)]
DENSE = [ScoredId("c", 0.5), ScoredId("d", 0.25), ScoredId("a", 0.1)]


def scores(hits):
    return {hit.id: pytest.approx(hit.score, abs=1e-12) for hit in hits}


def test_reciprocal_ranks():
    fused = fuse({"sparse": SPARSE, "dense": DENSE}, 10, Fusion())
    assert [hit.id for hit in fused] == ["a", "c", "b", "d"]  # a and c tie on 1/61 + 1/63, b and d on 1/62
    assert scores(fused) == {"a": 1 / 61 + 1 / 63, "b": 1 / 62, "c": 1 / 63 + 1 / 61, "d": 1 / 62}


def test_normalised_scores():
    fused = fuse({"sparse": SPARSE, "dense": DENSE}, 10, Fusion("scores"))
    assert scores(fused) == {"a": 1 + 0.2, "b": 0.5, "c": 0.25 + 1, "d": 0.5}
    assert [hit.id for hit in fused] == ["c", "a", "b", "d"]


def test_weights():
    by_rank = fuse({"sparse": SPARSE, "dense": DENSE}, 1, Fusion(weights={"dense": 3.0}))
    shares = {"sparse": pytest.approx(1 / 63), "dense": pytest.approx(3 / 61)}
    assert by_rank == [ScoredId("c", pytest.approx(3 / 61 + 1 / 63), shares)]
    by_score = fuse({"sparse": SPARSE, "dense": DENSE}, 2, Fusion("scores", {"sparse": 0.5, "dense": 2.0}))
    assert [hit[:2] for hit in by_score] == [("c", pytest.approx(2.125)), ("d", pytest.approx(1.0))]


@pytest.mark.parametrize("threads", [False, True])
@pytest.mark.parametrize("method", ["rrf", "scores"])
@pytest.mark.parametrize(("depth", "fields"), [(1, 1), (2, 1), (3, 2)])
def test_depth_cuts_every_field_and_never_below_the_hits_asked_for(method, depth, fields, threads):
    """The best of one field is the third of the other."""

    class Ranked:
        in_process = threads

        def search(self, field, query, k, filters=(), lost=None):
            return query[:k]

    fused = search(Ranked(), {"sparse": SPARSE, "dense": DENSE}, 2, Fusion(method, depth=depth))
    assert {hit.id: len(hit.shares) for hit in fused} == {"a": fields, "c": fields}


def test_a_field_of_negative_scores_has_no_say_among_scores():
    far = [ScoredId("x", -0.1), ScoredId("y", -0.5)]
    assert scores(fuse({"sparse": SPARSE, "dense": far}, 9, Fusion("scores"))) == {
        "a": 1.0, "b": 0.5, "c": 0.25, "x": 0.0, "y": 0.0,
    }  # fmt: skip
    mixed = [ScoredId("a", 0.5), ScoredId("b", -0.5)]
    assert scores(fuse({"dense": mixed}, 9, Fusion("scores"))) == {"a": 1.0, "b": 0.0}


def test_equal_shares_tie_in_any_order_of_the_fields():
    """Three fields rank a, b, c in turn: floating-point sums would differ by their order."""
    turns = {
        "sparse": [ScoredId("c", 3.0), ScoredId("a", 2.0), ScoredId("b", 1.0)],
        "dense": [ScoredId("b", 3.0), ScoredId("c", 2.0), ScoredId("a", 1.0)],
        "bm25": [ScoredId("a", 3.0), ScoredId("b", 2.0), ScoredId("c", 1.0)],
    }
    fused = fuse(turns, 3, Fusion())
    assert [hit.id for hit in fused] == ["a", "b", "c"]
    assert len({hit.score for hit in fused}) == 1


def test_nothing_in_nothing_out():
    assert fuse({"sparse": [], "dense": []}, 5, Fusion("scores")) == []
    assert fuse({"sparse": [], "dense": DENSE}, 1, Fusion("scores")) == [ScoredId("c", 1.0, {"dense": 1.0})]
    assert fuse({"sparse": SPARSE}, 0, Fusion()) == []


@pytest.mark.parametrize(
    ("fusion", "said"),
    [
        (Fusion("score"), "There is no fusion 'score': choose scores or rrf."),
        (Fusion(weights={"words": 1.0}), "There is no field 'words' to weight: the fields are sparse, dense, bm25."),
    ],
)
def test_a_fusion_of_unknown_names_is_refused(fusion, said):
    with pytest.raises(UserError, match=re.escape(said)):
        fields_to_search("hybrid", ["sparse", "bm25"], fusion, inference_free=False)
