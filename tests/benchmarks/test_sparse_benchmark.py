"""The search benchmark on a tiny model: it measures an index as it stands, and keeps what it encoded."""

from __future__ import annotations

import pytest
import torch

import sparse
from collection import Collection
from text2token.search import Document
from text2token.settings.recipe import Recipe

SENTENCES = (
    "a red cat sat on the mat",
    "the dog ran to the vet",
    "a kitten broke its leg",
    "green trees and a blue sky",
)
QUERIES = {"q0": "red cat", "q1": "kitten leg"}
RELEVANT = {"q0": {"0": 1}, "q1": {"2": 1}}


@pytest.fixture
def model(backbone, tmp_path, monkeypatch):
    """A model whose token logits have a mean but whose vectors have no correction, like LLM2Vec's recipe."""
    monkeypatch.setitem(sparse.RECIPES, "m", Recipe(template="none", correction="none", calibration_texts=4))
    return sparse.Model("m", backbone("llama"), tmp_path)


def test_kept_embeddings_equal_new_ones(model):
    kept = model.embedder
    new = super(sparse.KeptEmbedder, kept).embed(SENTENCES)
    for _ in range(2):  # encoded, then read
        assert torch.equal(kept.embed(SENTENCES), new)
    assert kept.embed([]).shape == (0, new.shape[1])


def test_settings_are_scored_on_known_items(model, monkeypatch):
    monkeypatch.setattr(sparse, "SHARES", (0.0, 0.5))
    monkeypatch.setattr(sparse, "SWEPT", {"query_m": (0, 4)})
    documents = [Document(str(number), "", text) for number, text in enumerate(SENTENCES)]
    found = sparse.tuned(model, Collection("known items", documents, QUERIES, RELEVANT))
    assert found["shares"][0.0][0.0] == 100.0  # without aligned tokens, only the words of a query are searched
    assert found["shares"].keys() == found["shares"][0.5].keys() == {0.0, 0.5}
    assert found["sweep"].keys() == {"query_m"}
    assert found["sweep"]["query_m"][0] == found["shares"][0.5][0.0]  # no aligned tokens in a query, in both
