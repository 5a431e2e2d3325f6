"""One sentence for each error, the names of settings as flags, tracebacks on demand, warnings as notes."""

from __future__ import annotations

import errno
import json
import logging
import os
import sqlite3
import subprocess
import sys
import warnings

import click
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors import SafetensorError

from conftest import SENTENCES, done, refused, text2token
from text2token.cli import main
from text2token.cli.errors import settings_as_flags
from text2token.utils.errors import UserError, requires_extra


@pytest.fixture
def verb(monkeypatch):
    """Let ``text2token backbones`` do something else."""

    def replace(function):
        monkeypatch.setattr("text2token.cli.backbones._records", function)

    return replace


def raises(error):
    def function():
        raise error

    return function


# --- sentences ------------------------------------------------------------------------------------------------------


def sqlite_error(kind, code):
    error = kind("database says so")
    error.sqlite_errorcode = code
    return error


def caused(error, cause):
    error.__cause__ = cause
    return error


DISK_FULL = "The disk is full: free some space and repeat the command."
EXPECTED = [
    (UserError("Give another name."), "Give another name."),
    (OSError(errno.ENOSPC, "No space left on device", "file"), DISK_FULL),
    (OSError(errno.EDQUOT, "Disk quota exceeded", "file"), DISK_FULL),
    (caused(RuntimeError("while writing"), OSError(errno.ENOSPC, "no space")), DISK_FULL),
    (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_FULL), DISK_FULL),
    (SafetensorError("I/O error: No space left on device (os error 28)"), DISK_FULL),
    (OSError("200000 requested and 38384 written"), DISK_FULL),
    (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), DISK_FULL),
    (MemoryError(), "There is not enough memory"),
    (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_BUSY), "keep the folder on a local disk"),
    (sqlite_error(sqlite3.DatabaseError, sqlite3.SQLITE_CORRUPT), "the file is damaged"),
    (sqlite_error(sqlite3.OperationalError, sqlite3.SQLITE_IOERR | 10 << 8), "check that its disk works"),
    (PermissionError(errno.EACCES, "Permission denied", "/secret"), "Cannot use '/secret': Permission denied."),
]
UNEXPECTED = [
    (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum recursion depth exceeded"),
    (ValueError("Target modules not found.\nSee the manual."), "ValueError: Target modules not found"),
    (Exception("WordPiece error: Missing [UNK] token"), "Exception: WordPiece error: Missing [UNK] token"),
    (ZeroDivisionError(), "ZeroDivisionError"),
    (OSError("a message that speaks of disk 28"), "OSError: a message that speaks of disk 28"),
    (UnicodeEncodeError("utf-8", "\udcff", 0, 1, "surrogates not allowed"), "UnicodeEncodeError: 'utf-8' codec"),
]


@pytest.mark.parametrize(("error", "sentence"), EXPECTED, ids=lambda value: type(value).__name__)
def test_an_expected_error_is_one_sentence_and_exit_code_2(verb, error, sentence):
    verb(raises(error))
    assert sentence in refused("backbones", "--json")


@pytest.mark.parametrize(("error", "sentence"), UNEXPECTED, ids=lambda value: type(value).__name__)
def test_an_unexpected_error_is_its_first_line_and_exit_code_1(verb, error, sentence):
    verb(raises(error))
    result = text2token("backbones", "--json")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {sentence}")
    assert result.stderr.endswith(". Run the command again with --debug to see the traceback.\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (["--debug", "backbones", "--json"], {}),
        (["backbones", "--json", "--debug"], {}),
        (["backbones", "--json"], {"TEXT2TOKEN_DEBUG": "1"}),
    ],
)
def test_debug_shows_the_traceback_and_its_cause(verb, arguments, env):
    verb(raises(caused(UserError("Give another name."), KeyError("the cause"))))
    result = text2token(*arguments, env=env)
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert "KeyError: 'the cause'" in result.stderr
    assert result.stderr.endswith("Error: Give another name.\n")


def test_ctrl_c_says_how_to_go_on(verb):
    verb(raises(KeyboardInterrupt()))
    result = text2token("backbones", "--json")
    assert (result.exit_code, result.stderr) == (130, "\nStopped. Repeat the command to continue.\n")


def test_a_closed_pipe_is_quiet():
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "text2token", "backbones", "--json"]
    result = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert result.stderr == b""


@pytest.mark.parametrize(
    ("command", "sentence"),
    [
        ("search index -5", "write -- before an argument that begins with a dash: 'text2token search … -- -5'"),
        ("--no-such backbones", "No such option '--no-such'"),
        ("backbones --no-such", "No such option '--no-such' (see 'text2token backbones --help')"),
        ("", None),
    ],
)
def test_wrong_usage_is_one_sentence(command, sentence):
    if sentence:
        assert sentence in refused(*command.split())
    else:
        assert "Commands:" in text2token().output


