"""Words that a setting does not know are refused by name, also in Python, where no command line checks them."""

from __future__ import annotations

import pytest

from conftest import untrained
from text2token import Embedder, UserError
from text2token.search import Document, Index


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
    from text2token.model.backbone import from_anywhere

    monkeypatch.chdir(tmp_path)
    for name in ("smollm2-135m", "all-minilm-l6-v2", "model"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert [from_anywhere(name) for name in ("smollm2-135m", "all-minilm-l6-v2")] == [
        "smollm2-135m",
        "all-minilm-l6-v2",
    ]
    assert from_anywhere("model") == from_anywhere("~/model") == str(tmp_path / "model")
