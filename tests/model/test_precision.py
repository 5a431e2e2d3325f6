"""Mixed precision changes speed and the third digit, nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from torch import nn

from conftest import CORPUS, SENTENCES, done, refused, untrained
from text2token import Embedder, UserError
from text2token.cli import main
from text2token.model import precision
from text2token.model.packed_product import PackedProduct, PlainProduct
from text2token.model.precision import mixed_precision
from text2token.search import Index
from text2token.settings.record import RunRecord

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
    monkeypatch.setattr(precision, "can_pack", lambda kind: True)  # whatever this machine has
    assert HAS_BF16(torch.device("cpu")) is has


def test_a_torch_without_onednn_runs_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not HAS_BF16(torch.device("cpu"))  # its products in bf16 are slower than in float32


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


@pytest.fixture
def arguments(backbone: Callable[[str], str], tmp_path: Path) -> Callable[[str], list[str]]:
    """The command line of a verb on a few texts; it writes into tmp_path."""
    model, docs, task = backbone("llama"), tmp_path / "docs.jsonl", tmp_path / "task"
    docs.write_text("\n".join(json.dumps({"id": str(i), "text": text}) for i, text in enumerate(CORPUS[:60])))
    task.mkdir()
    pairs = [{"sentence1": SENTENCES[0], "sentence2": text, "score": i} for i, text in enumerate(SENTENCES)]
    (task / "test.jsonl").write_text("\n".join(map(json.dumps, pairs)))

    def line(verb: str) -> list[str]:
        output = ["--output", str(tmp_path / verb)]
        corpus = ["--corpus", str(docs)]
        return {
            "encode": ["encode", model, str(docs), "--output", str(tmp_path / "v.parquet")],
            "align": ["align", model, *corpus, *output],
            "index": ["index", model, str(docs), *output],
            "evaluate": ["evaluate", model, "--correction", "none", "--data", str(task), *output],
            "explain": ["explain", model, "A cat."],
            "adapt": ["adapt", model, *corpus, "--correction", "centre", *output],
            "spectrum": ["spectrum", model, model, *corpus, "--shift", "zero", *output],
        }[verb]

    return line


@pytest.mark.parametrize("verb", ["encode", "align", "index", "evaluate", "explain", "adapt", "spectrum"])
def test_precision_of_a_verb_reaches_the_body_or_is_refused(
    verb: str, arguments: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = arguments(verb)
    before = sorted(tmp_path.rglob("*"))
    assert "no bf16" in refused(*line, "--precision", "bf16")
    assert sorted(tmp_path.rglob("*")) == before
    precisions = set()
    for product in (PlainProduct, PackedProduct):  # the latter where the machine has bf16
        computed = product.activated
        monkeypatch.setattr(
            product, "activated", lambda *given, of=computed: precisions.add(given[0]._kind) or of(*given)
        )
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    done(*line)
    assert torch.bfloat16 in precisions  # auto takes what the hardware has
    precisions.clear()
    overwrite = ["--overwrite"] if verb in ("encode", "adapt", "spectrum") else []
    if verb not in ("index", "evaluate"):  # these keep to one precision in a folder
        done(*line, "--precision", "fp32", *overwrite)
        assert torch.bfloat16 not in precisions


def test_what_is_written_says_in_which_precision(
    arguments: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for has, used in ((False, "fp32"), (True, "bf16")):
        monkeypatch.setattr(precision, "has_bf16", lambda device, has=has: has)
        done(*arguments("encode"), "--overwrite")
        assert pq.read_schema(tmp_path / "v.parquet").metadata[b"precision"].decode() == used
        done(*arguments("adapt"), "--overwrite")
        assert RunRecord.read(tmp_path / "adapt" / "run.json").precision == used
        done(*arguments("align"))
        assert f'"precision": "{used}"' in (tmp_path / "align" / "align.json").read_text()
        done(*arguments("evaluate")[:-1], str(tmp_path / f"evaluate-{used}"))
        assert json.loads((tmp_path / f"evaluate-{used}" / "summary.json").read_text())["precision"] == used


def test_an_index_keeps_its_precision_for_queries(
    arguments: Callable[[str], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done(*arguments("index"))  # on a machine without bf16
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    assert Index.open(tmp_path / "index").embedder.precision == "fp32"
    done("index", *arguments("index")[1:-1], str(tmp_path / "half"))
    assert Index.open(tmp_path / "half").embedder.precision == "bf16"
    monkeypatch.setattr(precision, "has_bf16", lambda device: False)
    assert Index.open(tmp_path / "half").embedder.precision == "fp32"  # what this machine can
    assert "cat" in done("search", tmp_path / "half", "cat", "--precision", "fp32")


def test_the_old_option_is_an_alias(arguments: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "has_bf16", lambda device: True)
    result = CliRunner().invoke(main, [*arguments("encode"), "--bf16", "--json"])
    assert "--precision bf16" in result.stderr
    assert json.loads(result.stdout)["precision"] == "bf16"
    assert "--precision fp32" in refused(*arguments("encode"), "--overwrite", "--bf16", "--precision", "fp32")
    assert "--bf16" not in done("encode", "--help")


def test_a_model_saved_in_bf16_is_computed_in_float32(backbone: Callable[[str], str], tmp_path: Path) -> None:
    embedder = untrained(backbone("llama"))
    embedder.encoder.bfloat16().save(str(tmp_path / "half"))
    opened = Embedder.open(tmp_path / "half")
    assert opened.precision == "fp32"
    assert {parameter.dtype for parameter in opened.encoder.parameters()} == {torch.float32}
    assert opened.embed(SENTENCES).dtype == torch.float32
