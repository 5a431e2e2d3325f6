"""A step with adapted layers in bf16 learns what PEFT's layers learn, and leaves the frozen weights alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from text2token.model.precision import mixed_precision
from text2token.training.adapters import add_adapters
from text2token.training.attention import attention_in_float32
from text2token.training.bf16_adapters import adapters_in_bf16

ADAPTED = ["llama", "qwen3", "gemma3", "gpt2", "gpt_neox", "opt", "bert", "modernbert"]


@pytest.fixture(autouse=True)
def with_bf16(monkeypatch):
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: True)


def adapted(folder, seed=1):
    """A body whose adapters have been trained for a while: none of their matrices is zero."""
    body = add_adapters(transformers.AutoModel.from_pretrained(folder), 4, seed=0)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in body.named_parameters():
            if "lora_B" in name:
                parameter.copy_(0.1 * torch.randn_like(parameter))
    return body.eval()  # without dropout


def gradients(body):
    """The gradients of a loss that depends on all dimensions of the last token of two texts, one of them padded."""
    body.zero_grad()
    ids = torch.arange(1, 25).view(2, 12)
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    hidden = body(input_ids=ids, attention_mask=mask).last_hidden_state
    last = hidden[[0, 1], [11, 7]].float()
    (last * torch.linspace(-1, 1, last.numel()).view_as(last)).sum().backward()
    return {name: parameter.grad for name, parameter in body.named_parameters() if parameter.grad is not None}


def distance(found, exact):
    """The error relative to the exact gradients, all of them as one vector."""
    error = sum(float((found[name] - exact[name]).square().sum()) for name in exact)
    return (error / sum(float(gradient.square().sum()) for gradient in exact.values())) ** 0.5


@pytest.mark.parametrize("family", ADAPTED)
@pytest.mark.parametrize("faster", [adapters_in_bf16, attention_in_float32])
def test_gradients_are_as_exact_as_under_autocast(backbone, family, faster):
    """The median of several adapters, since a unit of a rectifier that is near zero flips by chance."""
    errors = []
    for seed in range(5):
        body = adapted(backbone(family), seed)
        exact = gradients(body)
        with mixed_precision(body):
            mixed = gradients(body)
            with faster(body):
                ours = gradients(body)
        assert ours.keys() == exact.keys()
        assert {gradient.dtype for gradient in ours.values()} == {torch.float32}
        assert all(torch.equal(found, exact[name]) for name, found in gradients(body).items())  # the block has ended
        errors.append((distance(ours, exact), distance(mixed, exact)))
    ours, mixed = np.median(np.array(errors), axis=0)
    assert 0 < ours < 1.5 * mixed < 0.05


def test_frozen_weights_stay_as_they_are_through_training_and_merge(backbone):
    body = adapted(backbone("llama"))
    before = {name: parameter.detach().clone() for name, parameter in body.named_parameters()}
    optimizer = torch.optim.SGD([p for p in body.parameters() if p.requires_grad], lr=0.1)
    with mixed_precision(body), adapters_in_bf16(body):
        gradients(body)
        optimizer.step()
    after = dict(body.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name in before if "lora_" in name}
    assert {parameter.dtype for parameter in after.values()} == {torch.float32}
    layer = body.get_base_model().layers[0].mlp.up_proj
    expected = layer.base_layer.weight + layer.get_delta_weight("default")
    merged = body.merge_and_unload().layers[0].mlp.up_proj.weight
    torch.testing.assert_close(merged, expected, rtol=0, atol=0)


def test_layers_that_read_one_tensor_convert_it_once_and_see_a_change_in_place(backbone):
    body = adapted(backbone("llama"))
    layer, x = body.get_base_model().layers[0].mlp.up_proj, torch.randn(3, 32)
    with adapters_in_bf16(body), torch.autocast("cpu", torch.bfloat16):
        first, again = layer(x), layer(x)
        x.mul_(2)
        doubled = layer(x)
    assert torch.equal(first, again)
    torch.testing.assert_close(doubled, 2 * first, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("settings", [{"lora_dropout": 0.5}, {"use_dora": True}, {"lora_bias": True}])
def test_other_adapters_are_left_to_peft(backbone, settings):
    body = transformers.AutoModel.from_pretrained(backbone("llama"))
    body = get_peft_model(body, LoraConfig(r=4, target_modules="all-linear", **settings))
    with adapters_in_bf16(body):
        assert not [name for name, module in body.named_modules() if "forward" in vars(module)]


def test_without_bf16_nothing_is_replaced(backbone, monkeypatch):
    monkeypatch.setattr("text2token.model.precision.has_bf16", lambda device: False)
    body = adapted(backbone("llama"))
    with adapters_in_bf16(body):
        assert not [name for name, module in body.named_modules() if "forward" in vars(module)]


def test_attention_reads_float32_under_autocast_only(backbone, monkeypatch):
    body, seen = adapted(backbone("llama")), []
    attend = torch.nn.functional.scaled_dot_product_attention

    def watch(query, *rest, **settings):
        seen.append((query.dtype, torch.is_autocast_enabled("cpu")))
        return attend(query, *rest, **settings)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watch)
    with attention_in_float32(body):
        gradients(body)
        with mixed_precision(body):
            gradients(body)
    assert set(seen) == {(torch.float32, False)}
    seen.clear()
    with mixed_precision(body):
        gradients(body)
    assert {autocast for _, autocast in seen} == {True}  # the block has ended
