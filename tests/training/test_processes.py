"""``fit`` on several processes, with gloo on CPUs, started by the launchers that a user calls."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from safetensors.torch import load_file

from conftest import SENTENCES
from scale_training import SETTINGS, TORCHRUN, adapters, batches, largest_difference, start
from text2token import UserError
from text2token.utils.processes import splits_weights

pytestmark = pytest.mark.processes

WORDS = sorted({word for text in SENTENCES for word in text.rstrip(".").lower().split()})
TEXTS = [f"{word} {text}" for word in WORDS for text in SENTENCES]  # no two have equal token ids
ACCELERATE = (
    sys.executable,
    "-m",
    "accelerate.commands.launch",
    "--cpu",
    "--num_processes",
    "2",
    "--num_machines",
    "1",
)
FSDP = {  # what `accelerate launch --use_fsdp --fsdp_version 2` sets
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_STATE_DICT_TYPE": "SHARDED_STATE_DICT",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
}
ONE = (sys.executable,)


@pytest.fixture(scope="module")
def settings(backbone):
    return {**SETTINGS, "backbone": backbone("llama"), "batch_size": 8}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    file = tmp_path_factory.mktemp("corpus") / "texts.txt"
    file.write_text("\n".join(TEXTS))
    return file


@pytest.fixture(scope="module")
def alone(settings, corpus, tmp_path_factory):
    """What one process writes that takes two batches of 8 texts in a step."""
    output = tmp_path_factory.mktemp("alone") / "m"
    done = start(ONE, output, {**settings, "accumulation": 2}, corpus)
    assert done.returncode == 0, done.stderr
    return output


def names(folder):
    return sorted(entry.name for entry in folder.iterdir())


def command(launcher, settings, corpus, output):
    """The command as a user types it."""
    options = [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    return subprocess.run(
        [*launcher, "-m", "text2token", "fit", str(corpus), "--output", str(output), *options],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def test_two_processes_train_what_one_trains_with_twice_the_batches(settings, corpus, alone, tmp_path):
    output = tmp_path / "m"
    done = start(TORCHRUN, output, settings, corpus)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1  # the first process alone tells where the model is
    whole = adapters(alone)
    assert largest_difference(whole, adapters(output)) <= 1e-5
    moved = [float(matrix.abs().max()) for name, matrix in whole.items() if "lora_B" in name]  # they start at zero
    assert min(moved) >= 1e-3
    one, two = batches(alone), list(zip(batches(output, 0), batches(output, 1), strict=True))
    assert len(two) == 44
    assert [set(one[2 * step] + one[2 * step + 1]) for step in range(44)] == [set(a + b) for a, b in two]
    calm, shared = (json.loads((folder / "run.json").read_text()) for folder in (alone, output))
    assert shared["before"] == pytest.approx(calm["before"], abs=1e-4)
    assert shared["after"] == pytest.approx(calm["after"], abs=1e-4)
    assert [row["step"] for row in shared["log"]] == [row["step"] for row in calm["log"]]
    weights = [load_file(folder / "dense" / "model.safetensors") for folder in (alone, output)]
    assert largest_difference(*weights) <= 1e-5
    assert names(tmp_path) == ["m", "m-watched"]


def test_a_killed_process_ends_all_and_the_same_command_goes_on(settings, corpus, alone, tmp_path):
    output, stage = tmp_path / "m", tmp_path / ".m.work" / "stage-1"
    assert start(TORCHRUN, output, settings, corpus, KILL="1,22").returncode != 0
    assert not output.exists()
    assert (stage / "checkpoint-20" / "sizes.json").is_file()
    assert not (stage / "checkpoint-22" / "sizes.json").exists()

    refused = start(ONE, output, settings, corpus)
    assert refused.returncode == 2
    assert re.fullmatch(r"Error: .* was started with 2 processes and this one has 1, .*\n", refused.stderr)

    done = start(TORCHRUN, output, settings, corpus)
    assert done.returncode == 0, done.stderr
    assert largest_difference(adapters(alone), adapters(output)) <= 1e-5
    assert names(tmp_path) == ["m", "m-watched"]


def test_fsdp_trains_what_one_process_trains(settings, corpus, alone, tmp_path):
    output = tmp_path / "m"
    done = start(TORCHRUN, output, settings, corpus, **FSDP)
    assert done.returncode == 0, done.stderr
    for rank in (0, 1):
        assert json.loads((tmp_path / "m-watched" / f"parameters-{rank}.json").read_text()) == ["DTensor"]
    assert largest_difference(adapters(alone), adapters(output)) <= 1e-5
    assert names(tmp_path) == ["m", "m-watched"]


def test_fsdp_measures_along_a_training_in_the_precision_of_the_machine(settings, corpus, tmp_path):
    done = start(TORCHRUN, tmp_path / "m", {**settings, "dynamics": 1}, corpus, PRECISION="own", **FSDP)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "m" / "run.json").read_text())["dynamics"]["rows"]
    assert [(row["stage"], row["step"]) for row in rows] == [(1, 0), (1, 22), (2, 0), (2, 22)]


def test_two_processes_follow_a_teacher_as_one_does(settings, corpus, model_folder, tmp_path):
    """Each process compares the texts of its own batch, so one process with two batches in a step has the same loss."""
    taught = {**settings, "teacher": model_folder, "stage_1": 1.0, "max_texts": 160}
    for name, launcher, accumulation in (("one", ONE, 2), ("two", TORCHRUN, 1)):
        done = start(launcher, tmp_path / name, {**taught, "accumulation": accumulation}, corpus)
        assert done.returncode == 0, done.stderr
    # the correction is learnt from batches of other sizes, and so with other rounding
    assert largest_difference(adapters(tmp_path / "one"), adapters(tmp_path / "two")) <= 1e-4
    one, two = (json.loads((tmp_path / name / "run.json").read_text()) for name in ("one", "two"))
    assert two["teacher"] == one["teacher"]
    assert two["after"]["teacher_agreement"] == pytest.approx(one["after"]["teacher_agreement"], abs=1e-3)


def test_a_refusal_is_one_sentence_of_the_first_process(settings, corpus, tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "run.json").touch()
    done = command(TORCHRUN, settings, corpus, tmp_path / "m")
    assert re.findall(r"^Error: .*", done.stderr, re.MULTILINE) == [
        f"Error: The output '{tmp_path / 'm'}' exists: choose another folder, or set --overwrite."
    ]
    assert re.search(r"exitcode *: 2", done.stderr)


def test_accelerate_launches_a_run_whose_time_limit_ends_all_processes(settings, corpus, tmp_path):
    done = command(ACCELERATE, {**settings, "max_minutes": 1e-6}, corpus, tmp_path / "m")
    assert done.returncode == 0, done.stderr
    run = json.loads((tmp_path / "m" / "run.json").read_text())
    assert {row["step"] for row in run["log"]} == {0, 1}


def test_the_first_version_of_fsdp_is_refused(monkeypatch):
    for name, value in {"WORLD_SIZE": "2", **FSDP}.items():
        monkeypatch.setenv(name, value)
    assert splits_weights()
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(UserError, match="Only version 2 of FSDP"):
        splits_weights()


@pytest.mark.parametrize("verb", ["index", "baseline", "adapt"])
def test_other_commands_run_in_one_process(verb):
    environment = {**os.environ, "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    call = [sys.executable, "-m", "text2token", verb, "x"]
    done = subprocess.run(call, env=environment, capture_output=True, text=True, check=False)
    said = f"Error: 'text2token {verb}' runs in one process: start it without torchrun or accelerate launch.\n"
    assert (done.returncode, done.stderr) == (2, said)
