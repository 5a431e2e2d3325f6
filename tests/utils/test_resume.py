"""A step whose result is cached is computed once, whatever kills the process and whenever."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from hashlib import sha256

import numpy as np
import pytest
import torch

from conftest import CORPUS, done, text2token
from text2token import UserError
from text2token.utils import resume
from text2token.utils.resume import cached, load, save

VALUES = {
    "value.json": {"a": [1, 0.5, None], "ü": "\ud800".encode(errors="backslashreplace").decode()},
    "value.npy": torch.tensor([[1.0, -2.5], [float("inf"), 0.0]]),
    "value.npz": {"n": 3, "rows": np.arange(6).reshape(2, 3)},
}


def same(first, second):
    if isinstance(first, dict):
        equal = [type(first[key]) is type(second[key]) and np.array_equal(first[key], second[key]) for key in first]
        return first.keys() == second.keys() and all(equal)
    return torch.equal(first, second)


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_computed_once_and_read_back_as_it_was(tmp_path, name):
    file = tmp_path / "new" / name
    first = cached(file, lambda: VALUES[name])
    again = cached(file, lambda: pytest.fail("computed twice"))
    assert same(first, VALUES[name])
    assert same(again, VALUES[name])
    assert type(again) is type(VALUES[name])
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("name", VALUES)
def test_a_failure_leaves_no_file_and_the_default_is_returned(tmp_path, name):
    with pytest.raises(KeyboardInterrupt):
        cached(tmp_path / name, lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    assert list(tmp_path.iterdir()) == []
    assert load(tmp_path / name, "default") == "default"


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "value.json").touch()
    with pytest.raises(UserError, match=r"'.*value\.json' is damaged: delete it"):
        load(tmp_path / "value.json")


@pytest.mark.parametrize("name", ["value.npy", "value.npz"])
@pytest.mark.parametrize("kept", [0, 40])
def test_a_damaged_array_is_told_with_the_way_out(tmp_path, name, kept):
    save(tmp_path / name, VALUES[name])
    os.truncate(tmp_path / name, kept)
    with pytest.raises(UserError, match=rf"{name}' is damaged: delete it and repeat the command, which makes it again"):
        load(tmp_path / name)


@pytest.mark.parametrize("name", VALUES)
def test_a_kill_during_writing_keeps_the_old_value(tmp_path, name):
    file = tmp_path / name
    save(file, VALUES[name])
    code = (
        "import os, signal, sys, pathlib; from text2token.utils.resume import load, save; file = pathlib.Path(sys.argv[1])\n"
        "value = load(file)\n"
        "sys.addaudithook(lambda event, _: event == 'os.rename' and os.kill(os.getpid(), signal.SIGKILL))\n"
        "save(file, {} if isinstance(value, dict) else value * 2)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(file)], env=os.environ, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert (tmp_path / f"{name}.part").exists()
    assert same(load(file), VALUES[name])
    save(file, VALUES[name])
    assert list(tmp_path.iterdir()) == [file]


QUICK = ["--calibration-texts", 60, "--correction", "centre", "--template", "none"]
USERS = {
    "adapt": ("adapt", "{llama}", "--corpus", "{texts}", "-o", "{output}", *QUICK),
    "encode": ("encode", "{llama}", "{texts}", "-o", "{output}.npy"),
    "spectrum": ("spectrum", "{llama}", "{qwen3}", "--corpus", "{texts}", "-o", "{output}", "--aligned", 20),
}


def contents(folder):
    """Checksums of the vectors and tables in a folder; records hold times and paths, which differ."""
    kinds = {".npy", ".parquet", ".safetensors"}
    files = [file for file in folder.rglob("*") if file.suffix in kinds]
    return {file.name: sha256(file.read_bytes()).hexdigest() for file in files}


@pytest.mark.parametrize("user", USERS)
def test_a_command_that_is_stopped_after_any_step_goes_on_to_the_same_result(user, backbone, tmp_path, monkeypatch):
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(CORPUS))
    places = {"texts": texts, "llama": backbone("llama"), "qwen3": backbone("qwen3")}

    def command(folder):
        folder.mkdir(exist_ok=True)
        return [str(part).format(output=folder / "out", **places) for part in USERS[user]]

    saved, original = [], resume.save

    def dies_after_first_value(file, value):
        original(file, value)
        saved.append(file.name)
        if len(saved) == 2:  # the settings, then the first value that was computed
            raise KeyboardInterrupt

    done(*command(tmp_path / "whole"))
    for module in ("resume", "run_folder"):
        monkeypatch.setattr(f"text2token.utils.{module}.save", dies_after_first_value)
    assert text2token(*command(tmp_path / "cut")).exit_code == 130
    assert contents(tmp_path / "cut").keys() == {saved[1]}
    done(*command(tmp_path / "cut"))
    assert saved.count(saved[1]) == 1
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert not list((tmp_path / "cut").glob(".*"))
