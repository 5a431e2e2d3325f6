"""Dynamics: both spaces measured by hand, the training untouched by it, rows that survive a kill, tables and figure."""

from __future__ import annotations

import itertools
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from conftest import CORPUS, SENTENCES, untrained
from text2token import Embedder, Recipe, UserError
from text2token.analysis.alignment import align
from text2token.analysis.dynamics import (
    REPRESENTATION,
    VOCABULARY,
    Dynamics,
    alignment,
    first_component_energy,
    halves,
    uniformity,
)
from text2token.analysis.dynamics_report import correlate, draw, read_dynamics
from text2token.analysis.sts import cosine_spearman
from text2token.cli import main
from text2token.data.corpus import Corpus
from text2token.data.sts import read_sts
from text2token.training.callbacks import MeasureAlong
from text2token.training.pipeline import fit, fit_draw
from text2token.training.start import read_corpus

QUICK = {
    "max_texts": 60,
    "stage_1": 0.6,
    "batch_size": 8,
    "calibration_texts": 30,
    "prior_texts": 20,
    "train_length": 40,
    "max_length": 64,
    "held_out": 7,
    "lora_rank": 4,
    "learning_rate": 3e-3,
}
PAIRS = [(a, b, float(i % 6)) for i, (a, b) in enumerate(itertools.pairwise(SENTENCES))]


@pytest.fixture(scope="module")
def sts(tmp_path_factory):
    file = tmp_path_factory.mktemp("sts") / "sts.jsonl"
    rows = [{"sentence1": a, "sentence2": b, "score": score} for a, b, score in PAIRS]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


@pytest.fixture(scope="module")
def recipe(backbone):
    return lambda **settings: Recipe(backbone=backbone("llama"), **{**QUICK, **settings})


@pytest.fixture(scope="module")
def plain(recipe, tmp_path_factory):
    """A run that measured nothing."""
    return fitted(tmp_path_factory, recipe())


@pytest.fixture(scope="module")
def measured(recipe, sts, tmp_path_factory):
    """The same, measured at three points of a stage after its start."""
    return fitted(tmp_path_factory, recipe(dynamics=3, sts=str(sts)))


def fitted(tmp_path_factory, recipe):
    output = tmp_path_factory.mktemp("runs") / "m"
    fit(CORPUS, output, recipe)
    return output


def read_run(output):
    return json.loads((output / "run.json").read_text())


# --- the quantities ---------------------------------------------------------------------------------------------------


def test_alignment_and_uniformity_by_hand():
    east, north, west = (torch.tensor(v) for v in ([2.0, 0.0], [0.0, 3.0], [-1.0, 0.0]))  # lengths do not count
    assert alignment(torch.stack([east, east]), torch.stack([north, west])) == pytest.approx((2 + 4) / 2)
    assert alignment(torch.stack([east]), torch.stack([5 * east])) == pytest.approx(0)
    distances = [2, 4, 2]  # east-north, east-west, north-west, squared
    expected = math.log(sum(math.exp(-2 * d) for d in distances) / 3)
    assert uniformity(torch.stack([east, north, west])) == pytest.approx(expected, rel=1e-6)
    assert uniformity(torch.stack([east, 2 * east])) == pytest.approx(0)


def test_energy_of_the_first_component_is_that_of_the_uncentred_svd():
    embeddings = np.random.default_rng(0).normal(size=(20, 7)) + 3
    values = np.linalg.svd(embeddings, compute_uv=False)
    assert first_component_energy(torch.from_numpy(embeddings)) == pytest.approx(values[0] ** 2 / (values**2).sum())
    assert first_component_energy(torch.ones(5, 3)) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("one two three four", ("one two", "three four")), ("abcd", ("ab", "cd")), ("a longest", ("a", "longest"))],
)
def test_halves_lose_nothing(text, expected):
    assert halves(text) == expected


def test_correlation_is_positive_where_both_get_better():
    rows = [
        {
            "step": s,
            "target_loss": 9 - s,
            "hit": 0.1 * s,
            "noise": 0.5,
            "uniformity": -s,
            "alignment": s**2,
            "sts": 3 * s,
        }
        for s in range(5)
    ]
    better, worse = 1.0, -1.0
    expected = {"alignment": worse, "uniformity": better, "sts": better}
    found = correlate(rows)
    assert set(found) == {"target_loss", "hit"}  # what never moves says nothing
    assert all(row == pytest.approx(expected) for row in found.values())
    shuffled = [rows[0], rows[2], rows[1]]
    assert correlate(shuffled)["hit"] == pytest.approx(expected)  # the order of the points does not matter
    assert correlate(rows[:1]) == {}


