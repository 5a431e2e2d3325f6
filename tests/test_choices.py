"""Settings are checked in Python, too, where no command line does it, and before any work."""

from __future__ import annotations

import shutil

import pytest

from conftest import CORPUS, SENTENCES, calibrated, untrained
from text2token import Corpus, Embedder, UserError
from text2token.analysis import align, explain_instructions, explain_pair, run_spectrum
from text2token.analysis.alignment import AlignmentSettings
from text2token.search import Document, Index, ShardJob
from text2token.settings import Calibration, DistillSettings
from text2token.training import distill


@pytest.mark.parametrize("precision", ["float32", "fp16", "", None])
def test_a_precision_that_there_is_not(backbone, precision):
    embedder = untrained(backbone("llama"))
    with pytest.raises(UserError, match=r"`precision` is .* choose among auto, fp32, bf16"):
        embedder.use_precision(precision)
    assert embedder.precision == "fp32"


def test_an_attention_that_there_is_not(backbone):
    with pytest.raises(UserError, match="`attention` is 'foo': choose among own, causal, bidirectional"):
        Embedder.open(backbone("llama"), attention="foo")


def test_an_engine_and_a_mode_that_there_are_not(backbone, tmp_path):
    with pytest.raises(UserError, match="`engine` is 'faiss': choose among embedded"):
        Index.create(tmp_path / "other", backbone("llama"), engine="faiss")
    assert not (tmp_path / "other").exists()
    index = Index.create(tmp_path / "index", backbone("llama"))
    assert index.search("cat", mode="bm25").hits == []  # there are no documents yet
    index.add([Document("1", "", "The cat sat on the mat.")])
    with pytest.raises(UserError, match="`mode` is 'Dense': choose among hybrid, sparse, dense, bm25"):
        index.search("cat", mode="Dense")


def test_a_folder_with_the_name_of_a_packaged_model_is_another_thing(monkeypatch, tmp_path):
    from text2token.model.names import from_anywhere

    monkeypatch.chdir(tmp_path)
    for name in ("smollm2-135m", "all-minilm-l6-v2", "model"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [from_anywhere(name) for name in ("smollm2-135m", "all-minilm-l6-v2")] == [
        "smollm2-135m",
        "all-minilm-l6-v2",
    ]
    assert from_anywhere("model") == from_anywhere("~/model") == str(tmp_path / "model")


def test_a_packaged_name_is_neither_a_folder_here_nor_has_its_student(backbone, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    shutil.copytree(backbone("llama"), tmp_path / "cache" / "backbones" / "smollm2-135m")
    calibrated(backbone("qwen3")).save("smollm2-135m")
    distill("./smollm2-135m", CORPUS, "smollm2-135m/student", DistillSettings(spans=0, epochs=0))
    assert Embedder.open("smollm2-135m").backbone == "smollm2-135m"
    assert Embedder.open("./smollm2-135m").backbone is None
    assert not Index.create("packaged", "smollm2-135m").has_student
    assert Index.create("own", "./smollm2-135m").has_student


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"correction": "center"}, "no correction 'center'"),
        ({"keep_from": 0.9, "keep_to": 0.1}, "must be below keep_to"),
        ({"keep_to": 1.5}, "keep_to"),
        ({"texts": 0}, "texts"),
    ],
)
def test_a_calibration_that_cannot_be_learnt(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        Calibration(**settings)


def test_numbers_below_1(tmp_path, backbone):
    for setting in ("shards", "batch_size"):
        with pytest.raises(UserError, match=f"`{setting}` is 0"):
            ShardJob("m", tmp_path / "d.jsonl", tmp_path / "out", **{"shards": 2, setting: 0})
    with pytest.raises(UserError, match=r"`max_length` is 64\.5"):
        Embedder.open(backbone("llama"), max_length=64.5)


def test_a_sample_of_no_documents_and_a_spectrum_of_no_texts(index_folder, backbone, tmp_path):
    for size in (0, -1):
        with pytest.raises(UserError, match=f"`size` is {size}"):
            Index.open(index_folder).sample(size)
    models = (untrained(backbone("llama")),) * 2
    for setting in ("aligned", "max_texts"):
        with pytest.raises(UserError, match=f"`{setting}` is 0"):
            run_spectrum(models, Corpus.from_texts(SENTENCES), tmp_path / "spectrum", {}, **{setting: 0})


def test_forms_that_there_are_not(backbone):
    with pytest.raises(UserError, match="`forms` is 'merge': choose among ids, merged"):
        align(untrained(backbone("llama")), SENTENCES, AlignmentSettings(forms="merge"))


def test_a_pair_is_two_texts(backbone):
    embedder = untrained(backbone("llama"))
    with pytest.raises(UserError, match="A pair is two texts, not 3"):
        explain_pair(embedder, SENTENCES[:3])
    with pytest.raises(UserError, match="write \\[text\\]"):
        explain_pair(embedder, "ab")


def test_one_document_in_place_of_a_list(backbone, tmp_path):
    index = Index.create(tmp_path / "index", backbone("llama"))
    with pytest.raises(UserError, match="not a Document alone: write \\[document\\]"):
        index.add(Document("1", "", "The cat sat on the mat."))


def test_one_text_in_place_of_a_list(backbone, tmp_path):
    embedder = untrained(backbone("llama"))
    with pytest.raises(UserError, match="write \\[text\\]"):
        explain_instructions(embedder, "The cat sat.", "Is it")
    index = Index.create(tmp_path / "index", backbone("llama"))
    index.add([Document("1", "", "The cat caf\u00e9.")])
    with pytest.raises(UserError, match="write \\[text\\]"):
        index.query_vectors("cat")
    with pytest.raises(UserError, match="None"):
        index.search(None)
    composed, decomposed = (
        index.query_vectors([text], "bm25")["bm25"].toarray() for text in ("caf\u00e9", "cafe\u0301")
    )
    assert composed.any()
    assert (composed == decomposed).all()


def test_an_empty_instruction_leaves_the_bare_text(backbone):
    embedder = untrained(backbone("llama"))
    explained = explain_instructions(embedder, "The cat sat.", ["", "Is it"])
    assert list(explained) == ["", "Is it"]
    assert explained[""] == explain_instructions(embedder, "The cat sat.", [])[""]
