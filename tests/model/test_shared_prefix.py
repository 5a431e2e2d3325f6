"""A prefix that all texts share is computed once, and the vectors stay those of whole texts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from test_lean_stack import LEAN, body_of, is_lean, parts, texts
from torch import Tensor

from conftest import SENTENCES, untrained
from text2token.model.encoding_body import EncodingBody
from text2token.model.lean_layer import LeanLayer
from text2token.model.shared_prefix import begins_all, shared_prefix
from text2token.settings.templates import Template

__all__ = ["parts"]  # a fixture
PREFIX = (7, 8, 9)
TEMPLATE = {"pooling": "last", "template": Template("The cat: ", " a dog")}


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of rows that each layer of a pass computes."""
    counts: list[int] = []
    plain = LeanLayer.__call__
    monkeypatch.setattr(LeanLayer, "__call__", lambda *given: counts.append(len(given[1])) or plain(*given))
    return counts


def beginning(prefix: tuple[int, ...] = PREFIX, side: str = "right") -> tuple[Tensor, Tensor]:
    """Texts of :func:`texts` that begin with a prefix."""
    ids, mask = texts(side)
    ids[:, : len(prefix)] = torch.tensor(prefix)
    mask[:, : len(prefix) + 1] = 1
    return ids, mask


@torch.no_grad()
@pytest.mark.parametrize("family", LEAN)
def test_vectors_are_those_of_whole_texts(family: str, parts: None, computed: list[int]) -> None:
    name, settings = LEAN[family]
    form = EncodingBody(body_of(name, **settings), half=False)
    assert is_lean(form)
    ids, mask = beginning()
    for read in (mask, torch.ones_like(mask)):
        whole = form(input_ids=ids, attention_mask=read, last_row=True).last_hidden_state
        for _ in range(2):  # the prefix is computed, then known
            computed.clear()
            found = form(input_ids=ids, attention_mask=read, last_row=True, prefix=PREFIX).last_hidden_state
            torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)
        kept = family == "bidirectional"
        assert computed == [read.sum() - (0 if kept else read.shape[0] * len(PREFIX))] * 3


@torch.no_grad()
def test_another_prefix_takes_the_place_of_the_last_one() -> None:
    form = EncodingBody(body_of("Llama"), half=False)
    for prefix in (PREFIX, (7, 8), (4, 5, 6), PREFIX):
        ids, mask = beginning(prefix)
        whole = form(input_ids=ids, attention_mask=mask, last_row=True).last_hidden_state
        found = form(input_ids=ids, attention_mask=mask, last_row=True, prefix=prefix).last_hidden_state
        torch.testing.assert_close(found, whole, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_bf16_is_as_close_to_float32_as_for_whole_texts() -> None:
    body = body_of("Llama")
    ids, mask = beginning()
    exact = EncodingBody(body, half=False)(input_ids=ids, attention_mask=mask, last_row=True).last_hidden_state[:, 0]
    form = EncodingBody(body, half=True)
    whole, shared = (
        form(input_ids=ids, attention_mask=mask, last_row=True, prefix=own).last_hidden_state[:, 0].float()
        for own in ((), PREFIX)
    )
    lost = [1 - torch.nn.functional.cosine_similarity(found, exact).mean() for found in (shared, whole)]
    assert 0 < lost[0] < 1.5 * lost[1]


def test_a_batch_begins_with_the_prefix_or_is_read_as_a_whole() -> None:
    ids, mask = beginning()
    assert begins_all(PREFIX, ids, mask)
    assert not begins_all((), ids, mask)
    assert not begins_all((7, 8, 10), ids, mask)
    assert not begins_all(PREFIX, None, mask)
    assert not begins_all(PREFIX, ids, None)
    assert not begins_all(PREFIX, ids[:, :3], mask[:, :3])  # nothing remains
    short = mask.clone()
    short[1, 3:] = 0  # one text is the prefix alone
    assert not begins_all(PREFIX, ids, short)
    left = mask.clone()
    left[2, 0] = 0
    assert not begins_all(PREFIX, ids, left)
    other = ids.clone()
    other[3, 1] = 1
    assert not begins_all(PREFIX, other, mask)


@pytest.mark.parametrize("prompt", ["", "Rate it: "])
def test_an_embedder_computes_template_and_prompt_once(
    backbone: Callable[[str], str], computed: list[int], prompt: str
) -> None:
    embedder = untrained(backbone("llama"), **TEMPLATE)
    bare, around = shared_prefix(embedder.encoder, ""), shared_prefix(embedder.encoder, prompt)
    assert bare
    assert around[: len(bare)] == bare
    assert len(around) > len(bare) or not prompt
    expected = embedder.encoder.encode(SENTENCES, prompt=prompt, convert_to_tensor=True)
    embedder.embed(SENTENCES[:1], prompt=prompt)
    computed.clear()
    for text, vector in zip(SENTENCES, expected, strict=True):
        computed.clear()
        torch.testing.assert_close(embedder.embed([text], prompt=prompt)[0], vector, atol=1e-5, rtol=1e-5)
        assert computed[0] == len(embedder.tokenizer(prompt + text)["input_ids"]) - len(around)
    torch.testing.assert_close(embedder.embed(SENTENCES, prompt=prompt), expected, atol=1e-5, rtol=1e-5)


def test_changed_weights_give_another_prefix(backbone: Callable[[str], str]) -> None:
    embedder = untrained(backbone("llama"), **TEMPLATE)
    before = embedder.embed(SENTENCES)
    with torch.no_grad():
        embedder.encoder[0].model.embed_tokens.weight += 0.5
    expected = embedder.encoder.encode(SENTENCES, convert_to_tensor=True)
    assert not torch.allclose(before, expected, atol=1e-3)
    torch.testing.assert_close(embedder.embed(SENTENCES), expected, atol=1e-5, rtol=1e-5)
