"""Results pages: numbers from results files, finished or not, and verdicts that follow from the numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import page_speed
from conftest import origin
from page_alignment import dynamics
from page_quality import quality_part
from pages import main, render, short
from runner import RESULTS, write_compact
from spectrum_claims import shown
from tables import goals, verdict
from text2token.analysis.dynamics_report import correlate
from text2token.utils.page import markdown_table

ROOT = Path(__file__).parents[2]
SEEDS = {"text2token, seed 0": 61.0, "text2token, seed 1": 63.0, "llm2vec, seed 0": 28.0}


def page_of(figures, **details):
    empty = {"learning_rates": {}, "trained": {}, "comparison": None, "not run": []}
    quality = {
        "figures": figures,
        "details": {"share": 1.0, "max_docs": None, "correction": "centre", **empty, **details},
        **origin("quality"),
    }
    return render("quality.md.j2", quality_part(quality))


def whole(name, score):
    return {f"{name}: STS": score, f"{name}: Retrieval": score, f"{name}: mean over tasks": score}


def test_contenders_are_ranked_and_seeds_are_one_row():
    figures = {"BM25: Retrieval": 90.0, "BM25: mean over tasks": 90.0}
    for name, score in SEEDS.items():
        figures |= whole(name, score)
    costs = {
        f"text2token, seed {seed}": {
            "texts": 1000,
            "tokens": tokens,
            "minutes": minutes,
            "minutes of the whole run": 9.0,
        }
        for seed, (tokens, minutes) in enumerate([(38_000, 6.0), (39_000, 7.0)])
    }
    page = page_of(figures | {"ours_minus_llm2vec_mean": 34.0}, trained=costs)
    rows = [line for line in page.splitlines() if line.startswith(("| ours |", "| LLM2Vec", "| BM25"))]
    assert rows == [
        "| ours | 62.0 (61.0 to 63.0) | 62.0 (61.0 to 63.0) | 62.0 (61.0 to 63.0) | 1,000 texts, 38,500 tokens, 6.5 min |",
        "| LLM2Vec's recipe | 28.0 | 28.0 | 28.0 |  |",
        "| BM25 | 90.0 |  |  |  |",  # a mean over other tasks compares with nothing
    ]
    assert "| 34 | ≥ 5 |" in page


def test_what_is_cut_and_what_is_missing_is_said():
    page = page_of(whole("PromptEOL", 40.0), share=0.25, max_docs=300, **{"not run": ["tsdae, seed 0"]})
    assert "25 % of the texts" in page
    assert "cut to 300 texts" in page
    assert "Not run yet: tsdae, seed 0." in page
    assert "learly worse" not in page  # nothing was compared
    assert "What each method learnt from" not in page


def test_whole_tasks_and_a_teacher_have_rows_of_their_own():
    minilm = whole("all-MiniLM-L6-v2, whole tasks", 60.0)
    assert "Whole tasks" not in page_of(whole("text2token, seed 0", 61.0) | minilm)
    ours = whole("text2token, seed 0", 61.0) | whole("text2token, whole tasks, seed 0", 58.0)
    taught = whole("text2token, teacher all-minilm-l6-v2, seed 0", 64.0)
    cut, complete = page_of(ours | taught | minilm).split("Whole tasks")
    assert "| ours | 61.0 |" in cut
    assert "| text2token with all-MiniLM-L6-v2 as its teacher | 64.0 |" in cut
    assert "whole tasks | 6" not in cut
    assert complete.index("| all-MiniLM-L6-v2, whole tasks | 60.0 |") < complete.index("| ours, whole tasks | 58.0 |")


def test_results_that_name_no_correction_have_the_earlier_one():
    figures = whole("llm2vec, filtered, seed 0", 40.0)
    empty = {"share": 1.0, "max_docs": None, "learning_rates": {}, "trained": {}, "comparison": None, "not run": []}
    page = render("quality.md.j2", quality_part({"figures": figures, "details": empty, **origin("quality")}))
    assert "| LLM2Vec's recipe, corrected | 40.0 |" in page
    assert "the correction of ours (`centre+filter`)" in page
    assert "the correction of ours (`centre`)" in page_of(figures)


@pytest.mark.parametrize("high", [-0.5, 0.5])
def test_what_got_worse_is_named(high):
    difference = {"points": -2.0, "low": -4.0, "high": high, "clear": high < 0}
    row = {"label": "SciFact", "scores": {"ours": 50.0, "b": 52.0}, "intervals": {}, "differences": {"b": difference}}
    comparison = {"measured": ["ours", "b"], "tasks": [row], "means": []}
    page = page_of(whole("PromptEOL", 40.0), comparison=comparison)
    assert ("Clearly worse: SciFact (-2.0 against b)." in page) is (high < 0)
    assert ("Nowhere is it clearly worse." in page) is (high > 0)


@pytest.mark.parametrize(
    ("follows", "words"),
    [
        ((1, 1), "Holds: 2 of 2 correlations"),
        (
            (1, -1),
            "Holds partly: 1 of 2 correlations of the target loss with the representation space are 0.5 or more; not u₁",
        ),
        ((-1, -1), "Does not hold here"),
    ],
)
def test_the_verdict_on_dynamics_comes_from_the_numbers(follows, words):
    uniform, energy = follows
    rows = [
        {"stage": 1, "step": s, "target_loss": 9.0 - s, "uniformity": -uniform * t, "first_component": -energy * t}
        for s, t in enumerate((0.5, 1.5, 2.5, 3.5))
    ]
    stage = {"stage": 1, "targets": "data-driven", "rows": rows, "correlation": correlate(rows)}
    lines = render("dynamics.md.j2", dynamics({"positives": "pairs", "stages": [stage]})).splitlines()
    assert lines[-1].startswith(f"**{words}")
    assert f"| 3 | 6.000 | {-3.5 * uniform:.3f} | {-3.5 * energy:.3f} |" in lines


def test_goals_are_reached_missed_or_not_measured():
    named = {"a": ("one", "≥ 5"), "b": ("two", "≤ 1"), "c": ("three", "≥ 0")}
    rows = goals({"a": 5.0, "b": 1.25}, named).splitlines()[2:]
    assert rows == [
        "| one | 5 | ≥ 5 | reached |",
        "| two | 1.25 | ≤ 1 | **missed** |",
        "| three |  | ≥ 0 | not measured |",
    ]


def test_verdicts_revisions_and_cells():
    assert markdown_table(["a", "b"], [["1", "2|3\n4"]]) == "| a | b |\n| --- | --- |\n| 1 | 2\\|3 4 |"
    assert short("0123456789abcdef-dirty") == "0123456789ab-dirty"
    assert short("0123456789abcdef") == "0123456789ab"
    assert short(None) == "unknown"
    claims = {
        (True, True): "holds",
        (True, False): "holds partly",
        (False,): "does not hold here",
        (): "does not hold here",
    }
    assert {held: verdict(held) for held in claims} == claims


def test_a_cut_keeps_every_measurement_that_it_does_not_remove():
    row = {"shift": 0.0, "sts": 1 / 3, "tokens": [[str(i) for i in range(20)], ["another text"]]}
    component = {"component": 0, "variation": 0.1 + 0.2, "spread": 1.0, "tokens": ["not shown"]}
    contribution = {"text": 0, "token": "a", "first": 1 / 7, "rest": 1.0, "rest_token": "b", "logit": 2.0}
    raw = {
        "v1": 1 / 3,
        "components": [component] * 100,
        "centred_components": [component],
        "contribution": [contribution],
        "shift_rows": [row],
        "tuned": row,
    }
    kept = shown(raw)
    assert kept["v1"] == 1 / 3
    assert kept["components"] == [{"component": 0, "variation": 0.1 + 0.2, "spread": 1.0}] * 64
    assert kept["contribution"] == [{"text": 0, "token": "a", "first": 1 / 7, "rest": 1.0, "rest_token": "b"}]
    assert kept["shift_rows"] == [{"shift": 0.0, "sts": 1 / 3, "tokens": [[str(i) for i in range(10)]]}]
    assert shown(kept) == kept
    assert "centred_components" in raw


def test_results_files_are_cut_and_small(monkeypatch, tmp_path):
    monkeypatch.setattr("runner.RESULTS", tmp_path)
    files = sorted(RESULTS.glob("*.json"))
    assert files
    for file in files:
        assert file.stat().st_size <= 50_000, file.name
        result = json.loads(file.read_text())
        assert {"name", "command", "git", "seed", "machine", "versions", "data", "figures", "details"} <= result.keys()
        assert write_compact(result).read_text() == file.read_text()


def test_committed_pages_follow_from_the_committed_results(monkeypatch, tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text((ROOT / "README.md").read_text())
    monkeypatch.setattr("pages.DOCS", tmp_path)
    monkeypatch.setattr("pages.README", readme)
    main()
    assert readme.read_text() == (ROOT / "README.md").read_text()
    for name in ("results", "results-search", "results-alignment", "results-spectrum"):
        assert (tmp_path / f"{name}.md").read_text() == (ROOT / "docs" / f"{name}.md").read_text()
    for figure in (tmp_path / "figures").iterdir():
        assert (ROOT / "docs" / "figures" / figure.name).is_file()


def test_the_page_on_speed_shows_missed_goals_and_ratios():
    rates = {"text2token": [80.0, 100.0, 120.0], "sentence-transformers fp32": [40.0, 50.0, 60.0]}
    encoding = {
        "tokens_s": {"mix": rates, "256": rates},
        "gflops": {"mix": {"text2token": 200.0, "sentence-transformers fp32": 90.0}},
        "peak_rss_gib": {"text2token": 1.25, "sentence-transformers fp32": 1.0},
        "ready_s": {"text2token": 3.0, "sentence-transformers fp32": 2.0},
        "over_others": {"mix": {"sentence-transformers fp32": {"min": 1.9, "median": 2.0, "max": 2.1}}},
        "gflop_a_token": 0.212,
        "peak_gflops": {"fp32": 130.0, "bf16": 340.0},
        "not_run": {"a peer": "it does not install"},
    }
    training = {
        "texts": 384, "bf16": True, "texts_s": {"text2token": [9.0, 11.0]}, "tokens_s": {"text2token": [300.0, 500.0]},
    }  # fmt: skip
    student = {
        "ndcg": {"CISI": {"dense": 30.0, "student alone": 25.0}},
        "tokens_a_second": {"student": 123456.0, "teacher": 900.0}, "documents": 50,
    }  # fmt: skip
    details = {
        "encoding": encoding, "training": training, "fit": {"timings": {"statistics": 1.0, "train 1": 60.4}},
        "student": student, "memory_index": {"peak_rss_gib": [2.0, 2.2]},
    }  # fmt: skip
    result = {
        "name": "speed", "figures": {"encode_over_st_fp32": 2.0}, "details": details, **origin("speed"),
    }  # fmt: skip
    page = render("results-speed.md.j2", page_speed.context(result))
    assert "`llama-cpp-python`" not in page
    assert "| 2 | ≥ 2.6 | **missed** |" in page
    assert "| text2token | 100 | 100 | 1.2 |" in page
    assert "2.00 (1.90 to 2.10)" in page
    assert "- a peer: it does not install." in page
    assert "| text2token | 10.0 | 400 |" in page
    assert "| CISI | 30.0 | 25.0 |" in page
    assert "| index | 2.00 | 2.20 |" in page
    assert "cut to 50 documents" in page
    other = render("results-speed.md.j2", page_speed.context(result | {"name": "speed-avx2"})).split("## ")[0]
    assert other.startswith("# Speed without bf16")
    assert "in bf16, real mix" in page
    assert "in bf16, real mix" not in other
    finished = render("results-speed.md.j2", page_speed.context(result | {"details": {"student": student}}))
    assert "## A student" in finished
    assert "## Encoding" not in finished
    rates["llama.cpp bf16"] = [60.0, 70.0, 80.0]
    assert "`llama-cpp-python` 0.3.36" in render("results-speed.md.j2", page_speed.context(result))
