"""The settings in saved folders are those that older versions of sentence-transformers and other servers read."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from conftest import CORPUS, SENTENCES, calibrated, untrained
from text2token import Embedder, UserError
from text2token.model.fingerprint import embedder_fingerprint


def read(file):
    return json.loads(file.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("pooling", "flag"),
    [
        ("mean", "pooling_mode_mean_tokens"),
        ("last", "pooling_mode_lasttoken"),
        ("weighted-mean", "pooling_mode_weightedmean_tokens"),
    ],
)
def test_settings_have_the_classic_form(backbone, tmp_path, pooling, flag):
    embedder = untrained(backbone("bert"), pooling=pooling, max_length=48)
    embedder.calibrate(CORPUS, ["whiten"])
    embedder.save(tmp_path)
    classic = "sentence_transformers.models."
    modules = {
        part: [entry["type"] for entry in read(tmp_path / part / "modules.json")] for part in ("dense", "sparse")
    }
    assert modules["dense"] == [classic + kind for kind in ("Transformer", "Pooling", "Dense", "Normalize")]
    assert modules["sparse"] == [
        classic + kind for kind in ("Transformer", "Pooling", "Dense", "Dense", "LayerNorm", "Dense")
    ]
    settings = read(tmp_path / "dense" / "1_Pooling" / "config.json")
    assert [name for name, value in settings.items() if value is True and name != "include_prompt"] == [flag]
    assert settings["word_embedding_dimension"] == 32
    lengths = read(tmp_path / "dense" / "sentence_bert_config.json")
    assert lengths == {"max_seq_length": 48, "do_lower_case": False}
    assert set(read(tmp_path / "dense" / "2_Dense" / "config.json")) == {
        "in_features",
        "out_features",
        "bias",
        "activation_function",
    }
    plain = SentenceTransformer(str(tmp_path / "dense"))
    assert plain.max_seq_length == 48
    np.testing.assert_allclose(plain.encode(SENTENCES), embedder.encode(SENTENCES), atol=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "bert", "modernbert"])
def test_a_finished_embedder_is_the_one_in_its_folder(backbone, tmp_path, family):
    made = calibrated(backbone(family))
    made.save(tmp_path / "model")
    finished, opened = made.finished(), Embedder.open(tmp_path / "model")
    assert embedder_fingerprint(finished, corrected=False) == embedder_fingerprint(opened, corrected=False)
    assert embedder_fingerprint(made, corrected=False) != embedder_fingerprint(opened, corrected=False)
    for again in (finished, opened):
        assert embedder_fingerprint(again.finished()) == embedder_fingerprint(opened)
    for one, other in zip(finished.encode_sparse(SENTENCES), opened.encode_sparse(SENTENCES), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(finished.encode(SENTENCES), made.encode(SENTENCES), atol=1e-6)


def test_prompts_stay_with_the_model(backbone, tmp_path):
    made = calibrated(backbone("llama"))
    made.encoder.prompts, made.encoder.default_prompt_name = {"query": "find ", "document": "read "}, "query"
    made.calibrate(CORPUS[:40])
    made.save(tmp_path)
    expected, opened = made.encode(SENTENCES), Embedder.open(tmp_path)
    np.testing.assert_allclose(opened.encode(SENTENCES), expected, atol=1e-6)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "dense")).encode(SENTENCES), expected, atol=1e-6)
    weights = opened.encode_sparse(SENTENCES).weights
    np.testing.assert_allclose(weights, made.encode_sparse(SENTENCES).weights, atol=1e-5)
    assert opened.encoder.prompts == made.encoder.prompts
    made.encoder.default_prompt_name = None
    assert abs(made.encode(SENTENCES) - expected).max() > 1e-3


def test_another_head_has_no_corpus_mean(backbone, tmp_path):
    calibrated(backbone("llama")).save(tmp_path / "home" / "model")
    opened = Embedder.open(tmp_path / "home" / "model", head=backbone("llama"))
    with pytest.raises(UserError, match="this model knows none"):
        opened.encode_sparse(SENTENCES)


def test_a_home_folder_is_found_with_all_its_parts(backbone, tmp_path, monkeypatch):
    calibrated(backbone("llama")).save(tmp_path / "model")
    monkeypatch.setenv("HOME", str(tmp_path))
    opened = Embedder.open("~/model", head="original")
    assert opened.correction is not None
    assert opened.mean_logits is not None
