"""Batches by padded tokens, each text once, and half the batch when memory runs out."""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from conftest import CORPUS, SENTENCES, untrained
from text2token import Corpus, UserError
from text2token.model import encoding
from text2token.model.encoding import count_text_tokens, encode_in_batches

TEXTS = [*SENTENCES, "cat", "The cat sat. " * 30, *SENTENCES[:3]]


@pytest.fixture
def embedder(backbone):
    return untrained(backbone("llama"), max_length=96)


def batches(embedder, texts, **settings):
    """The batches that the encoder is given for ``texts``."""
    given: list[list[str]] = []

    def encode(batch):
        given.append(list(batch))
        return embedder.encoder.encode(batch, batch_size=len(batch), convert_to_tensor=True)

    return given, encode_in_batches(embedder.encoder, texts, encode, **settings)


def test_vectors_are_those_of_each_text_alone_in_the_given_order(embedder):
    alone = torch.cat([embedder.embed([text]) for text in TEXTS])
    for size in (1, 2, 32):
        torch.testing.assert_close(embedder.embed(TEXTS, batch_size=size), alone, atol=1e-5, rtol=1e-5)


def test_identical_texts_are_encoded_once(embedder):
    given, _ = batches(embedder, TEXTS + TEXTS)
    assert sorted(text for batch in given for text in batch) == sorted(set(TEXTS))


@pytest.mark.parametrize("size", [1, 2, 5])
def test_a_batch_has_no_more_padded_tokens_than_asked_for(embedder, size, monkeypatch):
    monkeypatch.setattr(encoding, "_TOKENS_PER_TEXT", 40)
    given, _ = batches(embedder, CORPUS + TEXTS, batch_size=size)
    lengths = [count_text_tokens(embedder.encoder, batch) for batch in given]
    assert all(len(batch) * max(batch) <= size * 40 or len(batch) == 1 for batch in lengths)
    flat = [length for batch in lengths for length in batch]
    assert flat == sorted(flat, reverse=True)
    # no batch could have taken the next text too
    pairs = pairwise(lengths)
    for batch, following in pairs:
        padding = sum(max(batch) - length for length in [*batch, following[0]])
        assert (len(batch) + 1) * max(batch) > size * 40 or padding > 128
        assert sum(max(batch) - length for length in batch) <= 128


def test_tokens_are_counted_as_the_model_reads_them(embedder):
    for text in TEXTS:
        features = embedder.encoder.preprocess([text])
        assert count_text_tokens(embedder.encoder, [text]) == [int(features["attention_mask"].sum())]


@pytest.mark.parametrize("pooling", ["mean", "last", "weighted-mean"])
def test_a_text_without_a_token_has_the_zero_vector_in_any_batch(backbone, pooling):
    embedder = untrained(backbone("llama"), pooling=pooling)
    alone, together = embedder.embed([""]), embedder.embed(["", "The cat sat."])
    assert torch.equal(alone, torch.zeros(1, 32))
    assert torch.equal(together[0], alone[0])
    torch.testing.assert_close(together[1:], embedder.embed(["The cat sat."]))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried to allocate"
        ),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_without_memory_the_batch_is_halved_and_one_line_says_so(embedder, error, monkeypatch, caplog):
    expected = embedder.embed(CORPUS[:40])
    plain, tried = embedder.encoder.preprocess, []

    def narrow(batch, **settings):
        tried.append(len(batch))
        if len(batch) > 3:
            raise error
        return plain(batch, **settings)

    monkeypatch.setattr(embedder.encoder, "preprocess", narrow)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(embedder.embed(CORPUS[:40]), expected)
    assert max(tried) > 3
    assert [record.message for record in caplog.records] == [
        f"Memory ran out in a batch of {tried[0]} texts; encoding goes on in smaller batches."
    ]
    tried.clear()
    embedder.embed(CORPUS[40:60])
    assert max(tried) <= 3  # what was learnt once holds for the next call


