"""The benchmark of quality: its figures on hand-made numbers, what its contenders run, and what counts as finished."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

import quality
from conftest import CORPUS, SENTENCES, done, write_lines
from contender_rows import by_contender, mean_costs, shown
from contenders import (
    MINILM_NAME,
    MINILM_WHOLE,
    ONE_PER_TYPE,
    OURS_WHOLE,
    OVERALL,
    SECOND,
    TEACHER,
    Contender,
    contenders,
)
from quality_figures import differences
from text2token.settings.recipe import Recipe
from text2token.settings.templates import TEMPLATES

DEFAULT = Recipe().correction


def row(sts, classification, overall):
    return {"STS": sts, "Classification": classification, OVERALL: overall}


def means():
    """All contenders are finished; those without a row here have 30 points everywhere."""
    named = {
        "text2token, seed 0": row(60, 50, 60),
        "text2token, seed 1": row(62, 50, 62),
        "text2token, seed 2": row(64, 53, 64),  # the mean over seeds is 62, 51, 62
        MINILM_NAME: row(70, 60, 61),
        OURS_WHOLE: row(50, 50, 58),
        MINILM_WHOLE: row(50, 50, 60),
        TEACHER: row(70, 60, 60.5),
        "topic prompt, corrected": row(40, 40, 57),
        "static rows of the head, corrected": row(40, 40, 56.5),
        "PromptEOL, centred": row(59, 45, 50),
        "PromptEOL as published, first removed": row(45, 52, 50),
        f"{SECOND}: text2token": row(75, 58, 70),
        f"{SECOND}: PromptEOL, corrected": row(73, 50, 60),
        f"{SECOND}: PromptEOL as published": row(50, 60, 60),
        f"{SECOND}: topic prompt": row(90, 90, 90),  # no PromptEOL, and not the first backbone
        "llm2vec, seed 0": row(50, 50, 40),
        "llm2vec, seed 1": row(50, 50, 46),
        "llm2vec, seed 2": row(50, 50, 40),  # mean 42
        "llm2vec, corrected, seed 0": row(40, 45, 44),
        "llm2vec, corrected, seed 1": row(40, 48, 44),
        "llm2vec, corrected, seed 2": row(40, 45, 47),  # mean 45: better overall
    }
    return dict.fromkeys(contenders(), row(30, 30, 30)) | named


FIGURES = {
    "ours_minus_minilm_13": 1,
    "ours_minus_minilm_13_whole": -2,
    "training_gain": 5,
    "teacher_gap_13": 0.5,
    "ours_minus_llm2vec_mean": 17,
    "ours_minus_llm2vec_worst_type": 5,
    "worst_type_minus_prompteol": -2,
}


def test_figures_of_hand_made_scores():
    assert differences(means()) == pytest.approx(FIGURES)


def test_the_worst_type_is_that_of_either_backbone():
    first_is_worse = means() | {f"{SECOND}: text2token": row(90, 90, 90)}
    assert differences(first_is_worse)["worst_type_minus_prompteol"] == pytest.approx(-1)


@pytest.mark.parametrize(
    ("missing", "lost"),
    [
        (
            "text2token, seed 2",
            {
                "ours_minus_minilm_13", "training_gain", "ours_minus_llm2vec_mean", "ours_minus_llm2vec_worst_type",
                "worst_type_minus_prompteol",
            },
        ),
        (MINILM_NAME, {"ours_minus_minilm_13", "teacher_gap_13"}),
        (MINILM_WHOLE, {"ours_minus_minilm_13_whole"}),
        (OURS_WHOLE, {"ours_minus_minilm_13_whole"}),
        ("last token, centred", {"training_gain"}),
        ("PromptEOL", {"training_gain", "worst_type_minus_prompteol"}),
        (f"{SECOND}: PromptEOL as published, corrected", {"worst_type_minus_prompteol"}),
        ("llm2vec, corrected, seed 1", {"ours_minus_llm2vec_mean", "ours_minus_llm2vec_worst_type"}),
        (TEACHER, {"teacher_gap_13"}),
        (f"{SECOND}: llm2vec", set()),
    ],
)  # fmt: skip
def test_a_figure_waits_for_its_contenders(missing, lost):
    scores = means()
    del scores[missing]
    assert differences(scores).keys() == FIGURES.keys() - lost


def test_a_model_with_a_teacher_is_never_ours():
    better = differences(means() | {TEACHER: row(99, 99, 99)})
    assert {name for name in FIGURES if better[name] != pytest.approx(FIGURES[name])} == {"teacher_gap_13"}
    assert "teacher" in shown(TEACHER)
    rows = by_contender({f"{name}: {OVERALL}": 50.0 for name in contenders()})
    assert len(rows["ours"][OVERALL]) == 3
    assert len(rows[shown(TEACHER)][OVERALL]) == len(rows["ours, whole tasks"][OVERALL]) == 1


def test_costs_are_means_over_seeds():
    costs = {f"text2token, seed {seed}": {"texts": 1000, "minutes": 5.0 + seed} for seed in range(3)}
    assert mean_costs(costs) == {"ours": {"texts": 1000, "minutes": 6.0}}


def test_what_is_not_trained_runs_under_these_corrections():
    every = contenders()
    static = {name: each.options for name, each in every.items() if name.startswith("static")}
    assert static == {
        "static rows of the head": ("--template", "static", "--correction", "none"),
        "static rows of the head, corrected": ("--template", "static", "--correction", DEFAULT),
        "static rows of the head, centred": ("--template", "static", "--correction", "centre"),
        "static rows of the head, first removed": ("--template", "static", "--correction", "first-component"),
    }
    second = [each for each in every.values() if each.model == SECOND and not each.method]
    assert {each.tasks for each in second} == {ONE_PER_TYPE}
    asked = [(template, correction) for template in TEMPLATES for correction in ("none", DEFAULT) if template != "none"]
    assert sorted((each.options[1], each.options[3]) for each in second) == sorted(asked)
    files = [quality.file_name(name) for name in every]
    assert len(files) == len(set(files))


@pytest.fixture
def bench(tmp_path, monkeypatch):
    """A benchmark with one task of mteb and one of its own."""
    monkeypatch.setattr("quality.local_tasks", lambda data: {"BIOSSES": None, "CISI": data / "extra" / "CISI"})
    return quality.Bench(tmp_path / "data", tmp_path / "runs", 0.25, ("--max-docs", "300"))


def test_commands_of_a_model_with_a_teacher_and_of_whole_tasks(bench, monkeypatch):
    trained, commands = [], []
    monkeypatch.setattr("quality.learning_rates", lambda bench, method, label: {"1e-4": 70.0, "3e-4": 80.0})
    monkeypatch.setattr("quality.train", lambda *given, **settings: trained.append((given, settings)) or given[0])
    monkeypatch.setattr("quality.cost", lambda model, factor: {"texts": 1000.0})
    monkeypatch.setattr("quality.text2token", lambda *arguments: commands.append(arguments))
    details = {"learning_rates": {}, "trained": {}}
    for name in ("text2token, seed 0", TEACHER, OURS_WHOLE):
        bench.run(name, contenders()[name], details)
    settings = {"backbone": "smollm2-135m", "max_texts": 1000, "learning_rate": "3e-4", "seed": 0}
    (plain, *_), (taught, *_), (whole, *_) = (given for given, _ in trained)
    assert [each for _, each in trained] == [settings, {**settings, "teacher": "all-minilm-l6-v2"}, settings]
    assert plain == whole != taught
    assert [command[1] for command in commands] == [str(plain), str(taught), str(plain)]
    assert ["--max-docs" in command for command in commands] == [True, True, False]
    own = str(bench.data / "extra" / "CISI")
    assert commands[2][2:8] == ("--data", own, "--data-root", str(bench.data / "mteb"), "--tasks", "BIOSSES")
    assert len({command[-1] for command in commands}) == 3  # folders of results


@pytest.mark.parametrize(
    ("tasks", "skipped", "finished"), [(["BIOSSES", "CISI"], [], True), (["CISI"], [], False), (["CISI"], ["BIOSSES"], True)]
)  # fmt: skip
def test_a_stopped_evaluation_is_not_finished(bench, tasks, skipped, finished):
    contender = Contender("bm25")
    assert not bench.finished("BM25", contender)
    folder = bench.result_folder("BM25")
    folder.mkdir(parents=True)
    rows = [{"task": task, "type": "STS", "score": 0.5} for task in tasks]
    summary = {"version": 2, "model": "bm25", "tasks": rows, "skipped": dict.fromkeys(skipped, "it only ranks")}
    (folder / "summary.json").write_text(json.dumps(summary))
    assert bench.finished("BM25", contender) is finished
    assert bench.finished("BM25", Contender("bm25", tasks=("CISI",)))


def summary_of(folder: Path, scores: dict[str, tuple[str, float]]) -> Path:
    folder.mkdir()
    rows = [{"task": task, "type": kind, "score": score} for task, (kind, score) in scores.items()]
    (folder / "summary.json").write_text(json.dumps({"version": 2, "model": "", "tasks": rows}))
    return folder


def test_results_are_means_of_types_and_of_tasks(tmp_path, monkeypatch):
    monkeypatch.setattr("quality.MINILM", {"BIOSSES": 81.0})
    monkeypatch.setattr("quality.evaluation_cost", lambda folders: {})
    tasks = {"BIOSSES": ("STS", 0.8), "STS12": ("STS", 0.6), "CISI": ("Retrieval", 0.25)}
    folders = {MINILM_WHOLE: summary_of(tmp_path / "a", tasks), OURS_WHOLE: summary_of(tmp_path / "b", tasks)}
    details = {}
    found = quality.results(folders, details)
    assert found.pop("minilm_max_abs_diff") == pytest.approx(1)
    assert found.pop("ours_minus_minilm_13_whole") == 0
    rows = {"STS": 70, "Retrieval": 25, OVERALL: 55}
    assert found == pytest.approx({f"{name}: {kind}": rows[kind] for name in folders for kind in rows})
    assert details == {"known_model": {"BIOSSES": pytest.approx(80)}}  # the other tasks have no published score


def test_the_static_contender_is_corrected(backbone, tmp_path):
    pairs = [{"sentence1": a, "sentence2": b, "score": float(i % 7)} for i, (a, b) in enumerate(pairwise(CORPUS))]
    write_lines(tmp_path / "similar" / "test.jsonl", pairs)
    (tmp_path / "corpus.txt").write_text("\n".join([*SENTENCES, *CORPUS]))
    scores = set()
    for label in ("", ", corrected", ", centred"):
        options = contenders()[f"static rows of the head{label}"].options
        data = ("--data", tmp_path / "similar", "--corpus", tmp_path / "corpus.txt")
        found = done("evaluate", backbone("llama"), *options, *data, "--json", "--output", tmp_path / f"out{label}")
        scores.add(json.loads(found)["mean_over_tasks"])
    assert len(scores) == 3
