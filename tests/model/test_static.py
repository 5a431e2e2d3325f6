"""The static baseline: rows of the decoding head, weighted by idf, averaged."""

from __future__ import annotations

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from conftest import CORPUS, SENTENCES
from text2token import UserError
from text2token.model.backbone import load_head
from text2token.model.static import inverse_document_frequency, static_embedder


def test_weights_fall_with_the_number_of_texts_that_hold_a_token():
    weights = inverse_document_frequency([[0, 0, 1], [0], [2, 0]], 3, 4)
    assert weights == pytest.approx([np.log(4 / 4) + 1, np.log(4 / 2) + 1, np.log(4 / 2) + 1, np.log(4 / 1) + 1])


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_vector_is_the_weighted_mean_of_rows(backbone, family, tmp_path):
    embedder = static_embedder(backbone(family), CORPUS)
    rows = load_head(backbone(family)).weight.numpy()
    rows = rows - rows.mean(axis=0)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    tokenizer = AutoTokenizer.from_pretrained(backbone(family))
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in SENTENCES]
    held = [set(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in CORPUS]
    expected = [
        np.mean(
            [rows[i] * (np.log((1 + len(CORPUS)) / (1 + sum(i in text for text in held))) + 1) for i in row], axis=0
        )
        for row in ids
    ]
    np.testing.assert_allclose(embedder.embed(SENTENCES).numpy(), expected, atol=1e-5)
    embedder.encoder.save(str(tmp_path / "m"), create_model_card=False)
    np.testing.assert_allclose(SentenceTransformer(str(tmp_path / "m")).encode(SENTENCES), expected, atol=1e-5)


def test_it_needs_texts(backbone):
    with pytest.raises(UserError, match="give a `corpus`"):
        static_embedder(backbone("llama"), [])
