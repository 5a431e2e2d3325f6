"""Baselines do what their papers say."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoTokenizer

from conftest import SENTENCES
from text2token import Recipe, UserError
from text2token.baselines.echo import echo_embedder
from text2token.evaluation import contender


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_echo_pools_the_second_copy(backbone, family, pooling):
    embedder = echo_embedder(Recipe(backbone=backbone(family), pooling=pooling, max_length=128))
    tokenizer, body = embedder.tokenizer, embedder.encoder[0].model
    text = AutoTokenizer.from_pretrained(backbone(family))(SENTENCES[0], add_special_tokens=False)["input_ids"]
    encoded = tokenizer(SENTENCES[0], return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    starts = [i for i in range(len(ids)) if ids[i : i + len(text)] == text]
    assert len(starts) == 2
    types = encoded["token_type_ids"] if family == "bert" else None
    with torch.no_grad():
        inputs = {"input_ids": encoded["input_ids"]} | ({"token_type_ids": types} if types is not None else {})
        hidden = body(**inputs).last_hidden_state[0]
    copy = hidden[starts[1] : starts[1] + len(text)]
    expected = copy.mean(0) if pooling == "mean" else copy[-1]
    torch.testing.assert_close(embedder.embed(SENTENCES)[0], expected, atol=1e-4, rtol=1e-4)  # in a padded batch


def test_both_copies_are_cut_alike(backbone):
    embedder = echo_embedder(Recipe(backbone=backbone("llama"), max_length=80))
    encoded = embedder.tokenizer(" ".join(SENTENCES * 3), truncation=True)
    types = encoded["token_type_ids"]
    assert len(types) <= 80
    second = [i for t, i in zip(types, encoded["input_ids"], strict=True) if t]
    ids = encoded["input_ids"]
    assert sum(ids[i : i + len(second)] == second for i in range(len(ids))) == 2
    with pytest.raises(UserError, match="no room for a text twice"):
        echo_embedder(Recipe(backbone=backbone("llama"), max_length=16, train_length=8))


def test_echo_is_a_training_free_setting(backbone):
    plain, echo = (
        contender.untrained(backbone("llama"), Recipe(correction="none", template=name, pooling="mean"), None)
        for name in ("none", "echo")
    )
    assert plain.revision != echo.revision
    assert "echo" in echo.name
