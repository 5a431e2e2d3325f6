"""Backbones of every family, their heads, attention, template and pooling."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
import transformers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from conftest import DECODERS, MASKED, SENTENCES
from text2token.model.backbone import load_encoder, load_head
from text2token.model.embedder import Embedder
from text2token.model.probes import attends_ahead
from text2token.settings.templates import TEMPLATES, Template
from text2token.utils.errors import UserError


def plain_encoder(name, **settings):
    return load_encoder(name, **{"pooling": "mean", "template": Template(), **settings})


@pytest.mark.parametrize("family", [*DECODERS, "gemma2", "gpt2", *MASKED])
def test_head_gives_the_models_own_logits(backbone, family):
    path = backbone(family)
    encoder, head = plain_encoder(path)
    auto = transformers.AutoModelForMaskedLM if family in MASKED else transformers.AutoModelForCausalLM
    model = auto.from_pretrained(path).eval()
    ids = torch.tensor([[5, 9, 17, 30]])
    with torch.no_grad():
        hidden = encoder[0].auto_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(head(hidden), model(input_ids=ids).logits, rtol=1e-4, atol=1e-4)
    assert not any(parameter.requires_grad for parameter in head.parameters())


@pytest.mark.parametrize("family", DECODERS)
def test_attention_switch_is_obeyed_and_saved(backbone, family, tmp_path):
    for attention, ahead in (("causal", False), ("bidirectional", True)):
        encoder, _ = plain_encoder(backbone(family), attention=attention)
        assert attends_ahead(encoder[0].auto_model) is ahead
        encoder.save(str(tmp_path / attention))
        again = transformers.AutoModel.from_pretrained(tmp_path / attention)
        assert attends_ahead(again.eval()) is ahead


@pytest.mark.parametrize("family", MASKED)
def test_the_last_hidden_state_of_a_masked_model_is_the_mask(backbone, family):
    encoder, _ = plain_encoder(backbone(family), pooling="last", template=TEMPLATES["eol"])
    tokens = encoder.tokenizer.convert_ids_to_tokens(encoder.tokenizer("cat")["input_ids"])
    assert (tokens[0], tokens[-1]) == ("[CLS]", "[MASK]")
    assert "[SEP]" not in tokens
    mean, _ = plain_encoder(backbone(family), template=TEMPLATES["eol"])
    assert mean.tokenizer.convert_ids_to_tokens(mean.tokenizer("cat")["input_ids"])[-1] == "[SEP]"


def test_nothing_stands_after_the_template_of_a_decoder_that_is_read_at_its_end(backbone, tmp_path):
    shutil.copytree(backbone("llama"), tmp_path / "llama")
    tokenizer = PreTrainedTokenizerFast.from_pretrained(tmp_path / "llama")
    end = [("<|end|>", tokenizer.eos_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="$A <|end|>", special_tokens=end)
    tokenizer.save_pretrained(tmp_path / "llama")
    last, mean = (
        plain_encoder(str(tmp_path / "llama"), pooling=p, template=Template("(", ")"))[0] for p in ("last", "mean")
    )
    ids = last.tokenizer("cat")["input_ids"]
    assert last.tokenizer.decode(ids) == "(cat)"
    assert mean.tokenizer("cat")["input_ids"] == [*ids, tokenizer.eos_token_id]


def test_a_head_of_another_width_than_its_body_is_refused(tmp_path):
    config = transformers.ElectraConfig(
        vocab_size=100,
        embedding_size=16,
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
    )
    transformers.ElectraForMaskedLM(config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="reads 16 dimensions, and its body gives 32"):
        load_head(str(tmp_path))


def test_the_head_of_a_multimodal_model_is_its_language_models(tmp_path):
    text = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 64,
    }
    vision = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": 28,
    }
    config = transformers.Gemma3Config(
        text_config={**text, "num_key_value_heads": 1, "head_dim": 16},
        vision_config={**vision, "patch_size": 14},
        mm_tokens_per_image=4, image_token_index=5, boi_token_index=6, eoi_token_index=7,
    )  # fmt: skip
    transformers.Gemma3ForConditionalGeneration(config).save_pretrained(tmp_path)
    assert load_head(str(tmp_path)).weight.shape == (100, 32)


def test_the_look_ahead_needs_tokens_that_differ(backbone):
    body = plain_encoder(backbone("llama"), attention="bidirectional")[0][0].auto_model
    with torch.no_grad():
        body.get_input_embeddings().weight[:20] = 0.5  # entries that no text ever held, as SmolLM2's after quantisation
    assert attends_ahead(body)


def test_a_model_that_stays_causal_is_refused(backbone):
    with pytest.raises(UserError, match="stays causal"):
        plain_encoder(backbone("gpt_neo"), attention="bidirectional")


@pytest.mark.parametrize("family", [*DECODERS, "bert"])
@pytest.mark.parametrize("pooling", ["mean", "last", "weighted-mean"])
@pytest.mark.parametrize("template", ["none", "eol"])
def test_a_vector_does_not_depend_on_its_batch(backbone, family, pooling, template):
    encoder, _ = plain_encoder(backbone(family), pooling=pooling, template=TEMPLATES[template])
    together = encoder.encode(SENTENCES, batch_size=len(SENTENCES))
    alone = np.stack([encoder.encode([text])[0] for text in SENTENCES])
    np.testing.assert_allclose(together, alone, atol=2e-5)
    np.testing.assert_allclose(encoder.encode(SENTENCES[::-1], batch_size=3)[::-1], alone, atol=2e-5)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3", "gpt_neox", "opt"])
@pytest.mark.parametrize("pooling", ["mean", "last", "weighted-mean"])
def test_padding_side_does_not_change_a_vector(backbone, family, pooling):
    encoder, _ = plain_encoder(backbone(family), pooling=pooling, template=TEMPLATES["eol"])
    right = encoder.encode(SENTENCES)
    encoder.tokenizer.padding_side = "left"
    np.testing.assert_allclose(encoder.encode(SENTENCES), right, atol=2e-5)


@pytest.mark.parametrize("attention", ["causal", "bidirectional"])
def test_pooling_by_hand(backbone, attention):
    texts = SENTENCES[:1]
    expected = {}
    encoder, _ = plain_encoder(backbone("llama"), attention=attention)
    ids = encoder.tokenizer(texts, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = encoder[0].auto_model(input_ids=ids).last_hidden_state[0]
    position = torch.arange(1, len(hidden) + 1)[:, None]
    expected = {
        "mean": hidden.mean(0),
        "last": hidden[-1],
        "weighted-mean": (hidden * position).sum(0) / position.sum(),
    }
    for pooling, vector in expected.items():
        encoder, _ = plain_encoder(backbone("llama"), attention=attention, pooling=pooling)
        np.testing.assert_allclose(encoder.encode(texts)[0], vector.numpy(), atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_truncation_keeps_prefix_suffix_and_special_tokens(backbone, family):
    template = Template("see: ", " => word")
    encoder, _ = plain_encoder(backbone(family), template=template, max_length=32)
    tokenizer = encoder.tokenizer
    bare = {part: tokenizer(part, add_special_tokens=False)["input_ids"] for part in (template.prefix, template.suffix)}
    own = ([2], [3]) if family == "bert" else ([], [])
    for text in ("cat", "cat " * 100):
        ids = tokenizer(text, truncation=True)["input_ids"]
        start, end = own[0] + bare[template.prefix], bare[template.suffix] + own[1]
        assert ids[: len(start)] == start
        assert ids[-len(end) :] == end
        assert len(ids) <= 32
    assert len(ids) == 32


def test_a_chat_template_is_not_applied(backbone, tmp_path):
    assert transformers.AutoTokenizer.from_pretrained(backbone("llama")).chat_template
    encoder, _ = plain_encoder(backbone("llama"), template=TEMPLATES["eol"])
    encoder.save(str(tmp_path))
    for candidate in (encoder, type(encoder)(str(tmp_path))):
        ids = candidate.preprocess(SENTENCES[:1])["input_ids"][0].tolist()
        assert ids == encoder.tokenizer(SENTENCES[0])["input_ids"]
        assert encoder.tokenizer.eos_token_id not in ids


def test_a_template_longer_than_the_text_limit_is_refused(backbone):
    with pytest.raises(UserError, match="leaves no room"):
        plain_encoder(backbone("llama"), template=TEMPLATES["eol"], max_length=8)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"pooling": "max"}, "`pooling` is 'max': choose among mean, last, weighted-mean"),
        ({"template": "keywords"}, "`template` is 'keywords', which is no Template"),
        ({"top_k": 0}, "`top_k` is 0: give a whole number from 1 up"),
    ],
)
def test_a_setting_that_python_does_not_check_is_one_sentence(backbone, settings, sentence):
    with pytest.raises(UserError, match=sentence):
        Embedder.open(backbone("llama"), **settings)


def test_more_tokens_than_positions_are_refused(backbone):
    with pytest.raises(UserError, match="reads at most 320 tokens"):
        plain_encoder(backbone("opt"), max_length=321)


def test_a_model_without_head_is_refused(backbone, tmp_path):
    transformers.AutoModel.from_pretrained(backbone("bert")).save_pretrained(tmp_path)
    transformers.AutoTokenizer.from_pretrained(backbone("bert")).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="head"):
        plain_encoder(str(tmp_path))


@pytest.mark.parametrize("name", ["no-such-model", "./nowhere", "owner/unreachable", "missing.gguf"])
def test_an_unknown_backbone_is_one_sentence(name):
    with pytest.raises(UserError) as error:
        plain_encoder(name)
    assert name.strip("./") in str(error.value)
    assert "\n" not in str(error.value)