def test_one_text_that_does_not_fit_is_refused(embedder, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    monkeypatch.setattr(embedder.encoder, "preprocess", fail)
    with pytest.raises(
        UserError, match=r"too little memory for a text of \d+ tokens \(MemoryError\): lower max_length"
    ):
        embedder.embed(SENTENCES)


def test_other_errors_stay_what_they_are(embedder, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(embedder.encoder, "preprocess", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        embedder.embed(SENTENCES)


@pytest.mark.parametrize(
    ("item", "what"), [(None, "None"), (7, "of type int"), (b"x", "of type bytes"), (float("nan"), "of type float")]
)
def test_an_item_that_is_no_string_is_named_by_its_place(embedder, item, what):
    for call in (embedder.encode, embedder.embed, embedder.explain):
        with pytest.raises(UserError, match=rf"^texts\[2\] is {what}, not a string"):
            call(["a", "b", item, None])


def test_a_batch_size_below_one_is_refused(embedder):
    for size in (0, "3"):
        with pytest.raises(UserError, match=f"`batch_size` is {size!r}: give a whole number from 1 up"):
            embedder.encode(["a"], batch_size=size)
    for k in (0, -1):
        with pytest.raises(UserError, match=f"`k` is {k}: give"):
            embedder.explain(["a"], k=k)


@pytest.mark.parametrize(
    "texts", [None, 7, Path("a"), {"a": "b"}, {"a", "b"}, np.array("a"), pd.DataFrame({"a": ["b"]})]
)
def test_what_gives_no_texts_in_order_is_refused(embedder, texts):
    for call in (embedder.encode, embedder.calibrate, Corpus.from_texts):
        with pytest.raises(UserError, match=f"A list of texts is expected, not a {type(texts).__name__}: "):
            call(texts)


def test_a_column_of_a_table_gives_its_texts(embedder):
    column = pd.Series(["a cat", "a dog"], index=[7, 7])
    assert np.array_equal(embedder.encode(column), embedder.encode(list(column)))


@given(texts=st.lists(st.text(max_size=40), max_size=8))
def test_any_text_is_encoded(wild, texts):
    vectors = wild.embed(texts)
    assert vectors.shape == (len(texts), 32)
    assert vectors.isfinite().all()


@pytest.fixture(scope="module")
def wild(backbone):
    return untrained(backbone("bert"))


def test_a_prompt_counts_as_tokens_and_changes_the_vector(embedder):
    plain, asked = embedder.embed(SENTENCES), embedder.embed(SENTENCES, prompt="Rate it: ")
    expected = embedder.encoder.encode(SENTENCES, prompt="Rate it: ", convert_to_tensor=True)
    torch.testing.assert_close(asked, expected, atol=1e-5, rtol=1e-5)
    assert not torch.allclose(plain, asked)
    counted, bare = (count_text_tokens(embedder.encoder, SENTENCES, prompt) for prompt in ("Rate it: ", ""))
    assert all(longer > shorter for longer, shorter in zip(counted, bare, strict=True))


def test_the_default_prompt_of_a_model_stands_before_each_text(embedder):
    encoder = embedder.encoder
    encoder.prompts, encoder.default_prompt_name = {"query": "Find: "}, "query"
    np.testing.assert_allclose(embedder.embed(SENTENCES).numpy(), encoder.encode(SENTENCES), atol=1e-5)


def test_texts_without_a_tokenizer_of_transformers_are_encoded(tmp_path):
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    from conftest import word_piece
    from text2token import Embedder

    tokenizer: PreTrainedTokenizerFast = word_piece()
    torch.manual_seed(0)
    SentenceTransformer(modules=[StaticEmbedding(tokenizer.backend_tokenizer, embedding_dim=8)]).save(str(tmp_path))
    static = Embedder.open(tmp_path)
    expected = static.encoder.encode([*TEXTS, ""], convert_to_tensor=True)
    torch.testing.assert_close(static.embed([*TEXTS, ""]), expected)
