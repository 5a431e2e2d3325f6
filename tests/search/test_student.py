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
from text2token.model import query_training
from text2token.model.query_table import QUERY, QueryTable
from text2token.search import Document, Index
from text2token.search.store import DocumentStore
from text2token.search.student import keep_lessons
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


def rows_of(folder):
    return QueryTable.open(folder / QUERY).rows


def agreement(rows, tokenizer, model):
    """Mean cosine with the dense vectors of the documents."""
    ids = [tokenizer.encode(text, add_special_tokens=False).ids for text in SENTENCES]
    pooled = np.array([rows.dense[own].astype(np.float32).mean(axis=0) for own in ids])
    return (
        (pooled / np.linalg.norm(pooled, axis=1, keepdims=True) * Embedder.open(model).encode(SENTENCES)).sum(1).mean()
    )


def test_queries_have_the_students_vectors_and_documents_the_models(model, index):
    opened, teacher = Index.open(index), Embedder.open(model)
    assert opened.has_student
    table = QueryTable.open(index / QUERY)
    ids = table.tokenizer.encode(QUERY_TEXT, add_special_tokens=False).ids
    pooled = table.rows.dense[ids].astype(np.float32).mean(axis=0)
    vector = opened.query_vectors([QUERY_TEXT])["dense"][0]
    np.testing.assert_allclose(vector, pooled / np.linalg.norm(pooled), atol=1e-6)
    by_model = Index.open(index, query_model="none")
    assert not by_model.has_student
    np.testing.assert_allclose(by_model.query_vectors([QUERY_TEXT])["dense"], teacher.encode([QUERY_TEXT]), atol=1e-5)
    best = [hit.id for hit in by_model.search(SENTENCES[3], k=1, mode="dense").hits]
    assert best == ["3"]


def test_a_student_alone_is_the_model_of_an_index(model, tmp_path):
    long = "\n\n".join(SENTENCES * 20)
    documents = [*DOCUMENTS, Document("long", "", long)]
    made = Index.create(tmp_path / "index", model / "student")
    made.add(documents)
    made.close()
    opened, student = Index.open(tmp_path / "index"), Embedder.open(model / "student")
    assert not opened.has_student
    cosines = student.encode([QUERY_TEXT]) @ student.encode([*SENTENCES, long]).T
    hits = opened.search(QUERY_TEXT, k=len(documents), mode="dense").hits
    found = {hit.id: hit.score for hit in hits}
    expected = {document.id: cosine for document, cosine in zip(documents, cosines[0].tolist(), strict=True)}
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-5)
    assert [hit.id for hit in hits] == sorted(found, key=found.__getitem__, reverse=True)
    assert opened.search(SENTENCES[3], k=1).hits[0].id == "3"


def test_the_student_learns_the_documents_of_the_index(model, index):
    before, table = rows_of(model / "student"), QueryTable.open(index / QUERY)
    assert table.documents == len(DOCUMENTS)
    assert table.sha256 == QueryTable.open(model / "student" / QUERY).sha256
    assert agreement(table.rows, table.tokenizer, model) > agreement(before, table.tokenizer, model) + 0.05
    read = table.tokenizer.encode_batch(SENTENCES, add_special_tokens=False)
    unread = sorted(set(range(len(before.dense))).difference(*(row.ids for row in read)))
    np.testing.assert_array_equal(table.rows.dense[unread], before.dense[unread])
    np.testing.assert_array_equal(table.rows.ids, before.ids)
    np.testing.assert_array_equal(table.rows.weights, before.weights)
    assert Index.open(index)._store.lessons()[0] == []


@pytest.mark.parametrize("lost", [False, True], ids=["whole", "lost"])
def test_a_build_that_is_killed_while_the_student_learns_gives_the_same_student(
    model, index, tmp_path, monkeypatch, lost
):
    made = Index.create(tmp_path / "index", model)
    with monkeypatch.context() as patched:
        patched.setattr(query_training, "train_on_documents", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            made.add(DOCUMENTS)
    made.close()
    if lost:  # killed between the renames that replace it
        (tmp_path / "index" / QUERY).rename(tmp_path / "index" / f"{QUERY}.old")
    again = Index.create(tmp_path / "index", model)
    again.add(DOCUMENTS)
    np.testing.assert_array_equal(rows_of(tmp_path / "index").dense, rows_of(index).dense)
    assert again._vectorizer.student.documents == len(DOCUMENTS)


def test_a_student_of_an_earlier_calibration_is_refused(model, tmp_path):
    embedder = Embedder.open(model)
    embedder.calibrate(CORPUS[40:80])
    with pytest.raises(UserError, match="before its last calibration"):
        Index.create(tmp_path / "index", model, embedder=embedder)
    assert Index.create(tmp_path / "other", model, embedder=Embedder.open(model)).has_student


def test_a_student_of_an_embedder_is_one_of_its_saved_folder(backbone, tmp_path):
    embedder = calibrated(backbone("llama"))
    embedder.save(tmp_path / "model")
    distill(embedder, CORPUS, tmp_path / "model" / "student", DistillSettings(spans=0, epochs=0))
    assert Index.create(tmp_path / "index", tmp_path / "model").has_student
    assert Index.create(tmp_path / "other", tmp_path / "model", embedder=embedder).has_student


def test_documents_without_a_token_teach_nothing(model):
    table = QueryTable.open(model / "student" / QUERY)
    taught = query_training.train_on_documents(table, ["", ""], np.zeros((2, table.rows.dense.shape[1]), np.float32))
    np.testing.assert_array_equal(taught.rows.dense, table.rows.dense)


def test_later_documents_leave_the_student_as_it_is(index, tmp_path):
    shutil.copytree(index, tmp_path / "index")
    Index.open(tmp_path / "index").add([Document("new", "", "a text about whales")])
    np.testing.assert_array_equal(rows_of(tmp_path / "index").dense, rows_of(index).dense)
    assert Index.open(tmp_path / "index")._store.lessons()[0] == []


def test_a_large_index_teaches_a_sample(tmp_path, monkeypatch):
    store = DocumentStore(tmp_path / "store")
    names = [f"document {number}" for number in range(1_000)]
    store.set(documents=1_000)
    store.put(Document(name, "", name) for name in names)
    monkeypatch.setattr("text2token.search.student._LEARNT", 100)
    keep_lessons(store, names, np.eye(1_000, 4, dtype=np.float32))
    texts, vectors = store.lessons()
    assert len(texts) == len(vectors) == pytest.approx(100, abs=40)
    assert set(texts) < set(names)


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
    from text2token.search import index_model

    shutil.copytree(model, tmp_path / "model")
    made = Index.create(tmp_path / "index", tmp_path / "model", query_model="none")
    made.add(DOCUMENTS[:3])
    made.close()
    before = ranked(tmp_path / "index")  # reads the weights and keeps the stamps of their files

    def read(_):
        raise AssertionError("the weights are read")

    with monkeypatch.context() as patched:
        patched.setattr(index_model, "known_fingerprints", read)
        assert ranked(tmp_path / "index") == before
    weights = tmp_path / "model" / "sparse" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 64  # the sign or size of one number
    weights.write_bytes(content)
    with pytest.raises(UserError, match="made by another model"):
        ranked(tmp_path / "index")


def test_a_short_query_needs_no_splitter_and_is_the_same_part(model):
    from text2token.search.splitting import PartSplitter

    splitter = PartSplitter(Embedder.open(model).tokenizer, 64)
    assert splitter.parts("  the cat ") == splitter._cut("  the cat ") == ["the cat"]
    assert splitter.parts("  ") == splitter._cut("  ") == []
