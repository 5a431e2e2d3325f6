"""The folder that the peer of our server gets: what ``fit`` wrote, with the settings of RoPE where older versions read them."""

from __future__ import annotations

import json

from sentence_transformers import SentenceTransformer

import infinity
from conftest import SENTENCES
from text2token import Embedder


def test_a_folder_of_fit_gets_the_settings_of_rope_in_both_places(model_folder, tmp_path):
    copy = infinity.flat_form(model_folder / "dense", tmp_path / "dense")
    written = json.loads((model_folder / "dense" / "config.json").read_text(encoding="utf-8"))
    assert json.loads((copy / "config.json").read_text(encoding="utf-8")) == written | written["rope_parameters"]
    embeddings = SentenceTransformer(str(copy)).encode(SENTENCES)
    assert (embeddings == Embedder.open(model_folder / "dense").encoder.encode(SENTENCES)).all()
