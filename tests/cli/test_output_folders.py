"""Commands refuse an output that is a file, or that is in a folder that they read, before they do any work."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from conftest import CORPUS, text2token, write_search
from text2token.cli.align import align_command
from text2token.cli.compare import compare_command
from text2token.cli.dynamics import dynamics_command


@pytest.mark.parametrize(
    ("command", "arguments"),
    [(align_command, ["no-model", "--corpus", "no-corpus"]), (compare_command, ["none"]), (dynamics_command, ["none"])],
)
def test_a_file_is_refused_before_anything_is_read(tmp_path, command, arguments):
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    result = CliRunner().invoke(command, [*arguments, "--output", str(file)])
    assert str(result.exception) == f"'{file}' is a file: name a folder."
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        "encode MODEL docs -o docs/v.parquet",
        "encode MODEL docs --shards 2 -o docs/shards",
        "targets docs --backbone MODEL -o docs/targets",
        "fit task/corpus.jsonl docs --backbone MODEL -o docs/model",
        "adapt MODEL --corpus docs -o docs/adapted",
        "distill MODEL docs -o docs/student",
        "align MODEL --corpus docs -o docs/aligned",
        "spectrum MODEL MODEL --corpus docs -o docs/deep/spectrum",
        "index MODEL docs -o docs/index",
        "evaluate MODEL --data task --correction none -o task/results",
    ],
)
def test_an_output_in_a_folder_that_is_read_is_refused(backbone, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "notes.txt").write_text("\n".join(CORPUS))
    write_search(tmp_path / "task")
    before = sorted(tmp_path.rglob("*"))
    result = text2token(*(str(backbone("llama")) if part == "MODEL" else part for part in arguments.split()))
    assert result.exit_code == 2
    assert result.stderr.endswith(", which is read: name a place outside of it.\n")
    assert sorted(tmp_path.rglob("*")) == before