def test_sts_is_read_and_ranked(sts, tmp_path):
    pairs = read_sts(sts)
    assert list(zip(pairs.first, pairs.second, pairs.scores, strict=True)) == PAIRS
    table = tmp_path / "sts.csv"
    table.write_text("sentence1,score,sentence2\n" + "\n".join(f'"{a}",{score},"{b}"' for a, b, score in PAIRS))
    assert all((ours == theirs).all() for ours, theirs in zip(read_sts(table), map(np.array, pairs), strict=True))
    drawn = read_sts(sts, 4)
    assert len(drawn.first) == 4
    assert set(zip(*drawn, strict=True)) <= set(PAIRS)
    angles = torch.tensor([0.1, 0.2, 0.4])
    turned = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert cosine_spearman(torch.tensor([[1.0, 0.0]] * 3), turned, np.array([5, 3, 1])) == pytest.approx(1)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ('{"sentence1": "a", "sentence2": "b"}', "no column 'score'"),
        ('{"sentence1": "a", "sentence2": "b", "score": "high"}', "line 1: expected two sentences and a number"),
        (f'{{"sentence1": "a", "sentence2": "b", "score": {10**400}}}', "line 1: expected two sentences and a number"),
        ('{"sentence1": "a", "sentence2": " ", "score": 1}', "line 1: expected two sentences and a number"),
        ('{"sentence1": "a", "sentence2": "b", "score": 1}', "two different scores"),
        ("", "two different scores"),
        (None, "is not a table"),
    ],
)
def test_an_sts_file_that_cannot_rank_is_refused_before_any_work(recipe, tmp_path, content, sentence):
    file = tmp_path / "sts.jsonl"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UserError, match=sentence):
        fit(CORPUS, tmp_path / "m", recipe(dynamics=2, sts=str(file)))
    assert not (tmp_path / "m").exists()
    assert not (tmp_path / ".m.work").exists()


# --- along a training -------------------------------------------------------------------------------------------------


def test_measuring_changes_nothing_and_sees_what_is_trained(plain, measured):
    plain, measured = read_run(plain), read_run(measured)
    assert measured["files"] == plain["files"]  # checksums of the weights
    assert measured["after"] == plain["after"]
    assert plain["dynamics"]["rows"] == []
    rows = measured["dynamics"]["rows"]
    assert [(row["stage"], row["step"]) for row in rows] == [
        (1, 0),
        (1, 2),
        (1, 3),
        (1, 5),
        (2, 0),
        (2, 1),
        (2, 2),
        (2, 3),
    ]
    assert all(set(row) == {"stage", "step", *VOCABULARY, *REPRESENTATION} for row in rows)
    assert rows[0]["target_loss"] == pytest.approx(measured["before"]["target_loss_stage_1"], rel=1e-4)
    assert rows[-1]["target_loss"] == pytest.approx(measured["after"]["target_loss_stage_2"], rel=1e-4)
    of_both_stages = (set(REPRESENTATION) | set(VOCABULARY)) - {"target_loss"}
    assert {key: rows[3][key] for key in of_both_stages} == pytest.approx({key: rows[4][key] for key in of_both_stages})
    assert measured["dynamics"]["positives"] == "2 STS pairs with a score of 4 or more"


def test_measuring_changes_nothing_when_all_weights_are_trained(recipe, tmp_path):
    settings = {"full": True, "stage_1": 1.0, "max_texts": 24}
    fit(CORPUS, tmp_path / "plain", recipe(**settings))
    fit(CORPUS, tmp_path / "measured", recipe(**settings, dynamics=2))
    assert read_run(tmp_path / "measured")["files"] == read_run(tmp_path / "plain")["files"]
    first, *_, last = read_run(tmp_path / "measured")["dynamics"]["rows"]
    assert first["uniformity"] != last["uniformity"]


def test_the_last_point_is_what_its_parts_say_of_the_finished_embedder(measured, sts):
    embedder, run = Embedder.open(str(measured), head="original", corrected=False), read_run(measured)
    last = run["dynamics"]["rows"][-1]
    (_, held_out), _ = read_corpus(Corpus.from_texts(CORPUS), fit_draw(Recipe(**run["recipe"])), run["recipe"]["seed"])
    embeddings, pairs = embedder.embed(held_out), read_sts(sts)
    first, second = embedder.embed(pairs.first), embedder.embed(pairs.second)
    close = torch.from_numpy(pairs.scores >= 4)
    read = align(embedder, held_out)
    expected = {
        "uniformity": uniformity(embeddings),
        "first_component": first_component_energy(embeddings),
        "alignment": alignment(first[close], second[close]),
        "sts": cosine_spearman(first, second, pairs.scores),
        **read["rates"],
        **read["categories"],
    }
    assert {key: last[key] for key in expected} == pytest.approx(expected, rel=1e-3)


