"""Teachers: which models can be one, what they read, and their vectors in the target store."""

from __future__ import annotations

import shutil
from dataclasses import replace

import numpy as np
import pytest

from conftest import CORPUS, untrained
from text2token import UserError
from text2token.model.folders import save_plain
from text2token.targets import store
from text2token.targets.base import Targets
from text2token.targets.store import build_store
from text2token.targets.teacher import Teacher

LENGTH = 12


class ByLength:
    """A target of one token, and none for texts that begin with 'Stars'."""

    def __init__(self):
        self.settings = {"builder": "length"}

    def __call__(self, texts):
        ids = [np.array([] if text.startswith("Stars") else [len(text)], np.int32) for text in texts]
        return Targets(ids, [np.ones(len(row), np.float32) for row in ids])


@pytest.fixture
def teacher(bert_folder):
    return Teacher.open(str(bert_folder), LENGTH)


@pytest.fixture(scope="module")
def student(backbone):
    return untrained(backbone("llama"))


def test_it_reads_as_much_as_the_student(teacher, student):
    ids = student.tokenizer(CORPUS[0])["input_ids"]
    assert len(ids) > LENGTH
    begins = student.tokenizer.decode(ids[:LENGTH])
    assert CORPUS[0].startswith(begins)
    vectors = teacher([CORPUS[0], begins, CORPUS[0] + " More.", "A cat."], student.tokenizer)
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors[:3], vectors[[0, 0, 0]])
    np.testing.assert_allclose(vectors[3], teacher.embedder.encode(["A cat."])[0], atol=1e-3)


def test_any_finished_embedder_can_be_one(model_folder):
    whole, dense = (Teacher.open(str(place), LENGTH) for place in (model_folder, model_folder / "dense"))
    np.testing.assert_allclose(whole.embedder.encode(CORPUS[:3]), dense.embedder.encode(CORPUS[:3]), atol=1e-5)


def test_other_models_are_refused_in_one_sentence(backbone, model_folder, tmp_path):
    dot = tmp_path / "dot"
    encoder = untrained(backbone("bert")).encoder
    encoder.similarity_fn_name = "dot"
    encoder.save(str(dot))
    for name, sentence in {
        str(tmp_path / "missing"): "is not a finished embedder",
        backbone("llama"): "is not a finished embedder",
        str(model_folder / "sparse"): "is a SparseEncoder",
        str(dot): "made for the similarity dot",
    }.items():
        with pytest.raises(UserError, match=sentence) as error:
            Teacher.open(name, LENGTH)
        assert name in str(error.value)
        assert "\n" not in str(error.value)


def test_the_fingerprint_is_that_of_the_weights(backbone, bert_folder, tmp_path):
    shutil.copytree(bert_folder, tmp_path / "copy")
    save_plain(untrained(backbone("modernbert")).encoder, tmp_path / "other")
    same, other = (Teacher.open(str(tmp_path / name), LENGTH).facts for name in ("copy", "other"))
    first = Teacher.open(str(bert_folder), LENGTH).facts
    assert (first.name, first.fingerprint) == (str(bert_folder), same.fingerprint)
    assert other.fingerprint != same.fingerprint


def test_a_store_keeps_the_vector_of_each_text_and_makes_it_once(teacher, student, tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_SHARD", 50)
    read: list[str] = []

    def counting(self, texts, reader):
        if len(read) == 50:
            read.append("killed")
            raise KeyboardInterrupt
        read.extend(texts)
        return encode(self, texts, reader)

    encode = Teacher.__call__
    monkeypatch.setattr(Teacher, "__call__", counting)
    arguments = (tmp_path / "targets", CORPUS, ByLength(), student)
    with pytest.raises(KeyboardInterrupt):
        build_store(*arguments, teacher=teacher)
    built = build_store(*arguments, teacher=teacher)
    read.remove("killed")
    assert read == CORPUS
    expected = encode(teacher, CORPUS, student.tokenizer)
    np.testing.assert_allclose(built.teacher_vectors().numpy(), expected, atol=2e-3)
    rows = {row["text"]: row["teacher"] for table in built.tables() for row in table.to_pylist()}
    assert list(rows) == [text for text in CORPUS if not text.startswith("Stars")]
    for text, vector in zip(CORPUS, expected, strict=True):
        if text in rows:
            np.testing.assert_allclose(rows[text], vector, atol=2e-3)
    with pytest.raises(UserError, match="built with different teacher"):
        build_store(*arguments, teacher=replace(teacher, train_length=LENGTH + 1))
    with pytest.raises(UserError, match="built with different teacher"):
        build_store(*arguments)