# --- settings -------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("corpus", nargs=-1)
@click.option("--learning-rate")
@click.option("--overwrite", is_flag=True)
@click.option("-k", "--tokens", "k")
@click.option("--inference-free/--no-inference-free", "inference_free")
def stand_in(**_):
    """A command with some options."""


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ("lower `learning_rate`", "lower --learning-rate"),
        ("lower learning_rate.", "lower --learning-rate."),
        ("set `learning_rate=0.1`", "set --learning-rate 0.1"),
        ("pass `overwrite=True`", "pass --overwrite"),
        ("you may overwrite it", "you may overwrite it"),
        ("lower `k`", "lower --tokens"),
        ("name another `corpus`", "name another CORPUS"),
        ("`batch_size` is not here", "batch_size is not here"),
        ("setting 'learning_rate' of a file", "setting 'learning_rate' of a file"),
        ("the file models/learning_rate/x", "the file models/learning_rate/x"),
    ],
)
def test_names_of_settings_become_flags(message, said):
    assert settings_as_flags(message, stand_in) == said


def test_a_setting_of_the_library_is_named_as_its_flag(tmp_path):
    (tmp_path / "texts.txt").write_text("\n".join(SENTENCES))
    said = refused(
        "fit", tmp_path / "texts.txt", "--output", tmp_path / "m", "--max-length", "5", "--train-length", "40"
    )
    assert "--train-length (40) must not be above --max-length (5)" in said


# --- notes ----------------------------------------------------------------------------------------------------------


def test_what_the_library_warns_of_is_a_note_and_said_once(verb):
    def noisy():
        for _ in range(2):
            logging.getLogger("text2token.model.embedder").warning("The batch is halved,\nto %d.", 16)
            warnings.warn_explicit("Two texts are cut.", UserWarning, main.callback.__code__.co_filename, 1)
            warnings.warn_explicit("Call another function.", UserWarning, "/elsewhere/torch/nn.py", 1)
            warnings.warn_explicit("This goes away.", FutureWarning, "/elsewhere/torch/nn.py", 1)
        logging.getLogger("text2token.model.embedder").info("An unimportant thing.")
        return []

    verb(noisy)
    result = text2token("backbones", "--json")
    assert json.loads(result.stdout) == []
    assert result.stderr == "Note: The batch is halved, to 16.\nNote: Two texts are cut.\n"


# --- wild input -----------------------------------------------------------------------------------------------------

OPTIONS = ["--json", "--html", "-k", "-o", "--output", "--models", "--published", "--data", "--fetch"]
WORDS = st.sampled_from([*OPTIONS, "--", "-", "-5", "x", "0", "nan", "file", ".", "..", "''", "run.json"])
ARGUMENTS = st.lists(WORDS | st.text(max_size=8).filter(lambda text: "\0" not in text), max_size=6)
CHEAP = ["backbones", "compare", "dynamics", "search"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty folder with one file, in which a wild command runs."""
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"


def one_sentence_or_done(*command):
    result = text2token(*command)
    assert result.exit_code in {0, 2}, (command, result.output)
    assert "Traceback" not in result.output
    if result.exit_code == 2 and not result.stderr.startswith("Usage"):
        assert result.stderr.splitlines()[-1].startswith("Error: ")
    return result


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(verb=st.sampled_from(CHEAP), arguments=ARGUMENTS)
@example(verb="search", arguments=["index", "-5"])
@example(verb="dynamics", arguments=["\udcff", "-o", "x"])
def test_wild_arguments_end_in_a_sentence(here, verb, arguments):
    before = sorted(here.rglob("*"))
    if one_sentence_or_done(verb, *arguments).exit_code == 2:
        assert sorted(here.rglob("*")) == before


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda value: st.lists(value, max_size=3) | st.dictionaries(st.text(max_size=4), value, max_size=3),
    max_leaves=8,
)
FILES = st.binary(max_size=60) | JSON.map(lambda value: json.dumps(value).encode())
DEEP = b"[" * 100_000


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30)
@given(content=FILES)
@example(content=DEEP)
@example(content=b'{"a": {"b": 1}}')
def test_wild_files_end_in_a_sentence_and_leave_nothing_behind(here, content):
    (here / "run").mkdir(exist_ok=True)
    for name in ("run/run.json", "run/summary.json", "scores.json", "recipe.yaml", "ids"):
        (here / name).write_bytes(content)
    before = sorted(here.rglob("*"))
    for command in (
        ["dynamics", "run", "-o", "out"],
        ["compare", "run", "-o", "out"],
        ["compare", "run", "--published", "scores.json", "-o", "out"],
        ["search", "run", "query", "--no-model"],
        ["targets", "texts.txt", "--recipe", "recipe.yaml", "-o", "out"],
        ["index", "-o", "run", "--delete-file", "ids"],
    ):
        result = one_sentence_or_done(*command)
        assert result.exit_code == 2
        assert sorted(here.rglob("*")) == before


def test_the_cheap_verbs_still_work():
    assert "smollm2-135m" in done("backbones", "--json")


def test_only_a_missing_package_is_taken_for_an_extra():
    sentence = r"^This needs the package 'mteb': pip install 'text2token\[eval\]'\.$"
    with pytest.raises(UserError, match=sentence), requires_extra("eval"):
        raise ModuleNotFoundError("No module named 'mteb'", name="mteb")
    with pytest.raises(ModuleNotFoundError, match="requirements"), requires_extra("eval"):
        raise ModuleNotFoundError("Are this object's requirements defined correctly?")  # as transformers raises it