def test_a_killed_training_keeps_its_rows(recipe, tmp_path, monkeypatch):
    settings = recipe(dynamics=3, stage_1=1.0)
    measure, measured = Dynamics.measure, []

    def dies_at_the_third(self, targets):
        measured.append(None)
        if len(measured) == 3:
            raise KeyboardInterrupt
        return measure(self, targets)

    monkeypatch.setattr(Dynamics, "measure", dies_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit(CORPUS, tmp_path / "m", settings)
    kept = json.loads((tmp_path / ".m.work" / "dynamics-1.json").read_text())
    assert [row["step"] for row in kept] == [0, 3]
    fit(CORPUS, tmp_path / "m", settings)
    rows = read_run(tmp_path / "m")["dynamics"]["rows"]
    assert rows[:2] == [{"stage": 1, **row} for row in kept]
    assert len(measured) == 3 + 2  # the first two points are not measured again
    assert len(rows) == 4


def test_rows_are_read_once_and_written_when_measured(tmp_path, monkeypatch):
    file = tmp_path / "rows.json"
    along = MeasureAlong(1, dict, file)
    monkeypatch.setattr("text2token.training.callbacks.load", lambda *_: pytest.fail("read again"))
    model, state = torch.nn.Linear(1, 1), SimpleNamespace(global_step=0, max_steps=100)
    along.on_train_begin(None, state, None, model=model)
    written = file.stat().st_mtime_ns
    for state.global_step in range(1, 100):
        along.on_step_end(None, state, None, model=model)
    assert file.stat().st_mtime_ns == written
    assert along.rows == [{"step": 0}]


def test_points_are_spread_from_start_to_end_also_when_time_is_up(tmp_path):
    def steps(points, last):
        along = MeasureAlong(points, dict, tmp_path / f"{points}-{last}.json")
        model, state = torch.nn.Linear(1, 1), SimpleNamespace(global_step=0, max_steps=10)
        along.on_train_begin(None, state, None, model=model)
        for state.global_step in range(1, last + 1):
            along.on_step_end(None, state, None, model=model)
        along.on_train_end(None, state, None, model=model)
        assert model.training
        return [row["step"] for row in along.rows]

    assert steps(4, 10) == [0, 2, 5, 8, 10]
    assert steps(2, 7) == [0, 5, 7]
    assert steps(0, 10) == []


# --- the command ------------------------------------------------------------------------------------------------------


def text2token(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="text2token")


def test_the_command_writes_tables_correlations_and_figure(measured, tmp_path):
    run = read_run(measured)
    said = text2token("dynamics", measured, "--output", tmp_path / "d")
    assert said.exit_code == 0, said.output
    names = [f"dynamics.{kind}" for kind in ("json", "md", "png", "svg")]
    assert sorted(file.name for file in (tmp_path / "d").iterdir()) == names
    assert said.stdout.strip() == (tmp_path / "d" / "dynamics.md").read_text().strip()
    written = json.loads((tmp_path / "d" / "dynamics.json").read_text())
    assert [row for stage in written["stages"] for row in stage["rows"]] == run["dynamics"]["rows"]
    assert [stage["targets"] for stage in written["stages"]] == [target["builder"] for target in run["targets"]]
    for stage in written["stages"]:
        assert stage["correlation"] == correlate(stage["rows"])
        assert f"| {stage['correlation']['target_loss']['uniformity']:+.2f} |" in said.stdout
        assert f"| {stage['rows'][-1]['target_loss']:.3f} |" in said.stdout
        assert f"## Stage {stage['stage']}: {stage['targets']} targets, 4 points" in said.stdout
    as_json = text2token("dynamics", measured, "--output", tmp_path / "d", "--json")
    assert json.loads(as_json.stdout) == written
    report = (measured / "report.html").read_text()
    assert "2 STS pairs with a score of 4 or more" in report


def test_the_figure_draws_the_rows(measured):
    stages, _ = read_dynamics(measured)
    drawn = {axes.get_title().partition(" (")[0]: axes for axes in draw(stages).axes if axes.get_visible()}
    quantities = VOCABULARY | REPRESENTATION
    assert set(drawn) == {quantity.label for quantity in quantities.values()}
    for key, quantity in quantities.items():
        one, other = drawn[quantity.label].get_lines()
        assert list(one.get_ydata()) == [row[key] for row in stages[0].rows]
        assert list(other.get_ydata()) == [row[key] for row in stages[1].rows]
        assert list(other.get_xdata()) == [5, 6, 7, 8]  # counted on from the last step of stage 1


def test_the_command_refuses_what_measured_nothing(plain, tmp_path):
    for run, sentence in ((plain, "fit again with dynamics"), (tmp_path, "is not a finished run")):
        said = text2token("dynamics", run, "--output", tmp_path / "d")
        assert (said.exit_code, said.stdout) == (2, "")
        assert sentence in said.stderr
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="sts needs dynamics"):
        Recipe.load(None, sts="x.jsonl")


def test_halves_are_the_positives_where_no_pairs_are_given(backbone, corpus):
    embedder = untrained(backbone("bert"))
    dynamics = Dynamics(embedder, corpus[:6], None, "en")
    assert dynamics.positives == "both halves of a held-out text"
    targets = SimpleNamespace(padded=lambda: (torch.zeros(6, 1, dtype=torch.int64), torch.ones(6, 1)))
    measured = dynamics.measure(targets)
    logits = embedder.decoding_head(embedder.embed(corpus[:6]))
    assert measured["target_loss"] == pytest.approx(-float(logits.log_softmax(dim=1)[:, 0].mean()), rel=1e-5)
    first, second = zip(*map(halves, corpus[:6]), strict=True)
    assert measured["alignment"] == pytest.approx(alignment(embedder.embed(first), embedder.embed(second)), rel=1e-5)
    assert "sts" not in measured
