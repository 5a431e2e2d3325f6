"""A student as the query side of an index: documents keep the vectors of the model, and a search needs no torch."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from conftest import CORPUS, SENTENCES, calibrated, done, refused, text2token, write_lines
from text2token import Embedder, UserError
from text2token.model.query_table import QUERY
from text2token.search import Document, Index
from text2token.settings.distillation import DistillSettings
from text2token.training.distillation import distill

QUERY_TEXT = "stars of the galaxy"
DOCUMENTS = [Document(str(number), "", text) for number, text in enumerate(SENTENCES)]


@pytest.fixture(scope="module")
def model(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("taught") / "model"
    calibrated(backbone("llama")).save(folder)
    distill(folder, CORPUS, folder / "student", DistillSettings(spans=1, epochs=1, batch_size=32))
    return folder


@pytest.fixture(scope="module")
def other_student(backbone, tmp_path_factory):
    """A student of the same backbone under another template, so of another model."""
    folder = tmp_path_factory.mktemp("other")
    calibrated(backbone("llama"), pooling="last").save(folder / "model")
    distill(folder / "model", CORPUS, folder / "student", DistillSettings(spans=0, epochs=0))
    return folder / "student"


@pytest.fixture(scope="module")
def index(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("index") / "index"
    made = Index.create(folder, model)
    made.add(DOCUMENTS)
    made.close()
    return folder


def ranked(folder, **options):
    return [hit.id for hit in Index.open(folder, **options).search(QUERY_TEXT, k=5).hits]


def test_queries_have_the_students_vectors_and_documents_the_models(model, index):
    opened = Index.open(index)
    student, teacher = Embedder.open(model / "student"), Embedder.open(model)
    assert opened.has_student
    np.testing.assert_allclose(opened.query_vectors([QUERY_TEXT])["dense"], student.encode([QUERY_TEXT]), atol=2e-3)
    by_model = Index.open(index, query_model="none")
    assert not by_model.has_student
    np.testing.assert_allclose(by_model.query_vectors([QUERY_TEXT])["dense"], teacher.encode([QUERY_TEXT]), atol=1e-5)
    best = [hit.id for hit in by_model.search(SENTENCES[3], k=1, mode="dense").hits]
    assert best == ["3"]


def test_aligned_tokens_of_the_student_have_the_largest_weight_one(index):
    opened = Index.open(index)
    space = opened._vectorizer._tokens.space
    found = space.strongest(opened._vectorizer.student.encode([QUERY_TEXT])[1], 16)
    assert found.nnz <= 16
    assert found.data.max() == pytest.approx(1)
    assert space.meaningful[found.indices].all()


def test_the_index_needs_neither_model_nor_student_to_search(index, model, tmp_path):
    before = ranked(index)
    moved = tmp_path / "gone"
    shutil.move(model, moved)
    try:
        assert ranked(index) == before
    finally:
        shutil.move(moved, model)


def test_a_search_with_a_student_imports_no_torch(index):
    code = (
        "import sys; from text2token.cli import main; sys.argv = ['text2token', *sys.argv[1:]]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'sentence_transformers') if name in sys.modules], file=sys.stderr)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, "search", str(index), QUERY_TEXT], capture_output=True, text=True
    )
    assert found.stderr.splitlines()[-1] == "[]"
    assert "student of the index" in found.stderr


def test_without_its_student_an_index_has_none(model, tmp_path):
    made = Index.create(tmp_path / "index", model, query_model="none")
    assert not made.has_student
    assert not (tmp_path / "index" / QUERY).exists()


def test_a_student_of_another_model_is_refused(model, other_student, index, tmp_path):
    with pytest.raises(UserError, match="distilled from another model"):
        Index.create(tmp_path / "index", model, query_model=str(other_student))
    assert not (tmp_path / "index").exists()
    with pytest.raises(UserError, match="is not that of the index"):
        Index.open(index, query_model=str(other_student))
    with pytest.raises(UserError, match="holds no student"):
        Index.create(tmp_path / "index", model, query_model=str(tmp_path))
    assert Index.open(index, query_model=str(model / "student")).has_student


def test_an_unfinished_index_keeps_its_student(model, tmp_path, monkeypatch):
    made = Index.create(tmp_path / "index", model)
    monkeypatch.setattr(type(made._vectorizer), "documents", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        made.add(DOCUMENTS)
    made.close()
    with pytest.raises(UserError, match="another query model"):
        Index.create(tmp_path / "index", model, query_model="none")


def test_a_damaged_student_is_told(index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    (tmp_path / "index" / QUERY / "dense.npy").write_bytes(b"")
    with pytest.raises(UserError, match="damaged"):
        Index.open(tmp_path / "index")
    assert not Index.open(tmp_path / "index", query_model="none").has_student


def test_the_verbs(model, tmp_path):
    write_lines(tmp_path / "docs.jsonl", [{"_id": str(n), "text": text} for n, text in enumerate(SENTENCES)])
    done("index", model, tmp_path / "docs.jsonl", "--output", tmp_path / "index")
    said = text2token("search", tmp_path / "index", QUERY_TEXT, "--json")
    assert "student of the index" in said.stderr
    assert json.loads(said.stdout)
    assert "student" not in text2token("search", tmp_path / "index", QUERY_TEXT, "--query-model", "none").stderr
    assert "--precision" in refused("search", tmp_path / "index", QUERY_TEXT, "--precision", "bf16")
    assert "--query-model" in refused("index", "--output", tmp_path / "index", "--delete", "1", "--query-model", "none")


def test_unchanged_files_are_not_read_for_a_checksum_again(model, tmp_path, monkeypatch):
    from text2token.search import encoder

    shutil.copytree(model, tmp_path / "model")
    made = Index.create(tmp_path / "index", tmp_path / "model", query_model="none")
    made.add(DOCUMENTS[:3])
    made.close()
    before = ranked(tmp_path / "index")  # reads the weights and keeps the stamps of their files

    def read(_):
        raise AssertionError("the weights are read")

    with monkeypatch.context() as patched:
        patched.setattr(encoder, "known_fingerprints", read)
        assert ranked(tmp_path / "index") == before
    weights = tmp_path / "model" / "sparse" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 64  # the sign or size of one number
    weights.write_bytes(content)
    with pytest.raises(UserError, match="made by another model"):
        ranked(tmp_path / "index")


def test_a_short_query_needs_no_splitter_and_is_the_same_part(model):
    from text2token.search.encoder import TextEncoder

    texts = TextEncoder(Embedder.open(model), "query")
    assert texts.parts("  the cat ") == texts._cut("  the cat ") == ["the cat"]
    assert texts.parts("  ") == texts._cut("  ") == []
