"""Whatever a published model has wrong is repaired at loading, or refused with one sentence that says what it is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from sentence_transformers import CrossEncoder, SentenceTransformer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from conftest import CORPUS, SENTENCES, untrained
from text2token import Embedder, UserError
from text2token.model.backbone import load_head
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.loading import loading
from text2token.model.saved import load_saved
from text2token.settings.templates import TEMPLATES


@pytest.fixture
def loads(monkeypatch):
    """The classes of the models that are loaded from disk during the test."""
    seen: list[str] = []
    plain = PreTrainedModel.from_pretrained.__func__

    def counted(kind, *arguments, **settings):
        seen.append(kind.__name__)
        return plain(kind, *arguments, **settings)

    monkeypatch.setattr(PreTrainedModel, "from_pretrained", classmethod(counted))
    return seen


def edited(folder: Path, file: str, **changes) -> None:
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.fixture
def folder(backbone, tmp_path):
    """A copy of the backbone of a family, to be damaged."""

    def copy(family: str) -> Path:
        return Path(shutil.copytree(backbone(family), tmp_path / family))

    return copy


@pytest.mark.parametrize("family", ["llama", "gemma3", "opt", "distilbert", "modernbert"])
def test_a_backbone_is_loaded_once(backbone, family, loads):
    embedder = untrained(backbone(family))
    assert len(loads) == 1
    other = embedder.with_settings(pooling="last", template=TEMPLATES["eol"], max_length=64)
    assert len(loads) == 1
    assert other.encoder[0].model is embedder.encoder[0].model
    assert other.head is embedder.head


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_other_settings_on_the_same_weights_give_the_vectors_of_an_embedder_opened_so(backbone, family):
    first = untrained(backbone(family), template=TEMPLATES["topic"])
    before = first.embed(SENTENCES)
    settings = {"pooling": "last", "template": TEMPLATES["eol"], "max_length": 48}
    other, opened = first.with_settings(**settings), Embedder.open(backbone(family), **settings)
    torch.testing.assert_close(other.embed(SENTENCES), opened.embed(SENTENCES))
    assert embedder_fingerprint(other) == embedder_fingerprint(opened)
    torch.testing.assert_close(first.embed(SENTENCES), before)
    first.batch_size = 4
    assert first.with_settings(**settings).batch_size == 4


def test_shared_weights_share_their_attention(backbone):
    with pytest.raises(UserError, match="share their attention"):
        untrained(backbone("llama")).with_settings(attention="bidirectional")


def test_a_finished_embedder_keeps_its_settings(backbone, tmp_path):
    untrained(backbone("llama")).encoder.save(str(tmp_path))
    embedder = Embedder.open(tmp_path)
    assert embedder.with_settings(template=TEMPLATES["eol"]) is embedder


def beyond(folder: Path, **special) -> PreTrainedTokenizerFast:
    """Save the tokenizer with tokens that have no row in the embedding matrix."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens(special)
    tokenizer.save_pretrained(folder)
    return tokenizer


def test_a_padding_token_without_a_row_is_replaced(backbone, folder):
    expected = untrained(backbone("llama")).embed(SENTENCES)
    path = folder("llama")
    rows = transformers.AutoConfig.from_pretrained(path).vocab_size
    assert beyond(path, pad_token="<pad>").pad_token_id >= rows
    embedder = untrained(str(path))
    torch.testing.assert_close(embedder.embed(SENTENCES), expected)
    assert embedder.tokenizer.pad_token_id < rows
    assert max(embedder.tokenizer("A <pad> here")["input_ids"]) < rows


def test_the_same_in_a_saved_model(backbone, tmp_path):
    encoder = untrained(backbone("llama")).encoder
    expected = encoder.encode(SENTENCES, normalize_embeddings=True)
    encoder.save(str(tmp_path))
    beyond(tmp_path, pad_token="<pad>", additional_special_tokens=["<tool>"])
    embedder = Embedder.open(tmp_path)
    np.testing.assert_allclose(embedder.encode(SENTENCES), expected, atol=1e-5)
    assert np.isfinite(embedder.encode(["a <tool> call", "b"])).all()


