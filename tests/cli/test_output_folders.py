"""Commands that write a folder refuse a file before they do any work."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

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
