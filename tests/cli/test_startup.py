"""No verb imports what it does not use: importing a library costs tenths of a second, some whole seconds."""

from __future__ import annotations

import subprocess
import sys

import pytest

from conftest import SENTENCES

HEAVY = {"torch", "transformers", "sentence_transformers", "datasets", "sklearn", "pandas", "peft"}
ALWAYS_IDLE = {"matplotlib", "mteb", "ray", "fastapi", "pymilvus", "pytrec_eval"}
ROOMS = {f"text2token.{room}" for room in ("targets", "analysis", "search", "evaluation", "training", "serving")}
_REPORT = """
import sys
from text2token.cli import main
sys.argv = ["text2token", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    code = end.code
print("imported:", code, *sorted(sys.modules), file=sys.stderr)
"""


def imported(*arguments) -> set[str]:
    """The modules in memory after a command that works."""
    command = [sys.executable, "-c", _REPORT, *map(str, arguments)]
    last = subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()[-1].split()
    assert last[:2] == ["imported:", "0"]
    return set(last[2:])


def test_help_loads_no_library_for_models():
    assert not imported("--help") & (HEAVY | ALWAYS_IDLE | ROOMS | {"numpy", "scipy"})


def test_a_search_by_words_loads_no_model(index_folder):
    assert not imported("search", index_folder, "cat", "--no-model") & (
        HEAVY | ALWAYS_IDLE | ROOMS - {"text2token.search"}
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verb", "used"),
    [("explain", {"text2token.analysis"}), ("encode", set()), ("search", {"text2token.search"})],
)
def test_a_verb_with_a_model_loads_no_room_that_it_does_not_use(verb, used, model_folder, index_folder, tmp_path):
    (tmp_path / "text.txt").write_text(SENTENCES[0])
    arguments = {
        "explain": (model_folder, SENTENCES[0]),
        "encode": (model_folder, tmp_path / "text.txt", "--output", tmp_path / "vectors.npy"),
        "search": (index_folder, SENTENCES[0]),
    }
    assert not imported(verb, *arguments[verb]) & (ALWAYS_IDLE | ROOMS - used)
