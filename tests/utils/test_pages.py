"""Pages that are generated from results, finished or not."""

from __future__ import annotations

import pytest

from page_parts import revision, table, verdict
from quality_tables import section

SEEDS = {"text2token, seed 0": 61.0, "text2token, seed 1": 63.0, "llm2vec, seed 0": 28.0}


def result(figures, **details):
    empty = {"learning_rates": {}, "trained": {}, "summaries": {}, "comparison": None, "not run": []}
    return {
        "figures": figures,
        "details": {"share": 1.0, "max_docs": None, **empty, **details},
        "machine": {"cores": 2, "cpu": "a processor"},
        "git": "0123456789abcdef",
        "command": "python benchmarks/quality.py",
    }


def whole(name, score):
    return {f"{name}: STS": score, f"{name}: Retrieval": score, f"{name}: mean over tasks": score}


def test_contenders_are_ranked_and_seeds_are_one_row():
    figures = {"BM25: Retrieval": 90.0, "BM25: mean over tasks": 90.0}
    for name, score in SEEDS.items():
        figures |= whole(name, score)
    page = section(result(figures | {"ours_minus_llm2vec_mean": 34.0}))
    rows = [line for line in page.splitlines() if line.startswith(("| ours |", "| LLM2Vec", "| BM25"))]
    assert rows == [
        "| ours | 62.0 (61.0 to 63.0) | 62.0 (61.0 to 63.0) | 62.0 (61.0 to 63.0) |",
        "| LLM2Vec's recipe | 28.0 | 28.0 | 28.0 |",
        "| BM25 | 90.0 |  |  |",  # a mean over other tasks compares with nothing
    ]
    assert "| 34 | ≥ 5 |" in page


def test_what_is_cut_and_what_is_missing_is_said():
    page = section(result(whole("PromptEOL", 40.0), share=0.25, max_docs=300, **{"not run": ["tsdae, seed 0"]}))
    assert "25 % of the texts" in page
    assert "cut to 300 texts" in page
    assert "Not run yet: tsdae, seed 0." in page
    assert "clearly worse" not in page  # nothing was compared
    assert "What each method learnt from" not in page


@pytest.mark.parametrize("high", [-0.5, 0.5])
def test_what_got_worse_is_named(high):
    difference = {"points": -2.0, "low": -4.0, "high": high, "clear": high < 0}
    row = {"label": "SciFact", "scores": {"a": 50.0, "b": 52.0}, "intervals": {}, "differences": {"b": difference}}
    comparison = {"measured": ["a", "b"], "columns": ["ours", "LLM2Vec's recipe"], "tasks": [row], "means": []}
    page = section(result(whole("PromptEOL", 40.0), comparison=comparison))
    assert ("Clearly worse: SciFact (-2.0 against LLM2Vec's recipe)." in page) is (high < 0)
    assert ("Nowhere is it clearly worse." in page) is (high > 0)


def test_pieces():
    assert table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert revision("0123456789abcdef-dirty") == "0123456789ab-dirty"
    assert revision("0123456789abcdef") == "0123456789ab"
    assert revision(None) == "unknown"
    claims = {
        (True, True): "holds",
        (True, False): "holds partly",
        (False,): "does not hold here",
        (): "does not hold here",
    }
    assert {held: verdict(held) for held in claims} == claims
