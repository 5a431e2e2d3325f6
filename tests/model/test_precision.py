"""Mixed precision changes speed and the third digit, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from torch import nn

from conftest import SENTENCES, untrained
from text2token import UserError
from text2token.cli import main
from text2token.model import precision
from text2token.model.precision import mixed_precision

HAS_BF16 = precision.has_bf16  # before the tests have their own


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


def test_nested_blocks_are_one(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    inputs = torch.randn(8, 64)
    exact = body(inputs)
    with mixed_precision(body):
        mixed = body(inputs)
        with mixed_precision(body):
            assert torch.equal(body(inputs), mixed)
        assert torch.equal(body(inputs), mixed)  # the inner block ended, and the outer one still holds
    assert torch.equal(body(inputs), exact)
    assert "forward" not in vars(body)
    assert not torch.is_autocast_enabled("cpu")


def test_a_forward_that_another_library_replaced_comes_back(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    replaced = body.forward = lambda inputs: inputs @ torch.eye(64)
    with mixed_precision(body):
        assert body(torch.randn(2, 64)).dtype == torch.float32
    assert body.forward is replaced


def test_threads_do_not_disturb_one_another(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    inputs = torch.randn(8, 64)
    exact = body(inputs)
    with mixed_precision(body):
        mixed = body(inputs)

    def work(number: int) -> bool:
        good = True
        for _ in range(20):
            if number % 2:
                with mixed_precision(body):
                    good &= torch.equal(body(inputs), mixed)
            else:
                good &= torch.equal(body(inputs), exact)  # this thread is in no block
        return good

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(work, range(8)))
    assert "forward" not in vars(body)


def test_forward_is_restored_after_an_error(body: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    with pytest.raises(RuntimeError), mixed_precision(body):
        body(torch.randn(2, 3))
    assert "forward" not in vars(body)


@pytest.mark.parametrize(
    ("feature", "has"),
    [("avx512_bf16", True), ("amx_bf16", True), ("bf16", True), ("avx512f", False), ("none", False)],
)
def test_bf16_is_what_torch_says_of_the_cpu(monkeypatch: pytest.MonkeyPatch, feature: str, has: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {feature: True}, raising=False)
    assert HAS_BF16(torch.device("cpu")) is has


def test_a_torch_that_cannot_tell_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert not HAS_BF16(torch.device("cpu"))


def test_an_embedder_in_bf16_gives_nearly_the_same_vectors(
    backbone: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    embedder = untrained(backbone("llama"))
    exact = embedder.embed(SENTENCES)
    with pytest.raises(UserError, match="no bf16"):  # as tests have it
        embedder.use_precision("bf16")
    embedder.bf16 = True  # asks for what the hardware has, which is nothing
    assert torch.equal(embedder.embed(SENTENCES), exact)
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    embedder.use_precision("bf16")
    mixed = embedder.embed(SENTENCES)
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert (nn.functional.cosine_similarity(mixed, exact) > 0.999).all()


@pytest.mark.parametrize("verb", ["encode", "align", "index", "evaluate"])
def test_bf16_of_a_verb_reaches_the_body_or_is_refused(
    verb: str, backbone: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, task = tmp_path / "docs.jsonl", str(tmp_path / "task")
    file.write_text("\n".join(json.dumps({"id": str(i), "text": text}) for i, text in enumerate(SENTENCES)))
    arguments = {
        "encode": ["encode", backbone("llama"), str(file), "--output", str(tmp_path / "v.npy")],
        "align": ["align", backbone("llama"), "--corpus", str(file), "--output", str(tmp_path / "align")],
        "index": ["index", backbone("llama"), str(file), "--output", str(tmp_path / "index")],
        "evaluate": [
            "evaluate",
            backbone("llama"),
            "--correction",
            "none",
            "--data",
            task,
            "--output",
            str(tmp_path / "r"),
        ],
    }[verb]
    (tmp_path / "task").mkdir()
    pairs = [{"sentence1": SENTENCES[0], "sentence2": text, "score": i} for i, text in enumerate(SENTENCES)]
    (tmp_path / "task" / "test.jsonl").write_text("\n".join(map(json.dumps, pairs)))
    before = sorted(tmp_path.rglob("*"))
    refused = CliRunner().invoke(main, [*arguments, "--bf16"])
    assert refused.exit_code == 2
    assert "no bf16" in refused.output
    assert sorted(tmp_path.rglob("*")) == before
    seen = set()
    plain = nn.Linear.forward

    def watched(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        outputs = plain(layer, inputs)
        seen.add(outputs.dtype)
        return outputs

    monkeypatch.setattr(nn.Linear, "forward", watched)
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    result = CliRunner().invoke(main, [*arguments, "--bf16"])
    assert result.exit_code == 0, result.output
    assert torch.bfloat16 in seen  # the linear layers of the body computed in bf16
