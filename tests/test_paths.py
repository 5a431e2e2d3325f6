"""What the names of local files and folders mean: ``~`` is the home folder, and relative paths hold after ``os.chdir``."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import CORPUS, calibrated, done, write_lines, write_search
from text2token import Embedder, Recipe, UserError
from text2token.analysis import align, read_dynamics, write_alignment
from text2token.data import open_corpus, read_table
from text2token.evaluation import (
    compare,
    evaluate,
    read_qrels,
    read_summary,
    saved_model,
    select_tasks,
    write_comparison,
)
from text2token.search import Document, EncodedShards, Index, ShardJob, encode_shards, read_documents
from text2token.search.engines.addresses import full_address, stored_address
from text2token.settings import DistillSettings, RunRecord
from text2token.training import adapt, distill
from text2token.utils.files import local_path
from text2token.utils.places import open_place

FAST = DistillSettings(spans=0, epochs=0)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The home folder. The current folder is another one, where nothing may be written."""
    (tmp_path / "home").mkdir()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "elsewhere")
    yield tmp_path / "home"
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_tilde_before_what_is_no_user_stays(home):
    assert local_path("~/file") == local_path(Path("~/file")) == open_place("~/file") == home / "file"
    assert local_path("~no-such-user.txt") == Path("~no-such-user.txt")
    with pytest.raises(UserError, match="There is no backbone at '~no-such-user/x'"):
        Embedder.open("~no-such-user/x")


def test_runs_write_to_the_home_folder(home, backbone):
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60)
    adapt(CORPUS, "~/adapted", recipe)
    distill("~/adapted", CORPUS, Path("~/adapted/student"), FAST)
    assert RunRecord.read("~/adapted/run.json").verb == "adapt"
    with pytest.raises(UserError, match="The output '/"):
        adapt(CORPUS, "~/adapted", recipe)
    assert (home / "adapted" / "student" / "run.json").is_file()


def test_models_and_indexes_are_kept_in_the_home_folder(home, backbone):
    embedder = calibrated(backbone("llama"))
    embedder.save("~/model")
    distill("~/model", CORPUS, "~/student", FAST)
    made = Index.create("~/index", "~/model", query_model="~/student")
    made.add([Document("1", "", "The cat sat on the mat.")])
    made.close()
    opened = Index.open("~/index", model="~/model")
    assert opened.has_student
    assert [hit.id for hit in opened.search("cat").hits] == ["1"]
    assert {folder.name for folder in home.glob("[!.]*")} == {"model", "student", "index"}


def test_files_are_read_from_the_home_folder(home, backbone):
    write_lines(home / "docs" / "docs.jsonl", [{"_id": "1", "text": "One."}, {"_id": "2", "text": "Two."}])
    (home / "qrels.tsv").write_text("q\td\t1\n")
    (home / "recipe.yaml").write_text("seed: 3\n")
    for name in ("~/docs/docs.jsonl", "~/docs", "~/docs/*.jsonl", Path("~/docs")):
        assert list(open_corpus(name)) == ["One.", "Two."]
    assert len(list(read_table(Path("~/docs/docs.jsonl")))) == len(list(read_documents("~/docs/docs.jsonl"))) == 2
    assert read_qrels("~/qrels.tsv") == {"q": {"d": 1}}
    assert Recipe.load("~/recipe.yaml").seed == 3
    encode_shards(ShardJob(backbone("llama"), "~/docs/docs.jsonl", "~/shards", 2))
    assert EncodedShards.open("~/shards").record.documents == 2


def test_evaluations_and_figures_are_in_the_home_folder(home, backbone):
    embedder = calibrated(backbone("llama"))
    embedder.save("~/model")
    write_search(home / "task")
    evaluate(saved_model("~/model"), select_tasks(folders=["~/task"]), "~/results", vectors="~/vectors/file.sqlite")
    assert read_summary("~/results")["model"] == "model"
    write_comparison(compare(["~/results"]), "~/compared")
    write_alignment({"model": align(embedder, CORPUS[:5])}, {"k": 10}, "~/aligned")
    with pytest.raises(UserError, match=str(home)):
        read_dynamics("~/missing")
    assert {"results", "vectors", "compared", "aligned"} < {folder.name for folder in home.iterdir()}


def test_the_command_line_means_the_same(home, backbone):
    calibrated(backbone("llama")).save(home / "model")
    write_lines(home / "docs.jsonl", [{"_id": "1", "text": "One."}])
    done("index", "~/model", "~/docs.jsonl", "--output=~/index")
    assert len(Index.open(home / "index")) == 1


def test_a_relative_path_holds_in_another_folder(tmp_path, backbone, monkeypatch):
    (tmp_path / "work").mkdir()
    shutil.copytree(backbone("llama"), tmp_path / "work" / "llama")
    write_lines(tmp_path / "work" / "docs.jsonl", [{"_id": "1", "text": "The cat sat on the mat."}])
    monkeypatch.chdir(tmp_path / "work")
    embedder = Embedder.open("llama", max_length=64)
    job = ShardJob("llama", "docs.jsonl", "shards", 1)
    calibrated("llama").save("model")
    made = Index.create("index", "model")
    made.add([Document("1", "", "The cat sat on the mat.")])
    shutil.move("model", "moved")
    index = Index.open("index", model="moved")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert embedder.with_settings(max_length=32).max_length == 32
    assert [hit.id for hit in index.search("cat", mode="dense").hits] == ["1"]
    assert encode_shards(job) == 1
    monkeypatch.chdir(tmp_path / "work")
    shards = EncodedShards.open("shards")
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert [document.id for batch in shards.documents(10) for document in batch.documents] == ["1"]


def test_the_file_of_an_engine_is_in_the_home_folder(home):
    assert stored_address("milvus", "~/vectors.db") == full_address("~/vectors.db") == str(home / "vectors.db")
    assert full_address("http://user:word@host") == "http://user:word@host"
