"""Mixed precision changes speed and the third digit, nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from text2token import precision
from text2token.precision import mixed_precision


@pytest.fixture
def body() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 64), nn.GELU(), nn.Linear(64, 64))


@pytest.mark.parametrize("supported", [True, False])
def test_float32_out_and_the_old_forward_back(
    body: nn.Module, supported: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: supported)
    inputs = torch.randn(8, 64)
    exact = body(inputs)
    with mixed_precision(body):
        mixed = body(inputs)
    assert mixed.dtype == torch.float32
    assert torch.equal(mixed, exact) is not supported  # bf16 rounds, and without it nothing happens
    torch.testing.assert_close(mixed, exact, atol=0.02, rtol=0.02)
    assert torch.equal(body(inputs), exact)


def test_gradients_are_float32_and_close(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    inputs = torch.randn(8, 64)
    body(inputs).square().mean().backward()
    exact = body[0].weight.grad.clone()
    body.zero_grad()
    with mixed_precision(body):
        body(inputs).square().mean().backward()
    mixed = body[0].weight.grad
    assert mixed.dtype == torch.float32
    assert nn.functional.cosine_similarity(mixed.flatten(), exact.flatten(), dim=0) > 0.999


def test_forward_is_restored_after_an_error(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    with pytest.raises(RuntimeError), mixed_precision(body):
        body(torch.randn(2, 3))
    assert "forward" not in vars(body)


def test_a_torch_that_cannot_tell_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not precision.has_bf16(torch.device("cpu"))
