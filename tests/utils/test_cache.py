"""A user without a home directory or a name, who may not write to the installed packages, can use every verb."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

import text2token
from conftest import CORPUS
from text2token.utils import cache
from text2token.utils.cache import cache_dir, use_writable_caches

CACHES = ["TEXT2TOKEN_CACHE", "HF_HOME", "HF_DATASETS_CACHE", "MTEB_CACHE", "MPLCONFIGDIR", "NUMBA_CACHE_DIR"]
USER = 54321
# That user reads the interpreter wherever it lies, as it could in a container, and may write nowhere but in its own folders.
BECOME_USER = [
    *("setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
]


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Nothing is set but a home; returns what may be written, by the start of its path."""
    for name in [*CACHES, "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "USER"]:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path))
    writable = [str(tmp_path)]
    monkeypatch.setattr(cache, "_can_write", lambda folder: any(str(folder).startswith(start) for start in writable))
    yield writable
    for name in CACHES:
        os.environ.pop(name, None)


def test_writable_folders_stay_where_they_are(environment, caplog):
    environment.append(str(Path(text2token.__file__).parent))
    before = dict(os.environ)
    use_writable_caches()
    assert os.environ.items() - before.items() <= {("USER", f"user-{os.getuid()}")}
    assert not caplog.messages


def test_a_home_that_cannot_be_written_keeps_its_models_and_moves_the_rest(environment, caplog, tmp_path):
    (tmp_path / "home" / ".cache" / "huggingface").mkdir(parents=True)
    own = tmp_path / f"text2token-{os.getuid()}"
    environment[:] = [str(own)]
    use_writable_caches()
    assert {name for name in CACHES if name in os.environ} == {*CACHES} - {"HF_HOME"}
    assert cache_dir() == own / "text2token_cache"
    assert os.environ["HOME"] == str(tmp_path / "home")
    assert len(caplog.messages) == 1
    assert str(own) in caplog.messages[0]


def test_without_a_home_everything_moves(environment, monkeypatch, caplog, tmp_path):
    monkeypatch.setattr(cache, "_home", lambda: None)
    use_writable_caches()
    assert Path.home() == tmp_path / f"text2token-{os.getuid()}" / "home"
    assert str(cache_dir()).startswith(str(Path.home()))
    assert len(caplog.messages) == 1


def test_what_is_set_stays(environment, monkeypatch, tmp_path):
    environment.clear()
    for name in CACHES:
        monkeypatch.setenv(name, "chosen")
    monkeypatch.setattr(cache, "_home", lambda: tmp_path)
    use_writable_caches()
    assert {os.environ[name] for name in CACHES} == {"chosen"}


def test_a_command_that_can_write_nowhere_ends_with_one_sentence():
    program = """
import os, tempfile
def nowhere(): raise FileNotFoundError(2, "No usable temporary directory found")
tempfile.gettempdir, os.access = nowhere, lambda path, mode: mode == os.F_OK
from text2token.cli import main
main(["backbones"])
"""
    environment = {name: value for name, value in os.environ.items() if name not in CACHES}
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stdout == ""
    said = "Neither the cache folders nor a temporary folder can be written: set HOME or TMPDIR to a folder that you may write."
    assert ran.stderr == f"Error: {said}\n"


def can_become_user():
    return (
        shutil.which("setpriv")
        and not subprocess.run([*BECOME_USER, "true"], capture_output=True, check=False).returncode
    )


@pytest.mark.slow
@pytest.mark.skipif(not can_become_user(), reason="only root on Linux may become another user")
@pytest.mark.parametrize("home", [None, "/root"])
def test_the_verbs_work_for_a_user_without_home_and_name(home, backbone, request):
    """The user is in no list of users, and may write neither to a home nor to the packages."""
    open_to_all = tempfile.mkdtemp()  # pytest's own folders are closed to other users
    request.addfinalizer(lambda: shutil.rmtree(open_to_all))
    folder = Path(open_to_all, "work")
    Path(open_to_all).chmod(0o755)
    shutil.copytree(backbone("llama"), folder / "llama")
    rows = [f'{{"id": {number}, "text": "{text}"}}\n' for number, text in enumerate(CORPUS[:40])]
    (folder / "texts.jsonl").write_text("".join(rows))
    for path in (folder, *folder.rglob("*")):
        os.chown(path, USER, USER)
    unset = {"HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", *CACHES}
    environment = {name: value for name, value in os.environ.items() if name not in unset}
    environment |= {"TMPDIR": str(folder), **({} if home is None else {"HOME": home})}

    def python(*arguments):
        command = [*BECOME_USER, sys.executable, "-P", *arguments]
        ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran

    built = python("-m", "text2token", "index", "llama", "texts.jsonl", "--output", "index")
    assert built.stderr.count("The cache folders cannot be written") == 1
    assert "cat" in python("-m", "text2token", "search", "index", "cat", "--json").stdout
    python("-c", "from text2token.evaluation.tasks import select_tasks; import mteb, datasets, matplotlib.pyplot")
    assert not (folder / "~").exists()
