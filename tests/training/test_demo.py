"""The demonstration on a tiny backbone."""

from __future__ import annotations

import errno
import json

import pytest
from click.testing import CliRunner

from conftest import SENTENCES, untrained
from text2token import Recipe, UserError
from text2token.cli import main
from text2token.data.docstrings import Docstring
from text2token.search import Index, read_documents
from text2token.training import demo
from text2token.utils import files

ROWS = [
    Docstring(
        f"package.module{i}.name{j}", f"{text} Case {i} of {j}.", f"Details {i} {j}: {SENTENCES[(j + 1) % 10]} {text}"
    )
    for i in range(110)
    for j, text in enumerate(SENTENCES)
]
ANSWER = Docstring(
    "numpy.vstack",
    "Stack arrays in sequence vertically (row wise).",
    "This is equivalent to concatenation along the first axis.",
)


@pytest.fixture(autouse=True)
def _rows(monkeypatch):
    monkeypatch.setattr(demo, "installed_docstrings", lambda: [*ROWS, ANSWER])


def no_index(folder, embedder):
    """In place of the index, which the command makes."""


def test_split_keeps_answers_held_out_and_nothing_leaks():
    data = demo.demo_data(pool=50)
    assert ANSWER in data.held_out
    assert len(data.held_out) == 50
    assert len(data.texts) + 50 == len(ROWS) + 1
    assert not {f"{d.summary} {d.body}" for d in data.held_out} & set(data.texts)
    assert demo.demo_data(pool=50) == data


def test_too_few_docstrings_is_one_sentence(monkeypatch):
    monkeypatch.setattr(demo, "installed_docstrings", lambda: ROWS[:10])
    with pytest.raises(UserError, match="Only 10 docstrings"):
        demo.demo_data()


def test_an_output_that_cannot_be_written_is_refused_before_the_work(backbone, tmp_path, monkeypatch):
    def refuse(**_):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(files.tempfile, "TemporaryFile", refuse)
    monkeypatch.setattr(demo, "demo_data", lambda: pytest.fail("the work has begun"))
    with pytest.raises(UserError, match=r"^Cannot write to '.*' \(Permission denied\): choose another folder\.$"):
        demo.run_demo(tmp_path / "model", Recipe(backbone=backbone("llama")), no_index)


def test_known_item_retrieval_of_a_perfect_embedder_is_perfect(backbone):
    embedder = untrained(backbone("llama"))
    same = [Docstring(str(i), text, text) for i, text in enumerate(SENTENCES)]
    assert demo.known_item_retrieval(embedder, same) == {"nDCG@10": pytest.approx(1), "recall@10": 1}


def test_command(backbone, tmp_path):
    options = ["--backbone", backbone("llama"), "--max-texts", "60", "--batch-size", "8", "--calibration-texts", "30"]
    result = CliRunner().invoke(
        main, ["demo", "--output", str(tmp_path / "model"), "--json", *options], catch_exceptions=False
    )
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert set(shown["retrieval"]) == {"plain mean pooling", "same prompt, untrained", "text2token"}
    assert set(shown["answers"]) == set(demo.QUESTIONS)
    assert len(shown["tokens"]) == 5
    assert (tmp_path / "model" / "report.html").is_file()
    documents = list(read_documents(tmp_path / "model" / "docs.jsonl"))
    assert len(documents) > 20
    assert all(document.title and document.text for document in documents)
    index = Index.open(tmp_path / "model" / "index")
    assert len(index) == len(documents)
    assert index.search(ANSWER.summary, 1, "bm25").hits[0].id == ANSWER.name
    assert index.search(ANSWER.summary, 1, "dense").hits  # its model is where the demo put it


def test_a_demo_that_was_killed_before_its_index_trains_and_measures_nothing_again(backbone, tmp_path, monkeypatch):
    def killed(*_):
        raise KeyboardInterrupt

    recipe = Recipe(backbone=backbone("llama"), max_texts=60, batch_size=8, calibration_texts=30)
    with pytest.raises(KeyboardInterrupt):
        demo.run_demo(tmp_path / "model", recipe, killed)
    assert [path.name for path in tmp_path.iterdir()] == [".model.work"]
    with pytest.raises(UserError, match="unfinished run with other settings"):
        demo.run_demo(tmp_path / "model", recipe.model_copy(update={"seed": 1}), no_index)
    for finished in ("fit", "_measure_before"):
        monkeypatch.setattr(demo, finished, lambda *_, **__: pytest.fail("done again"))
    shown = demo.run_demo(tmp_path / "model", recipe, no_index)
    assert set(shown["retrieval"]) == {"plain mean pooling", "same prompt, untrained", "text2token"}
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "docs.jsonl").is_file()