def test_vocabulary_without_rows_is_refused(folder):
    path = folder("llama")
    model = transformers.AutoModelForCausalLM.from_pretrained(path)
    model.resize_token_embeddings(200)
    model.save_pretrained(path)
    with pytest.raises(UserError, match="has tokens without a row in the model's embedding matrix of 200 rows"):
        untrained(str(path))


def test_positions_that_begin_at_the_padding_id_are_counted(folder):
    path = folder("roberta")
    offset = 1 + transformers.AutoConfig.from_pretrained(path).pad_token_id
    longest = 320 - offset
    with pytest.raises(UserError, match=f"reads at most {longest} tokens"):
        untrained(str(path), max_length=longest + 1)
    assert untrained(str(path), max_length=longest).embed(["cat " * 1000]).isfinite().all()


def test_a_saved_model_that_promises_one_position_too_many(backbone, tmp_path):
    untrained(backbone("roberta")).encoder.save(str(tmp_path))
    edited(tmp_path, "tokenizer_config.json", model_max_length=320)
    assert np.isfinite(Embedder.open(tmp_path).encode(["cat " * 1000])).all()


def test_a_reranker_is_refused_as_one(backbone, tmp_path):
    CrossEncoder(backbone("bert"), num_labels=1).save(str(tmp_path))
    for load in (Embedder.open, load_saved):
        with pytest.raises(UserError, match=r"is a (CrossEncoder|BertForSequenceClassification)"):
            load(str(tmp_path))


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_a_classifier_is_no_language_model(folder, family):
    path = folder(family)
    kind = {"llama": "LlamaForSequenceClassification", "bert": "BertForSequenceClassification"}[family]
    edited(path, "config.json", architectures=[kind])
    with pytest.raises(UserError, match=f"is a {kind}, and no language model"):
        untrained(str(path))


@pytest.mark.parametrize("sign", ["kind", "similarity", "module", "architecture"])
def test_a_multi_vector_model_is_refused_as_one(backbone, tmp_path, sign):
    untrained(backbone("bert")).encoder.save(str(tmp_path))
    if sign == "kind":
        edited(tmp_path, "config_sentence_transformers.json", model_type="MultiVectorEncoder")
    if sign == "similarity":
        edited(tmp_path, "config_sentence_transformers.json", similarity_fn_name="MaxSim")
    if sign == "module":
        modules = json.loads((tmp_path / "modules.json").read_text())
        modules[1]["type"] = "pylate.models.Dense.Dense"
        (tmp_path / "modules.json").write_text(json.dumps(modules))
    if sign == "architecture":
        (tmp_path / "modules.json").unlink()
        edited(tmp_path, "config.json", architectures=["HF_ColBERT"])
    with pytest.raises(UserError, match=r"MultiVectorEncoder|multi-vector model"):
        Embedder.open(str(tmp_path))


@pytest.mark.parametrize("kind", ["backbone", "model"])
def test_code_of_a_model_is_never_run(backbone, tmp_path, kind):
    if kind == "backbone":
        shutil.copytree(backbone("llama"), tmp_path, dirs_exist_ok=True)
    else:
        untrained(backbone("llama")).encoder.save(str(tmp_path))
    (tmp_path / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    edited(
        tmp_path,
        "config.json",
        model_type="unheard-of",
        auto_map={name: f"own.{name}" for name in ("AutoConfig", "AutoModel", "AutoModelForCausalLM")},
    )
    with pytest.raises(UserError, match=r"needs its own Python code \(trust_remote_code\)"):
        Embedder.open(str(tmp_path))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("method", "package"),
    [
        ({"quant_method": "compressed-tensors", "config_groups": {}}, "compressed"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"quant_method": "torchao", "quant_type": "int8_weight_only"}, "torchao"),
        ({"quant_method": "gptq", "bits": 4}, "gptq|optimum"),
        ({"quant_method": "awq", "bits": 4}, "gptq|awq"),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else None,
)
def test_the_missing_package_of_a_quantised_checkpoint_is_named(folder, method, package):
    path = folder("llama")
    edited(path, "config.json", quantization_config=method)
    with pytest.raises(UserError, match=f"(?i)^Cannot load '.*llama': .*({package})") as caught:
        untrained(str(path))
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(
    "error", [RuntimeError("a\nb"), KeyError("x"), Exception(), MemoryError(), AttributeError("y")]
)
def test_any_exception_of_a_library_is_one_sentence(backbone, monkeypatch, error):
    def fail(*_, **__):
        raise error

    path = backbone("llama")
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(UserError, match=f"^Cannot load '{path}': [^\n]+$") as caught:
        untrained(path)
    assert caught.value.__cause__ is error


