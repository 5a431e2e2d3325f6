"""Baselines do what their papers say."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from conftest import DECODERS, SENTENCES, of_recipe, untrained
from text2token import Embedder, Recipe, UserError
from text2token.evaluation import LearnedCorrection, untrained_model
from text2token.model.echo import echo_embedder
from text2token.training.baselines import run as fit
from text2token.training.baselines.mntp import MaskedNextToken
from text2token.training.baselines.run import fit_baseline
from text2token.training.baselines.simcse import SimCSE, set_dropout
from text2token.training.baselines.tsdae import DenoisingAutoEncoder
from text2token.training.objective import pooled


@pytest.mark.parametrize("family", ["llama", "gpt_neox", "bert"])
@pytest.mark.parametrize("pooling", ["mean", "last"])
def test_echo_pools_the_second_copy(backbone, family, pooling):
    embedder = echo_embedder(Recipe(backbone=backbone(family), pooling=pooling, max_length=128))
    tokenizer, body = embedder.tokenizer, embedder.encoder[0].model
    text = AutoTokenizer.from_pretrained(backbone(family))(SENTENCES[0], add_special_tokens=False)["input_ids"]
    encoded = tokenizer(SENTENCES[0], return_tensors="pt")
    ids = encoded["input_ids"][0].tolist()
    starts = [i for i in range(len(ids)) if ids[i : i + len(text)] == text]
    assert len(starts) == 2
    types = encoded["token_type_ids"] if family == "bert" else None
    with torch.no_grad():
        inputs = {"input_ids": encoded["input_ids"]} | ({"token_type_ids": types} if types is not None else {})
        hidden = body(**inputs).last_hidden_state[0]
    copy = hidden[starts[1] : starts[1] + len(text)]
    expected = copy.mean(0) if pooling == "mean" else copy[-1]
    torch.testing.assert_close(embedder.embed(SENTENCES)[0], expected, atol=1e-4, rtol=1e-4)  # in a padded batch


def test_both_copies_are_cut_alike(backbone):
    embedder = echo_embedder(Recipe(backbone=backbone("llama"), max_length=80))
    encoded = embedder.tokenizer(" ".join(SENTENCES * 3), truncation=True)
    types = encoded["token_type_ids"]
    assert len(types) <= 80
    second = [i for t, i in zip(types, encoded["input_ids"], strict=True) if t]
    ids = encoded["input_ids"]
    assert sum(ids[i : i + len(second)] == second for i in range(len(ids))) == 2
    with pytest.raises(UserError, match="leaves no room for text in 16"):
        echo_embedder(Recipe(backbone=backbone("llama"), max_length=16, train_length=8))


def test_the_folder_of_a_baseline_opens_as_an_embedder_without_a_head(backbone, tmp_path):
    encoder = untrained(backbone("llama"), max_length=64).encoder
    encoder.save(str(tmp_path / "model" / "dense"), create_model_card=False)
    loaded = Embedder.open(tmp_path / "model")
    np.testing.assert_allclose(loaded.encoder.encode(SENTENCES), encoder.encode(SENTENCES), atol=1e-5)
    assert loaded.head is None


def test_echo_is_a_training_free_setting(backbone):
    plain, echo = (
        untrained_model(Recipe(backbone=backbone("llama"), template=name, pooling="mean"), LearnedCorrection())
        for name in ("none", "echo")
    )
    assert plain.revision != echo.revision
    assert "echo" in echo.name


QUICK = {"max_texts": 64, "held_out": 16, "batch_size": 8, "train_length": 40, "max_length": 128, "correction": "none"}
TEXTS = [f"{text[:-1]}, part {i}." for i in range(10) for text in SENTENCES]


@pytest.fixture
def recipe(backbone):
    def make(**settings):
        return Recipe(**{"backbone": backbone("llama"), "template": "none", "pooling": "mean", **QUICK, **settings})

    return make


def test_two_views_of_a_text_differ_in_training_only(backbone):
    encoder = of_recipe(Recipe(backbone=backbone("llama"), pooling="mean", template="none")).encoder
    body = encoder[0].model
    set_dropout(body)
    objective = SimCSE(encoder)
    inputs = objective.collate([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 9]}], pad=0)
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 0]] * 2
    first, second = pooled(body, encoder[1], inputs).chunk(2)
    torch.testing.assert_close(first, second)
    body.train()
    first, second = pooled(body, encoder[1], inputs).chunk(2)
    assert (first - second).abs().max() > 1e-3
    torch.manual_seed(3)
    loss, _ = objective(body, inputs)
    torch.manual_seed(3)
    first, second = pooled(body, encoder[1], inputs).chunk(2)
    cosines = torch.nn.functional.cosine_similarity(first[:, None], second[None], dim=-1)
    torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(20 * cosines, torch.arange(2)))


def test_masked_tokens_are_predicted_from_the_position_before(backbone):
    embedder = of_recipe(Recipe(backbone=backbone("llama"), pooling="mean", attention="bidirectional"))
    tokenizer = AutoTokenizer.from_pretrained(backbone("llama"))
    objective = MaskedNextToken(embedder.encoder[1], embedder.decoding_head, tokenizer, seed=0)
    rows = [{"input_ids": tokenizer(text)["input_ids"]} for text in SENTENCES * 20]
    inputs = objective.collate(rows, tokenizer.pad_token_id or 0)
    labels, ids, real = inputs["labels"], inputs["input_ids"], inputs["attention_mask"].bool()
    original = torch.nn.utils.rnn.pad_sequence([torch.tensor(row["input_ids"]) for row in rows], batch_first=True)
    masked = labels != -100
    assert torch.equal(labels[masked], original[masked])
    assert torch.equal(ids[~masked & real], original[~masked & real])
    assert not masked[:, 0].any()
    assert not masked[~real].any()
    assert masked.sum() / real[:, 1:].sum() == pytest.approx(0.2, abs=0.03)
    assert (ids[masked] == objective._mask).float().mean() == pytest.approx(0.8, abs=0.05)
    assert (ids[masked] == original[masked]).float().mean() == pytest.approx(0.1, abs=0.05)
    assert torch.equal(objective.collate(rows, 0)["labels"], labels)  # the same masks at each look
    loss, _ = objective(embedder.encoder[0].model, inputs)
    with torch.no_grad():
        hidden = embedder.encoder[0].model(input_ids=ids, attention_mask=inputs["attention_mask"]).last_hidden_state
        logits = embedder.decoding_head(hidden[:, :-1].flatten(0, 1))
        expected = torch.nn.functional.cross_entropy(logits, labels[:, 1:].flatten())
    torch.testing.assert_close(loss, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("method", "settings"),
    [("simcse", {}), ("llm2vec", {"attention": "bidirectional", "stage_1": 0.5}), ("tsdae", {"pooling": "last"})],
)
def test_a_baseline_learns_and_is_a_plain_folder(method, settings, recipe, tmp_path):
    model = fit_baseline(method, TEXTS, tmp_path / "m", recipe(learning_rate=3e-3, **settings))
    vectors = SentenceTransformer(str(tmp_path / "m" / "dense")).encode(SENTENCES)
    np.testing.assert_allclose(vectors, model.encode(SENTENCES), atol=1e-5)
    untrained = of_recipe(recipe(**settings)).encode(SENTENCES)
    assert np.abs(vectors - untrained).max() > 0.01
    run = json.loads((tmp_path / "m" / "run.json").read_text())
    assert {row["stage"] for row in run["log"]} == ({1, 2} if method == "llm2vec" else {1})
    losses = [row["eval_loss"] for row in run["log"] if row["stage"] == 1 and "eval_loss" in row]
    assert losses[-1] < losses[0]
    assert max(row.get("num_input_tokens_seen", 0) for row in run["log"]) > 64 * 2
    config = json.loads((tmp_path / "m" / "dense" / "config.json").read_text())
    assert config["attention_dropout"] == 0.0


def test_a_text_is_written_again_from_its_embedding(backbone):
    embedder = of_recipe(Recipe(backbone=backbone("llama"), template="none"))
    body, head = embedder.encoder[0].model, embedder.decoding_head
    objective = DenoisingAutoEncoder(embedder.encoder[1], head, embedder.tokenizer, seed=0)
    rows = [{"input_ids": [5, 6, 7, 8, 9, 10]}, {"input_ids": [11, 12, 13]}]
    inputs = objective.collate(rows, pad=0)
    for row, left, real in zip(rows, inputs["input_ids"], inputs["attention_mask"].bool(), strict=True):
        rest = iter(row["input_ids"])
        assert all(token in rest for token in left[real].tolist())  # in order, none invented
    many = objective.collate(
        [{"input_ids": list(range(20))} for _ in range(1)] + [{"input_ids": list(range(1, 2000))}], 0
    )
    assert many["attention_mask"][1].sum() / 1999 == pytest.approx(0.4, abs=0.05)
    control = embedder.tokenizer.all_special_ids[0]
    begun = objective.collate([{"input_ids": [control, *range(20, 24), seed + 30]} for seed in range(20)], 0)
    assert (begun["input_ids"][:, 0] == control).all()
    loss, embeddings = objective(body, inputs)
    terms = []
    for row, embedding in zip(rows, embeddings, strict=True):  # one text at a time, token by token
        read = torch.cat([embedding[None], body.get_input_embeddings()(torch.tensor(row["input_ids"]))])[:-1]
        logits = head(body(inputs_embeds=read[None]).last_hidden_state[0])
        terms.append(torch.nn.functional.cross_entropy(logits, torch.tensor(row["input_ids"]), reduction="none"))
    torch.testing.assert_close(loss, torch.cat(terms).mean(), atol=1e-4, rtol=1e-4)


def test_a_killed_baseline_goes_on(recipe, tmp_path, monkeypatch):
    settings = recipe(attention="bidirectional", stage_1=0.5)
    whole = fit_baseline("llm2vec", TEXTS, tmp_path / "whole", settings).encode(SENTENCES)
    train, stages = fit.train_stage, []

    def die(*arguments, **options):
        stages.append(options["name"])
        if len(stages) == 2:
            raise KeyboardInterrupt
        return train(*arguments, **options)

    monkeypatch.setattr(fit, "train_stage", die)
    with pytest.raises(KeyboardInterrupt):
        fit_baseline("llm2vec", TEXTS, tmp_path / "m", settings)
    monkeypatch.setattr(fit, "train_stage", train)
    np.testing.assert_allclose(
        fit_baseline("llm2vec", TEXTS, tmp_path / "m", settings).encode(SENTENCES), whole, atol=1e-5
    )


def test_what_a_baseline_cannot_do_is_one_sentence(recipe, tmp_path, backbone):
    with pytest.raises(UserError, match="no baseline 'tsne'"):
        fit_baseline("tsne", TEXTS, tmp_path / "m", recipe())
    with pytest.raises(UserError, match="without a teacher: leave `teacher` out"):
        fit_baseline("simcse", TEXTS, tmp_path / "m", recipe(teacher="all-minilm-l6-v2"))
    with pytest.raises(UserError, match="attention in both directions"):
        fit_baseline("llm2vec", TEXTS, tmp_path / "m", recipe())
    with pytest.raises(UserError, match="from left to right"):
        fit_baseline("tsdae", TEXTS, tmp_path / "m", recipe(attention="bidirectional"))
    with pytest.raises(UserError, match="leaves one without texts"):
        fit_baseline("llm2vec", TEXTS, tmp_path / "m", recipe(attention="bidirectional", stage_1=1.0))
    with pytest.raises(UserError, match="no room for text in 12"):
        fit_baseline("simcse", TEXTS, tmp_path / "m", recipe(template="keywords", train_length=12))
    assert not list(tmp_path.iterdir())


def test_a_body_without_dropout_says_so(backbone, monkeypatch):
    monkeypatch.setattr("text2token.training.baselines.simcse._DROPOUT", 0.0)
    body = of_recipe(Recipe(backbone=backbone("llama"), template="none")).encoder[0].model
    with pytest.raises(UserError, match="SimCSE needs dropout, and LlamaModel has none"):
        set_dropout(body)


@pytest.mark.parametrize("family", [*DECODERS, "bert"])
def test_every_family_has_dropout(backbone, family):
    body = of_recipe(Recipe(backbone=backbone(family), template="none")).encoder[0].model
    set_dropout(body)
    assert not body.training
