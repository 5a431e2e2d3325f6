"""The names of the package, whatever was imported before, and what all public functions have in common."""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

from text2token import Recipe, UserError
from text2token.analysis import read_dynamics
from text2token.data import read_sts, read_table
from text2token.evaluation import compare, read_published, read_qrels, read_summary, select_tasks
from text2token.search import EncodedShards, ShardJob, read_documents
from text2token.settings import RunRecord


def run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_importing_is_light():
    assert run("import sys, text2token; print('torch' in sys.modules)") == "False"


@pytest.mark.slow
def test_every_name_is_what_it_says_even_when_all_modules_are_loaded():
    code = """
import importlib, pkgutil, text2token
for module in pkgutil.walk_packages(text2token.__path__, "text2token."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
print(*(f"{name}:{type(getattr(text2token, name)).__name__}" for name in text2token.__all__))
"""
    kinds = dict(pair.split(":") for pair in run(code).split())
    assert kinds["fit"] == kinds["build_targets"] == "function"
    assert set(kinds) == {"Corpus", "Embedder", "Recipe", "UserError", "build_targets", "fit"}


@pytest.mark.parametrize("room", ["analysis", "data", "evaluation", "search", "settings", "targets", "training"])
def test_every_public_function_that_takes_a_path_takes_a_string_too(room):
    module = importlib.import_module(f"text2token.{room}")
    public = [getattr(module, name) for name in module.__all__]
    methods = [getattr(own, name) for own in public if inspect.isclass(own) for name in ("open", "read", "load", "create")
               if inspect.ismethod(getattr(own, name, None))]  # fmt: skip
    for function in [*filter(inspect.isfunction, public), *methods]:
        for name, kind in inspect.get_annotations(function).items():
            assert name == "return" or "Path" not in str(kind) or "str" in str(kind), f"{function.__qualname__}: {name}"


def test_files_and_folders_are_named_by_strings(tmp_path):
    (tmp_path / "sts.csv").write_text("sentence1,sentence2,score\na,b,1\na,c,2\n")
    (tmp_path / "docs.jsonl").write_text('{"_id": "1", "text": "One."}\n')
    (tmp_path / "qrels.tsv").write_text("q\td\t1\n")
    (tmp_path / "recipe.yaml").write_text("seed: 3\n")
    assert len(list(read_table(str(tmp_path / "sts.csv")))) == 2
    assert read_sts(str(tmp_path / "sts.csv")).second == ["b", "c"]
    assert [document.id for document in read_documents(str(tmp_path / "docs.jsonl"))] == ["1"]
    assert read_qrels(str(tmp_path / "qrels.tsv")) == {"q": {"d": 1}}
    assert Recipe.load(str(tmp_path / "recipe.yaml")).seed == 3
    job = ShardJob("model", str(tmp_path / "docs.jsonl"), "memory://shards", 2)
    assert job.source == tmp_path / "docs.jsonl"
    assert str(job.folder) == "memory://shards"
    for read in (
        RunRecord.read, read_summary, read_published, read_dynamics, EncodedShards.open,
        lambda name: select_tasks(data_root=name), lambda name: compare([name]),
    ):  # fmt: skip
        with pytest.raises(UserError, match="missing"):
            read(str(tmp_path / "missing" / "file"))


def test_an_unknown_name_is_an_attribute_error():
    assert run("import text2token\ntry: text2token.nothing\nexcept AttributeError as error: print(error)").endswith(
        "nothing"
    )