_LAYERS = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("T5", {"d_model": 32, "num_layers": 1, "num_heads": 2, "d_ff": 32, "d_kv": 16}),
        ("Bart", {"d_model": 32, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, **_LAYERS}),
    ],
)
def test_an_encoder_decoder_is_refused_as_one(tmp_path, kind, settings):
    config = getattr(transformers, f"{kind}Config")(vocab_size=99, **settings)
    getattr(transformers, f"{kind}ForConditionalGeneration")(config).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=f"^'{tmp_path}' is an encoder-decoder \\({kind.lower()}\\), [^\n]*: use one of"
    ):
        load_head(str(tmp_path))


def test_an_adapter_alone_is_to_be_merged(folder):
    path = folder("llama")
    model = transformers.LlamaForCausalLM.from_pretrained(path)
    get_peft_model(model, LoraConfig(target_modules=["q_proj"], r=2)).save_pretrained(path / "adapter")
    with pytest.raises(
        UserError, match=f"adapter' is an adapter of '{path}', and no whole model: merge it into that model"
    ):
        untrained(str(path / "adapter"))


def test_a_language_model_without_a_fast_tokenizer_is_refused(folder):
    path = folder("llama")
    for file in path.glob("tokenizer*"):
        file.unlink()
    transformers.ByT5Tokenizer().save_pretrained(path)
    with pytest.raises(UserError, match="llama' has no fast tokenizer of transformers"):
        untrained(str(path))


def test_a_quoted_reason_ends_with_one_full_stop(backbone, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("Some tensors are missing.")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", fail)
    with pytest.raises(UserError, match=r"tensors are missing\. The file or folder is damaged"):
        untrained(backbone("llama"))


def test_an_unknown_token_without_its_id_is_one_sentence(backbone, tmp_path):
    encoder = untrained(backbone("llama")).encoder
    encoder.save(str(tmp_path))
    state = json.loads((tmp_path / "tokenizer.json").read_text())
    state["model"] = {"type": "WordLevel", "vocab": state["model"]["vocab"], "unk_token": "<none>"}
    (tmp_path / "tokenizer.json").write_text(json.dumps(state))
    embedder = Embedder.open(tmp_path)
    known = next(iter(word for word in state["model"]["vocab"] if word.isalpha() and len(word) > 2))
    with pytest.raises(UserError, match=r"cannot read text 1 \('zzzzqqq'\): "):
        embedder.encode([known, "zzzzqqq", known])


def test_loading_leaves_the_random_numbers_of_all_devices_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    with loading("model"):
        torch.rand(1)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []


@pytest.mark.parametrize("name", ["dot", "cosine", "euclidean"])
def test_the_similarity_that_a_model_was_made_for_is_kept(backbone, tmp_path, name):
    encoder = untrained(backbone("bert")).encoder
    encoder.similarity_fn_name = name
    encoder.save(str(tmp_path))
    embedder = Embedder.open(tmp_path)
    assert embedder.similarity == name
    vectors = embedder.encode(SENTENCES)
    expected = encoder.encode(SENTENCES, normalize_embeddings=name == "cosine")
    np.testing.assert_allclose(vectors, expected, atol=1e-5, rtol=1e-5)


def test_a_language_model_has_cosine_similarity(backbone):
    assert untrained(backbone("llama")).similarity == "cosine"


def test_a_gguf_ending_may_be_written_in_capitals(tmp_path):
    with pytest.raises(UserError, match=r"no backbone at .*S\.GGUF"):
        Embedder.open(tmp_path / "S.GGUF")


def test_a_plain_folder_is_the_same_after_loading_once(backbone, tmp_path):
    embedder = untrained(backbone("llama"), template=TEMPLATES["keywords"])
    embedder.calibrate(CORPUS)
    embedder.save(tmp_path)
    plain = SentenceTransformer(str(tmp_path / "dense"))
    np.testing.assert_allclose(plain.encode(SENTENCES), embedder.encode(SENTENCES), atol=1e-6)
    assert type(plain[0]).__qualname__ == "Transformer"
    assert plain[0].config.to_dict().get("use_cache") is False
