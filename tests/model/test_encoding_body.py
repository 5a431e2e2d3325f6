"""The encoding form of a body gives the vectors of the plain body, for every family, and never those of old weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import distributed, nn
from torch.distributed.fsdp import fully_shard

from conftest import FAMILIES, SENTENCES, untrained
from text2token.model import encoding_body, precision
from text2token.model.half_layers import HalfGated, HalfLinear
from text2token.model.precision import encoding, mixed_precision

LONG_AND_SHORT = [*SENTENCES, " ".join(SENTENCES), "cat"]


@pytest.fixture
def in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)


def plain(embedder, texts=LONG_AND_SHORT):
    return embedder.encoder.encode(texts, batch_size=len(texts), convert_to_tensor=True)


@pytest.mark.parametrize(("pooling", "side"), [("last", "left"), ("last", "right"), ("mean", "right")])
@pytest.mark.parametrize("family", FAMILIES)
def test_float32_vectors_are_those_of_the_plain_body(
    family: str, pooling: str, side: str, backbone: Callable[[str], str]
) -> None:
    embedder = untrained(backbone(family), pooling=pooling)
    embedder.tokenizer.padding_side = side
    expected = plain(embedder)
    with encoding(embedder.encoder):
        found = plain(embedder)
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_bf16_vectors_are_as_close_as_those_of_autocast(
    family: str, backbone: Callable[[str], str], in_bf16: None
) -> None:
    embedder = untrained(backbone(family), pooling="last")
    exact = plain(embedder)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = plain(embedder).float()
    embedder.use_precision("bf16")
    packed = embedder.embed(LONG_AND_SHORT)
    assert packed.dtype == torch.float32
    assert not torch.equal(packed, exact)
    lost = [1 - nn.functional.cosine_similarity(vectors, exact).mean() for vectors in (packed, cast)]
    assert lost[0] < max(2 * lost[1], 1e-4)


def test_linear_and_gated_layers_are_replaced_and_shared(backbone: Callable[[str], str], in_bf16: None) -> None:
    body = untrained(backbone("qwen3")).encoder[0].model
    before = {name: id(tensor) for name, tensor in body.state_dict(keep_vars=True).items()}
    form = encoding_body.encoding_body(body, half=True)
    kinds = [type(module) for module in form._modules.modules()]
    assert kinds.count(HalfGated) == 2
    assert kinds.count(HalfLinear) == 2 * 7
    assert nn.Linear not in kinds
    assert {id(parameter) for parameter in form._modules.parameters()} <= set(before.values())
    assert {name: id(tensor) for name, tensor in body.state_dict(keep_vars=True).items()} == before
    assert form is encoding_body.encoding_body(body, half=True)  # packed once


def test_the_last_layer_finishes_one_row(backbone: Callable[[str], str]) -> None:
    embedder = untrained(backbone("qwen3"), pooling="last")
    rows: list[int] = []
    embedder.embed(SENTENCES[:1])
    form = encoding_body.encoding_body(embedder.encoder[0].model, half=False)
    layer = form._modules.layers[-1]
    for part in (layer.self_attn.k_proj, layer.self_attn.o_proj, layer.mlp.up_proj):
        part.register_forward_hook(lambda _, inputs, outputs: rows.append(outputs.shape[1]))
    embedder.embed(SENTENCES)
    whole, after_attention, feed_forward = rows
    assert whole > 1
    assert (after_attention, feed_forward) == (1, 1)


@pytest.mark.parametrize(
    "change",
    [
        lambda body: body.load_state_dict({name: 1.5 * tensor for name, tensor in body.state_dict().items()}),
        lambda body: body.layers[1].mlp.up_proj.weight.data.mul_(1.5),
        lambda body: setattr(body.layers[1].mlp.up_proj.weight, "data", 1.5 * body.layers[1].mlp.up_proj.weight.data),
        lambda body: setattr(body.layers[1].mlp, "up_proj", nn.Linear(32, 64, bias=False)),
    ],
)
def test_changed_weights_are_packed_again(change, backbone: Callable[[str], str], in_bf16: None) -> None:
    embedder = untrained(backbone("llama"))
    embedder.encoder = copy.deepcopy(embedder.encoder)
    embedder.use_precision("bf16")
    old = embedder.embed(SENTENCES)
    change(embedder.encoder[0].model)
    new = embedder.embed(SENTENCES)
    assert (nn.functional.cosine_similarity(old, new) < 0.999).any()
    assert (nn.functional.cosine_similarity(new, plain(embedder, SENTENCES)) > 0.999).all()


def test_a_training_step_frees_the_packed_weights(backbone: Callable[[str], str], in_bf16: None) -> None:
    body = untrained(backbone("llama")).encoder[0].model
    ids = torch.tensor([[5, 6, 7]])
    with mixed_precision(body):
        with torch.no_grad():
            body(input_ids=ids)
        assert body in encoding_body._BODIES
        body(input_ids=ids).last_hidden_state.sum().backward()
    assert body not in encoding_body._BODIES
    assert all(parameter.grad is not None for parameter in body.layers.parameters())


def test_a_body_whose_weights_are_split_encodes_and_then_learns(backbone: Callable[[str], str]) -> None:
    embedder = untrained(backbone("llama"))
    expected = embedder.embed(SENTENCES)
    body = embedder.encoder[0].model
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        mesh = distributed.init_device_mesh("cpu", (1,))
        for part in (*body.layers, body):
            fully_shard(part, mesh=mesh)
        torch.testing.assert_close(embedder.embed(SENTENCES), expected)
        body(input_ids=torch.tensor([[5, 6, 7]])).last_hidden_state.sum().backward()
        assert all(parameter.grad is not None for parameter in body.layers.parameters())
    finally:
        distributed.destroy_process_group()


def test_dropout_of_a_body_in_training_stays(backbone: Callable[[str], str]) -> None:
    embedder = untrained(backbone("gpt2"))
    body = embedder.encoder[0].model.train()
    ids = torch.tensor([[5, 6, 7]])
    with encoding(embedder.encoder), torch.no_grad():
        first, second = (body(input_ids=ids).last_hidden_state for _ in range(2))
    body.eval()
    assert not torch.equal(first, second)


def test_threads_share_a_body_in_both_precisions(backbone: Callable[[str], str], in_bf16: None) -> None:
    encoder = untrained(backbone("llama"), pooling="last").encoder
    features = encoder.preprocess(SENTENCES)

    def embed(bf16: bool) -> torch.Tensor:
        with encoding(encoder, bf16=bf16), torch.no_grad():
            return encoder(dict(features))["sentence_embedding"]

    expected = {bf16: embed(bf16) for bf16 in (False, True)}
    assert not torch.equal(*expected.values())
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda number: torch.equal(embed(number % 2 == 1), expected[number % 2 == 1]), range(40)))
