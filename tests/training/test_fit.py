"""The life of a run: killed and resumed to the same weights, refused, replaced, published whole."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from conftest import CORPUS, SENTENCES, of_recipe
from text2token import Embedder, Recipe, UserError
from text2token.cli import main
from text2token.data.corpus import Corpus
from text2token.model import precision
from text2token.settings.record import RunRecord
from text2token.training import pipeline, trainer
from text2token.training.callbacks import TimeLimit
from text2token.training.pipeline import build_targets, fit, fit_draw, split_texts
from text2token.training.start import read_corpus
from text2token.training.trainer import TrainingSettings, _arguments
from text2token.utils.files import exclusive_lock
from text2token.utils.run_folder import RunFolder

IMPORTED_ONCE = ["text2token.cli.fit", "text2token.training.pipeline", "text2token.model.folders"]
TEXTS = [f"{text[:-1]}, part {i} of {j}." for i in range(5) for j in range(4) for text in SENTENCES]
STEPS = {"max_texts": 184, "held_out": 16, "batch_size": 4}  # 23 a stage, with checkpoints at 20 and 23
QUICK = {
    "max_texts": 60,
    "stage_1": 0.5,
    "batch_size": 16,
    "calibration_texts": 30,
    "prior_texts": 20,
    "train_length": 40,
}


def run_until(touched, number, arguments, standard_error):
    """The command line, which gets a signal the moment it opens or renames a file whose path holds ``touched``."""

    def watch(event, details):
        if touched and event in {"open", "os.rename"} and touched in " ".join(map(str, details[:2])):
            os.kill(os.getpid(), number)

    os.dup2(os.open(standard_error, os.O_CREAT | os.O_WRONLY | os.O_TRUNC), 2)
    torch.set_num_threads(1)  # sums in one order
    precision.has_bf16 = lambda device: False  # as in the tests themselves
    sys.addaudithook(watch)
    main(arguments)


@pytest.fixture(scope="module")
def command(backbone, tmp_path_factory):
    """Runs ``text2token fit`` in a process of its own; returns its exit code and standard error."""
    folder = tmp_path_factory.mktemp("command")
    (folder / "texts.txt").write_text("\n".join(TEXTS))
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED_ONCE)
    settings = {**QUICK, **STEPS, "backbone": backbone("llama")}
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]

    def run(output, *more, touched=None, number=signal.SIGKILL):
        arguments = ["fit", str(folder / "texts.txt"), "--output", str(output), *options, *more]
        child = context.Process(target=run_until, args=(touched, number, arguments, folder / "standard error"))
        child.start()
        child.join()
        return child.exitcode, (folder / "standard error").read_text()

    return run


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def read_run(output):
    return json.loads((output / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("mode", [[], ["--full"]], ids=["lora", "full"])
def test_killed_again_and_again_a_run_ends_as_if_never_killed(command, tmp_path, mode):
    assert command(tmp_path / "calm", *mode) == (0, "")
    output, work = tmp_path / "killed", tmp_path / ".killed.work"
    finished = {}

    def kill_at(touched, *expected):
        assert command(output, *mode, touched=touched)[0] == -signal.SIGKILL
        assert not output.exists()
        finished.update({work / file: (work / file).stat().st_mtime_ns for file in expected})
        assert finished == {file: file.stat().st_mtime_ns for file in finished}  # nothing finished is made again

    kill_at("train-2/shard-000000.parquet", "train-1/shard-000000.parquet", "held-out-1/manifest.json")
    assert not (work / "train-2" / "shard-000000.parquet").exists()
    kill_at("stage-1/checkpoint-23/trainer_state.json", "train-2/shard-000000.parquet", "before.json")
    history = json.loads((work / "stage-1" / "checkpoint-20" / "trainer_state.json").read_text())["log_history"]
    kill_at("stage-2/final.part", "stage-1/final/log.json", "stage-2/checkpoint-20/trainer_state.json")
    for weights in (work / "stage-2" / "checkpoint-23").glob("*.safetensors"):
        os.truncate(weights, weights.stat().st_size // 2)
    kill_at("result/run.json", "stage-2/final/log.json")

    assert command(output, *mode) == (0, "")
    assert names(tmp_path) == ["calm", "killed"]
    killed, calm = read_run(output), read_run(tmp_path / "calm")
    assert killed["files"] == calm["files"]  # checksums: the weights are the same to the last bit
    assert killed["after"] == calm["after"]
    first_stage = [row for row in killed["log"] if row["stage"] == 1]
    assert first_stage[: len(history)] == [{"stage": 1, **row} for row in history]  # measured times too: no step again
    assert [row["step"] for row in first_stage if "loss" in row] == list(range(1, 24))


def test_control_c_tells_how_to_go_on(command, tmp_path):
    code, message = command(tmp_path / "m", touched="checkpoint-23/trainer_state.json", number=signal.SIGINT)
    assert (code, message) == (130, "\nStopped. Repeat the command to continue.\n")
    assert names(tmp_path) == [".m.work"]
    assert command(tmp_path / "m")[0] == 0
    assert names(tmp_path) == ["m"]


def test_a_damaged_stage_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{")
    with pytest.raises(UserError, match=f"Cannot load '{tmp_path}'.*damaged"):
        trainer._load_final(torch.nn.Linear(1, 1), tmp_path)


def test_one_process_at_a_time(command, tmp_path):
    run = RunFolder.open(tmp_path / "m", overwrite=False)
    with run.session({}):
        code, message = command(tmp_path / "m")
        assert code == 2
        assert (
            message
            == f"Error: Another process is at work on '{tmp_path / 'm'}': wait until it is done, or choose another name.\n"
        )
    assert names(tmp_path) == [".m.work"]


def test_what_is_overwritten_survives_until_the_new_is_complete(command, tmp_path):
    output, work = tmp_path / "m", tmp_path / ".m.work"
    output.mkdir()
    (output / "run.json").touch()
    assert command(output, "--overwrite", touched=f"{work}/replaced")[0] == -signal.SIGKILL
    assert names(output) == ["run.json"]
    assert command(output, "--overwrite", touched=f"{work}/result {output}")[0] == -signal.SIGKILL
    assert (work / "replaced" / "run.json").exists()
    assert (work / "result" / "report.html").exists()
    assert command(output, "--overwrite") == (0, "")
    assert names(output) == ["dense", "report.html", "run.json", "sparse"]
    assert names(tmp_path) == ["m"]


@pytest.fixture
def quick(backbone):
    return lambda **settings: Recipe(backbone=backbone("llama"), **{**QUICK, **settings})


def test_training_learns_and_logs_what_it_learns(quick, tmp_path):
    fit(TEXTS, tmp_path / "m", quick(max_texts=184, learning_rate=3e-3, train_length=128, max_length=128))
    run = read_run(tmp_path / "m")
    for stage in (1, 2):
        held_out = [row for row in run["log"] if row["stage"] == stage and "eval_loss" in row]
        assert held_out[0]["step"] == 0
        assert held_out[-1]["eval_loss"] < held_out[0]["eval_loss"]
        assert all(-1 <= row["eval_pair_cosine"] <= 1 for row in held_out)
        assert any("loss" in row for row in run["log"] if row["stage"] == stage)
        assert run["after"][f"target_loss_stage_{stage}"] < run["before"][f"target_loss_stage_{stage}"]
    first = next(row for row in run["log"] if "eval_loss" in row)
    assert first["eval_loss"] == pytest.approx(run["before"]["target_loss_stage_1"], rel=1e-4)


def test_a_fitted_model_can_be_fitted_again_and_again(quick, tmp_path):
    """It keeps its template, starts from its own weights, and knows the head of the first backbone."""
    recipe = quick()
    first = fit(TEXTS, tmp_path / "0", recipe)
    for number in (1, 2):
        again = recipe.model_copy(update={"backbone": str(tmp_path / f"{number - 1}")})
        fit(TEXTS, tmp_path / f"{number}", again)
        record = RunRecord.read(tmp_path / f"{number}" / "run.json").backbone
        assert (record.name, record.source) == (again.backbone, recipe.backbone)
    shutil.rmtree(tmp_path / "1")  # what it started from may be deleted
    last = Embedder.open(tmp_path / "2", head="original", corrected=False)
    assert last.decoding_head.source == recipe.backbone
    assert last.tokenizer("a cat")["input_ids"] == first.tokenizer("a cat")["input_ids"]
    start, once, thrice = (model.embed(SENTENCES) for model in (of_recipe(recipe), first, last))
    assert (thrice - start).norm() > (once - start).norm()  # a run that started anew would have moved equally far


def test_the_seed_decides(quick, tmp_path):
    vectors = [fit(TEXTS, tmp_path / str(i), quick(seed=seed)).encode(SENTENCES) for i, seed in enumerate((3, 3, 4))]
    np.testing.assert_array_equal(vectors[0], vectors[1])
    assert np.abs(vectors[0] - vectors[2]).max() > 0.01


@pytest.mark.parametrize("full", [False, True])
def test_mixed_precision_learns_the_same(quick, tmp_path, monkeypatch, full):
    exact = fit(TEXTS, tmp_path / "exact", quick(full=full, dynamics=1)).encode(SENTENCES)
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: True)
    fitted = fit(TEXTS, tmp_path / "mixed", quick(full=full, dynamics=1))
    assert not fitted.bf16  # what is handed out encodes in float32
    mixed = fitted.encode(SENTENCES)
    assert (exact * mixed).sum(axis=1).min() > 0.99
    assert not np.array_equal(exact, mixed)
    losses = [
        [row["target_loss"] for row in read_run(tmp_path / name)["dynamics"]["rows"]] for name in ("exact", "mixed")
    ]
    np.testing.assert_allclose(*losses, rtol=0.01)


@pytest.mark.parametrize(("share", "stages"), [(0.0, {2}), (1.0, {1})])
def test_a_stage_without_texts_is_left_out(quick, tmp_path, share, stages):
    fit(TEXTS, tmp_path / "m", quick(stage_1=share))
    run = read_run(tmp_path / "m")
    assert {row["stage"] for row in run["log"]} == {row["stage"] for row in run["targets"]} == stages


@pytest.mark.parametrize(("settings", "steps"), [({}, [0, 7, 13]), ({"max_minutes": 1e-9}, [0, 1])])
def test_a_stage_is_measured_at_its_end(quick, tmp_path, settings, steps):
    fit(TEXTS, tmp_path / "m", quick(stage_1=1.0, batch_size=4, max_texts=52, **settings))
    log = read_run(tmp_path / "m")["log"]
    assert [row["step"] for row in log if "eval_loss" in row] == steps
    assert max(row["step"] for row in log) == steps[-1]


def test_the_log_of_a_resumed_stage_is_that_of_one_never_killed(quick, tmp_path, monkeypatch):
    """Killed after step 5, it continues at the checkpoint of step 4, which is between the evaluations of steps 0 and 8."""
    monkeypatch.setattr(trainer, "_CHECKPOINT_STEPS", 2)
    recipe = quick(stage_1=1.0, batch_size=4, max_texts=60)
    fit(TEXTS, tmp_path / "calm", recipe)
    with monkeypatch.context() as patch:

        def kill(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise KeyboardInterrupt

        patch.setattr(trainer.ShowProgress, "on_step_end", kill)
        with pytest.raises(KeyboardInterrupt):
            fit(TEXTS, tmp_path / "killed", recipe)
    fit(TEXTS, tmp_path / "killed", recipe)
    clocks = re.compile("runtime|per_second")
    calm, killed = (
        [
            {key: value for key, value in row.items() if not clocks.search(key)}
            for row in read_run(tmp_path / name)["log"]
        ]
        for name in ("calm", "killed")
    )
    assert killed == calm
    assert [row["step"] for row in calm if "eval_loss" in row] == [0, 8, 15]


def test_time_limit_ends_each_stage(quick, tmp_path):
    fit(TEXTS, tmp_path / "m", quick(batch_size=2, max_minutes=1e-6))
    assert {row["step"] for row in read_run(tmp_path / "m")["log"]} == {0, 1}


def test_minutes_before_a_resume_count():
    assert TimeLimit.from_state(TimeLimit(5.0, spent=2.0).state()).spent == 2.0


def test_minutes_are_shared_by_the_stages(quick, tmp_path, monkeypatch):
    limits = []
    train = pipeline.train_stage
    monkeypatch.setattr(
        pipeline, "train_stage", lambda *a, **k: limits.append(k["minutes"]) or train(*a, **{**k, "minutes": 1e-6})
    )
    fit(TEXTS, tmp_path / "m", quick(stage_1=0.25, max_minutes=8))
    assert limits == pytest.approx([2, 6])


def test_batches_are_accumulated_and_the_rate_warms_up():
    settings = Recipe(batch_size=4, accumulation=2, warmup=0.5).part(TrainingSettings)
    arguments = _arguments(settings, Path("run"), 80)
    assert arguments.gradient_accumulation_steps == 2
    assert arguments.per_device_train_batch_size == 4
    assert arguments.warmup_steps == 5


def test_accumulated_batches_learn_as_large_ones(quick, tmp_path):
    losses = []
    for name, settings in {"large": {"batch_size": 8}, "small": {"batch_size": 4, "accumulation": 2}}.items():
        fit(TEXTS, tmp_path / name, quick(**settings))
        log = read_run(tmp_path / name)["log"]
        losses.append([row["loss"] for row in log if "loss" in row])
    assert len(losses[0]) == len(losses[1])
    assert losses[0][0] == pytest.approx(losses[1][0], rel=0.05)  # batches of like lengths are drawn by their size


def test_a_run_limits_the_kernels_that_torch_keeps_and_a_limit_of_the_user_stays(tmp_path, monkeypatch):
    inner, outer = "ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"
    for name in (inner, outer):
        monkeypatch.setenv(name, "7")
    monkeypatch.delenv(outer)
    with pytest.raises(UserError, match="exists"):
        fit(CORPUS, tmp_path)
    assert os.environ[inner] == "7"
    assert int(os.environ[outer]) < 1024


def test_held_out_texts_and_stages_share_nothing():
    recipe = Recipe(max_texts=60, held_out=20, stage_1=0.3)
    corpus = Corpus.from_texts([f"text {i}" for i in range(200)])
    (texts, held_out), facts = read_corpus(corpus, fit_draw(recipe), 0)
    assert (facts.texts, facts.fingerprint) == (200, corpus.fingerprint())
    stages = split_texts(texts, recipe.stage_1)
    assert len(texts) == 60
    assert len(held_out) == 8
    assert not set(texts) & set(held_out)
    assert stages[1] + stages[2] == texts
    assert len(stages[1]) == 18


@pytest.mark.parametrize(
    ("texts", "settings", "sentence"),
    [
        (CORPUS[:15], {}, "has 15 distinct texts, too few"),
        (["one text"] * 100, {}, "has 1 distinct text, too few"),
        (CORPUS, {"train_length": 12}, "leaves no room for text in 12"),
        (CORPUS, {"learning_rate": 1e30}, "lower `learning_rate`"),
    ],
)
def test_what_cannot_work_leaves_nothing_behind(quick, tmp_path, texts, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        fit(texts, tmp_path / "m", quick(**settings))
    assert names(tmp_path) == []


def test_an_output_that_exists_is_refused_before_any_work(quick, tmp_path):
    with pytest.raises(UserError, match="exists: choose another folder, or set `overwrite`"):
        fit("no such corpus", tmp_path, quick())


def test_an_unfinished_run_is_kept_from_other_settings(quick, tmp_path, monkeypatch):
    def stop_with(error):
        def stop(*arguments, **settings):
            raise error

        monkeypatch.setattr(pipeline, "train_stage", stop)

    def work():
        return {file: file.stat().st_mtime_ns for file in (tmp_path / ".m.work").rglob("*.parquet")}

    train = pipeline.train_stage
    stop_with(KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        fit(TEXTS, tmp_path / "m", quick())
    before = work()
    assert before
    for texts, settings in ((TEXTS, {"seed": 1}), (TEXTS[1:], {})):
        with pytest.raises(UserError, match="An unfinished run with other settings or texts waits"):
            fit(texts, tmp_path / "m", quick(**settings))
    stop_with(UserError("not of the settings' making"))
    with pytest.raises(UserError, match="not of the settings"):
        fit(TEXTS, tmp_path / "m", quick())
    assert work() == before

    monkeypatch.setattr(pipeline, "train_stage", train)
    fit(TEXTS, tmp_path / "m", quick(seed=1), overwrite=True)
    assert read_run(tmp_path / "m")["recipe"]["seed"] == 1
    assert names(tmp_path) == ["m"]


def test_a_backbone_that_has_changed_is_not_trained_on_nor_are_targets_counted_again(
    quick, tmp_path, monkeypatch, backbone
):
    place = tmp_path / "backbone"
    shutil.copytree(backbone("llama"), place)
    monkeypatch.setattr(pipeline, "train_stage", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    recipe = quick().model_copy(update={"backbone": str(place)})
    with pytest.raises(KeyboardInterrupt):
        fit(TEXTS, tmp_path / "m", recipe)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "corpus_statistics", lambda *_: pytest.fail("counted again"))
        with pytest.raises(KeyboardInterrupt):
            fit(TEXTS, tmp_path / "m", recipe)
    store = build_targets(TEXTS, tmp_path / "targets", 2, recipe)[0]
    assert build_targets(TEXTS, tmp_path / "targets", 2, recipe)[0] == store
    weights = load_file(place / "model.safetensors")
    save_file({name: 1.5 * tensor for name, tensor in weights.items()}, place / "model.safetensors", {"format": "pt"})
    with pytest.raises(UserError, match="An unfinished run with other settings"):
        fit(TEXTS, tmp_path / "m", recipe)
    with pytest.raises(UserError, match="was built with different settings"):
        build_targets(TEXTS, tmp_path / "targets", 2, recipe)


def test_a_target_store_is_built_by_one_process_at_a_time(quick, tmp_path):
    with exclusive_lock(tmp_path / ".targets.lock", ""), pytest.raises(UserError, match="Another process is at work"):
        build_targets(TEXTS, tmp_path / "targets", 1, quick())
    assert names(tmp_path) == []
    build_targets(TEXTS, tmp_path / "targets", 1, quick())
    assert names(tmp_path) == ["targets"]


def test_an_output_that_cannot_be_written_is_refused_before_any_work(quick, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "model", Path("/proc/nowhere/model")):
        with pytest.raises(UserError, match="Cannot write to"):
            fit("no such corpus", output, quick())
    assert names(tmp_path) == ["file"]


def test_rubbish_of_a_published_run_is_swept_up(tmp_path):
    (tmp_path / ".m.work" / "stage-1").mkdir(parents=True)
    RunFolder.open(tmp_path / "m", overwrite=False)
    assert names(tmp_path) == []
