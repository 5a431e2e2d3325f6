"""Lean layers give the hidden states of the layers that they stand for, and stand only for layers that they can compute."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import transformers
from torch import Tensor, nn

from conftest import SENTENCES, untrained
from text2token.model import lean_attention
from text2token.model.encoding_body import EncodingBody
from text2token.model.lean_layer import LeanLayer
from text2token.model.lean_stack import LeanStack
from text2token.model.precision import encoding

SHAPE = {
    "vocab_size": 50, "hidden_size": 48, "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 2,
    "intermediate_size": 64, "max_position_embeddings": 64, "head_dim": 8, "pad_token_id": 0, "initializer_range": 0.3,
}  # fmt: skip
LEAN = {
    "llama": ("Llama", {}),
    "llama with biases": ("Llama", {"attention_bias": True, "mlp_bias": True, "hidden_act": "gelu"}),
    "bidirectional": ("Llama", {"is_causal": False}),
    "mistral": ("Mistral", {"sliding_window": 4}),
    "qwen2": ("Qwen2", {}),
    "qwen2, all in windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 0}),
}
OTHERS = {
    "gemma": ("Gemma", {}),
    "gemma2": ("Gemma2", {}),
    "qwen3": ("Qwen3", {}),
    "qwen2, some in windows": ("Qwen2", {"use_sliding_window": True, "sliding_window": 4, "max_window_layers": 1}),
    "granite": ("Granite", {"residual_multiplier": 0.5}),
    "smollm3": ("SmolLM3", {"no_rope_layers": [1, 1, 0]}),
}


def body_of(family: str, **settings) -> nn.Module:
    """A random body whose biases and norms are seen in the output."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SHAPE, **settings})
    body = getattr(transformers, f"{family}Model")(config).eval()
    with torch.no_grad():
        for parameter in body.parameters():
            if parameter.ndim == 1:
                parameter += 0.3 * torch.randn_like(parameter)
    return body


def texts(side: str) -> tuple[Tensor, Tensor]:
    """Ids of texts of 11, 11, 7, and 2 tokens with their mask; padding is on one side."""
    ids = torch.randint(1, 50, (4, 11), generator=torch.Generator().manual_seed(1))
    mask = (torch.arange(11) < torch.tensor([[11], [11], [7], [2]])).long()
    return ids, mask if side == "right" else mask.flip(1)


@pytest.fixture(params=[(512, 64), (512, 4), (22, 64), (11, 5)], ids=str)
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes of the parts in which attention is computed."""
    tokens, queries = request.param
    monkeypatch.setattr(lean_attention, "_TOKENS", tokens)
    monkeypatch.setattr(lean_attention, "_QUERIES", queries)


def is_lean(form: EncodingBody) -> bool:
    return isinstance(form._modules.layers[0], LeanStack)


@torch.no_grad()
@pytest.mark.parametrize("family", LEAN)
def test_float32_hidden_states_are_those_of_the_plain_body(family: str, parts: None) -> None:
    name, settings = LEAN[family]
    body = body_of(name, **settings)
    form = EncodingBody(body, half=False)
    assert is_lean(form)
    for side in ("right", "left"):
        ids, mask = texts(side)
        for read in (mask, torch.ones_like(mask)):
            expected = body(input_ids=ids, attention_mask=read).last_hidden_state[read.bool()]
            found = form(input_ids=ids, attention_mask=read).last_hidden_state[read.bool()]
            torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_last_row_is_that_of_all_rows(side: str, half: bool, parts: None) -> None:
    form = EncodingBody(body_of("Llama"), half=half)
    assert is_lean(form)
    ids, mask = texts(side)
    last = mask.shape[1] - 1 - mask.flip(1).argmax(1)
    for read in (mask, torch.ones_like(mask)):
        rows = last if read is mask else torch.full((4,), 10)
        every, one = (
            form(input_ids=ids, attention_mask=read, last_row=only).last_hidden_state[torch.arange(4), rows].float()
            for only in (False, True)
        )
        torch.testing.assert_close(
            one, every, **({"atol": 0.05, "rtol": 0.05} if half else {"atol": 1e-5, "rtol": 1e-5})
        )


@torch.no_grad()
@pytest.mark.parametrize("family", LEAN)
def test_bf16_is_as_close_as_autocast(family: str, parts: None) -> None:
    name, settings = LEAN[family]
    body = body_of(name, **settings)
    ids, mask = texts("right")
    form = EncodingBody(body, half=True)
    assert is_lean(form)
    exact, half = (run(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()] for run in (body, form))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = body(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    lost = [1 - nn.functional.cosine_similarity(found.float(), exact).mean() for found in (half, cast)]
    assert 0 < lost[0] < 1.5 * lost[1]


@torch.no_grad()
@pytest.mark.parametrize("family", OTHERS)
def test_layers_that_compute_something_else_stay(family: str) -> None:
    name, settings = OTHERS[family]
    body = body_of(name, **settings)
    form = EncodingBody(body, half=False)
    assert not is_lean(form)
    ids, mask = texts("right")
    expected = body(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    found = form(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


def test_the_body_keeps_its_layers_and_inputs(backbone: Callable[[str], str]) -> None:
    embedder = untrained(backbone("llama"), pooling="last")
    body = embedder.encoder[0].model
    before = dict(body.named_modules())
    inputs = torch.randn(2, 5, 32)
    kept = inputs.clone()
    with encoding(embedder.encoder), torch.no_grad():
        body(inputs_embeds=inputs)
        embedder.encoder.encode(SENTENCES)
    assert dict(body.named_modules()) == before
    assert torch.equal(inputs, kept)


@torch.no_grad()
def test_padding_takes_part_in_no_product(monkeypatch: pytest.MonkeyPatch) -> None:
    form = EncodingBody(body_of("Llama"), half=False)
    ids, mask = texts("left")
    counts: list[int] = []
    plain = LeanLayer.__call__
    monkeypatch.setattr(LeanLayer, "__call__", lambda *given: counts.append(len(given[1])) or plain(*given))
    form(input_ids=ids, attention_mask=mask)
    assert counts == [mask.sum()] * 3


@torch.no_grad()
def test_a_text_without_a_token_changes_no_other() -> None:
    form = EncodingBody(body_of("Llama"), half=False)
    ids, mask = texts("right")
    expected = form(input_ids=ids, attention_mask=mask, last_row=True).last_hidden_state[:3]
    mask[3] = 0
    found = form(input_ids=ids, attention_mask=mask, last_row=True).last_hidden_state
    assert found.isfinite().all()
    torch.testing.assert_close(found[:3], expected, atol=1e-5, rtol=1e-5)
