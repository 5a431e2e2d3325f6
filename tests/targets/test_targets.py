"""Targets by hand, by independent implementations and by invariance."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from conftest import CORPUS, SENTENCES, byte_bpe, of_recipe, untrained
from text2token.model.embedder import Embedder
from text2token.model.probes import attends_ahead
from text2token.model.tokens import count_tokens
from text2token.model.vocabulary import read_vocabulary
from text2token.settings.recipe import Recipe
from text2token.settings.templates import TEMPLATES
from text2token.targets import data_driven
from text2token.targets.base import Targets, from_matrix, mass_beyond, to_matrix
from text2token.targets.builders import Combined, TargetSettings
from text2token.targets.builders import make_builders as builders_of
from text2token.targets.data_driven import (
    CorpusStatistics,
    DataDriven,
    corpus_statistics,
    form_sharing,
)
from text2token.targets.model_derived import ModelDerived, Prior, estimate_prior
from text2token.training.pipeline import build_targets
from text2token.utils.errors import UserError

TOKENIZER = byte_bpe()
SIZE = len(TOKENIZER)
VOCABULARY = read_vocabulary(TOKENIZER, SIZE)
STATISTICS = corpus_statistics(CORPUS, TOKENIZER, SIZE, 64)


def make_builders(embedder, statistics, texts, recipe, weights):
    return builders_of(embedder, statistics, texts, recipe.part(TargetSettings), weights)


def builder(weighting="tf-idf", keep=None):
    keep = VOCABULARY.meaningful if keep is None else keep
    return DataDriven(TOKENIZER, STATISTICS, keep, VOCABULARY.special, weighting=weighting)


def test_statistics_equal_a_naive_count():
    document, collection = Counter(), Counter()
    for text in CORPUS:
        ids = TOKENIZER(text)["input_ids"][:64]
        collection.update(ids)
        document.update(set(ids))
    assert STATISTICS.texts == len(CORPUS)
    assert {i: n for i, n in enumerate(STATISTICS.document_frequency) if n} == dict(document)
    assert {i: n for i, n in enumerate(STATISTICS.collection_frequency) if n} == dict(collection)


def test_statistics_read_a_stream_once():
    stream = iter(CORPUS)
    assert corpus_statistics(stream, TOKENIZER, SIZE, 64).texts == len(CORPUS)
    assert next(stream, None) is None


def naive(weighting, text):
    """The formulas, a token at a time."""
    ids = TOKENIZER(text)["input_ids"][:64]
    n, total = STATISTICS.texts, STATISTICS.collection_frequency.sum()
    weights = {}
    for token, tf in Counter(ids).items():
        if not VOCABULARY.meaningful[token]:
            continue
        df, cf = STATISTICS.document_frequency[token], max(STATISTICS.collection_frequency[token], 1)
        weights[token] = {
            "uniform": 1.0,
            "tf-idf": (1 + math.log(tf)) * math.log(1 + n / (1 + df)),
            "bm25": math.log(1 + (n - df + 0.5) / (df + 0.5))
            * tf
            * 2.2
            / (tf + 1.2 * (0.25 + 0.75 * len(ids) / (total / n))),
            "pmi": max(0.0, math.log((tf / len(ids)) / (cf / total))),
        }[weighting]
    norm = sum(weights.values())
    return {token: weight / norm for token, weight in weights.items() if weight}


@pytest.mark.parametrize("weighting", ["uniform", "tf-idf", "bm25", "pmi"])
def test_weightings_equal_the_formulas(weighting):
    targets = builder(weighting)(SENTENCES)
    for text, ids, weights in zip(SENTENCES, *targets, strict=True):
        expected = naive(weighting, text)
        assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == pytest.approx(expected, rel=1e-5)


def test_statistics_do_not_depend_on_batches(monkeypatch):
    monkeypatch.setattr(data_driven, "_BATCH", 7)
    assert corpus_statistics(CORPUS, TOKENIZER, SIZE, 64).checksum == STATISTICS.checksum


def test_only_meaningful_tokens_of_the_text_are_targets():
    targets = builder()(SENTENCES)
    literal = count_tokens(TOKENIZER, SENTENCES, SIZE, None)
    assert mass_beyond(targets, literal, VOCABULARY.surface_groups).max() == 0
    assert all(VOCABULARY.meaningful[ids].all() for ids in targets.ids)


def test_forms_share_the_weight_of_a_token_and_stay_within_the_text():
    share = form_sharing(VOCABULARY)
    np.testing.assert_allclose(share.sum(axis=1), 1, atol=1e-6)
    merged = DataDriven(TOKENIZER, STATISTICS, VOCABULARY.meaningful, VOCABULARY.special, share)(SENTENCES)
    plain = builder()(SENTENCES)
    groups = VOCABULARY.surface_groups

    def by_group(ids, weights):
        return {g: weights[groups[ids] == g].sum() for g in set(groups[ids])}

    for i in range(len(SENTENCES)):
        assert by_group(merged.ids[i], merged.weights[i]) == pytest.approx(
            by_group(plain.ids[i], plain.weights[i]), abs=1e-5
        )
    assert any(len(ids) > len(other) for ids, other in zip(merged.ids, plain.ids, strict=True))
    literal = count_tokens(TOKENIZER, SENTENCES, SIZE, None)
    assert mass_beyond(merged, literal, groups).max() == 0


def test_mass_beyond_by_hand():
    targets = Targets([np.array([1, 2, 3], np.int32)], [np.array([0.5, 0.3, 0.2], np.float32)])
    counts = to_matrix(Targets([np.array([4], np.int32)], [np.array([1], np.float32)]), 5)
    groups = np.array([0, 1, 2, 3, 1])  # 1 and 4 are forms of one word
    assert mass_beyond(targets, counts, groups).tolist() == pytest.approx([0.5])


def test_a_text_of_stop_words_keeps_them_and_one_without_tokens_has_no_target():
    targets = builder()(["the of and", "", "cat"])
    assert targets.weights[0].sum() == pytest.approx(1)
    assert len(targets.ids[1]) == 0
    assert len(targets.ids[2]) > 0


@given(st.lists(st.text(max_size=60), min_size=1, max_size=6), st.sampled_from(["uniform", "tf-idf", "bm25", "pmi"]))
def test_any_text_gives_a_distribution_or_nothing(texts, weighting):
    targets = builder(weighting)(texts)
    assert len(targets.ids) == len(texts)
    for ids, weights in zip(*targets, strict=True):
        assert len(ids) == len(weights) == len(set(ids.tolist()))
        assert (weights > 0).all()
        assert len(weights) == 0 or weights.sum() == pytest.approx(1, abs=1e-5)


def test_a_batch_is_its_texts():
    together, alone = builder()(SENTENCES), [builder()([text]) for text in SENTENCES]
    for i, single in enumerate(alone):
        np.testing.assert_array_equal(together.ids[i], single.ids[0])
        np.testing.assert_allclose(together.weights[i], single.weights[0])


def test_matrix_and_back():
    targets = Targets(
        [np.array([2, 5], np.int32), np.array([], np.int32)],
        [np.array([0.25, 0.75], np.float32), np.array([], np.float32)],
    )
    matrix = to_matrix(targets, 7)
    assert matrix.toarray().tolist() == [[0, 0, 0.25, 0, 0, 0.75, 0], [0] * 7]
    again = from_matrix(matrix)
    assert [ids.tolist() for ids in again.ids] == [[2, 5], []]
    assert again.weights[0].tolist() == [0.25, 0.75]


def fixed(ids, weights):
    return lambda texts: Targets([np.array(ids, np.int32)] * len(texts), [np.array(weights, np.float32)] * len(texts))


def test_combined_by_hand():
    mixed = Combined(fixed([1, 2], [0.5, 0.5]), fixed([2, 3], [0.25, 0.75]), 0.4, 5)(["x"])
    assert dict(zip(mixed.ids[0].tolist(), mixed.weights[0].tolist(), strict=True)) == pytest.approx(
        {1: 0.2, 2: 0.35, 3: 0.45}
    )
    alone = Combined(fixed([], []), fixed([2, 3], [0.25, 0.75]), 0.4, 5)(["x"])
    assert dict(zip(alone.ids[0].tolist(), alone.weights[0].tolist(), strict=True)) == pytest.approx({2: 0.25, 3: 0.75})


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_model_derived_equals_the_definition(backbone, family):
    template = TEMPLATES["eol"]
    reference = untrained(backbone(family), pooling="last", template=template, max_length=64)
    keep = read_vocabulary(reference.tokenizer, reference.vocabulary_size).meaningful
    build = ModelDerived(
        lambda: untrained(backbone(family)), "", (template,), tuple(CORPUS[:40]), keep, top_k=7, temperature=0.5
    )
    targets = build(SENTENCES)
    with torch.no_grad():
        logits = reference.head(reference.embed(SENTENCES)) - reference.head(reference.embed(CORPUS[:40])).mean(0)
    logits[:, ~torch.from_numpy(keep)] = -torch.inf
    for row, ids, weights in zip(logits, *targets, strict=True):
        best = row.argsort(descending=True)[:7]
        assert ids.tolist() == best.tolist()
        np.testing.assert_allclose(weights, torch.softmax(row[best] / 0.5, 0).numpy(), atol=1e-4)


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 2.0},
        {"top_k": 3},
        {"prior_templates": "eol"},
        {"prior_texts": 9},
        {"train_length": 48},
        {"weighting": "bm25"},
        {"merge_forms": False},
        {"stop_words": "none"},
        {"max_document_share": 0.5},
        {"mixing": 0.3},
        {"mixing": 0.0},
        {"mixing": 1.0},
    ],
    ids=str,
)
def test_targets_of_another_recipe_are_told_apart(backbone, change):
    embedder, plain = untrained(backbone("llama")), Recipe(backbone=backbone("llama"))
    recipes = plain, plain.model_copy(update=change)
    one, other = (make_builders(embedder, STATISTICS, CORPUS, recipe, "")[2].settings for recipe in recipes)
    assert one != other


def test_a_mixture_of_data_driven_targets_alone_asks_no_prior(backbone):
    recipe = Recipe(backbone=backbone("llama"), mixing=1.0)
    builders = make_builders(untrained(recipe.backbone), STATISTICS, CORPUS, recipe, "")
    assert builders[2] is builders[1]


def test_fragments_are_no_model_derived_targets(backbone):
    embedder, recipe = untrained(backbone("llama")), Recipe(backbone=backbone("llama"), mixing=0.0)
    build = make_builders(embedder, STATISTICS, CORPUS, recipe, "")[2]
    assert VOCABULARY.fragment.any()
    assert not (build.keep & VOCABULARY.fragment).any()


@pytest.mark.parametrize("attention", ["own", "bidirectional"])
def test_priors_share_the_weights_of_one_embedder(backbone, attention):
    recipe = Recipe(backbone=backbone("llama"), mixing=0.0, attention=attention, prior_templates="eol,topic")
    embedder = untrained(backbone("llama"), attention=attention)
    build = make_builders(embedder, STATISTICS, CORPUS, recipe, "")[2]
    bodies = {id(prior.embedder.encoder[0].model) for prior in build.priors}
    assert len(bodies) == 1
    assert (bodies == {id(embedder.encoder[0].model)}) is (attention == "own")
    assert not attends_ahead(build.priors[0].embedder.encoder[0].model)  # as the backbone was trained


def test_priors_are_averaged_over_templates(backbone):
    keep = np.ones(SIZE, bool)

    def logits(*names):
        templates = tuple(TEMPLATES[name] for name in names)
        build = ModelDerived(lambda: untrained(backbone("llama")), "", templates, tuple(CORPUS[:20]), keep, top_k=SIZE)
        targets = build(SENTENCES)
        rows = np.zeros((len(SENTENCES), SIZE))
        for row, ids, weights in zip(rows, *targets, strict=True):
            row[ids] = np.log(weights)
        return rows - rows.mean(axis=1, keepdims=True)

    both = (logits("eol") + logits("topic")) / 2
    np.testing.assert_allclose(logits("eol", "topic"), both, atol=1e-3)
    assert np.abs(logits("eol") - both).max() > 0.1


def test_texts_of_the_mean_are_not_encoded_again(backbone, monkeypatch):
    embedder, encoded = untrained(backbone("llama")), []
    embed = Embedder.embed
    monkeypatch.setattr(Embedder, "embed", lambda self, texts: encoded.extend(texts) or embed(self, texts))
    prior = estimate_prior(embedder, CORPUS[:20])
    fresh = Prior(embedder, prior.mean_logits, {})
    mixed = [*CORPUS[10:20], *CORPUS[20:30], CORPUS[25]]
    torch.testing.assert_close(prior(mixed), fresh(mixed), rtol=0, atol=1e-4)
    assert encoded == [*CORPUS[:20], *CORPUS[20:30], *mixed[:20]]


def test_over_frequent_tokens_are_dropped_without_a_stop_list(backbone):
    embedder = untrained(backbone("llama"))
    statistics = corpus_statistics(CORPUS, embedder.tokenizer, embedder.vocabulary_size, 64)
    recipe = Recipe(backbone=backbone("llama"), stop_words="none", max_document_share=0.5, merge_forms=False)
    targets = make_builders(embedder, statistics, CORPUS, recipe, "")[1](SENTENCES)
    the = {i for i, s in enumerate(VOCABULARY.surfaces) if s == " the"}
    assert statistics.document_frequency[list(the)].max() > 0.5 * len(CORPUS)
    assert not any(the & set(ids.tolist()) for ids in targets.ids)


def test_no_form_of_an_over_frequent_word_is_a_target(backbone):
    embedder = untrained(backbone("llama"))
    texts = [*CORPUS, "Cat and garden.", "Garden and stars."]  # " cat" is in a fifth of the texts, "Cat" in one
    statistics = corpus_statistics(texts, embedder.tokenizer, embedder.vocabulary_size, 64)
    recipe = Recipe(backbone=backbone("llama"), stop_words="none", max_document_share=0.15)
    frequent = {i for i, s in enumerate(VOCABULARY.surfaces) if s.strip().casefold() == "cat"}
    assert statistics.document_frequency[list(frequent)].max() > 0.15 * len(texts)
    ids = make_builders(embedder, statistics, texts, recipe, "")[1](["Cat and garden."]).ids[0]
    assert len(ids)
    assert not frequent & set(ids.tolist())


def test_targets_are_of_what_the_body_reads(backbone):
    recipe = Recipe(backbone=backbone("llama"), train_length=24, max_length=24)
    embedder = of_recipe(recipe)
    read = embedder.tokenizer(SENTENCES[4], truncation=True, max_length=24)["input_ids"]
    statistics = corpus_statistics(CORPUS, embedder.tokenizer, embedder.vocabulary_size, 64)
    build = make_builders(embedder, statistics, CORPUS, recipe.model_copy(update={"merge_forms": False}), "")[1]
    assert len(embedder.tokenizer(SENTENCES[4])["input_ids"]) > 24
    assert set(build([SENTENCES[4]]).ids[0].tolist()) <= set(read)


def test_a_book_is_tokenised_no_further_than_it_is_read(monkeypatch):
    book = " ".join(SENTENCES) * 2000
    seen = []
    backend = TOKENIZER.backend_tokenizer

    class Watched:
        truncation = None

        def encode_batch_fast(self, batch, **options):
            seen.extend(map(len, batch))
            return backend.encode_batch_fast(batch, **options)

        def encode(self, text, **options):
            return self.encode_batch_fast([text], **options)[0]

    monkeypatch.setattr(type(TOKENIZER), "backend_tokenizer", Watched())
    counts = count_tokens(TOKENIZER, [book], SIZE, 64)
    monkeypatch.undo()
    assert max(seen) <= 64 * 64
    assert (counts != count_tokens(TOKENIZER, [book[:2000]], SIZE, 64)).nnz == 0


def test_recipe_decides_the_second_stage(backbone):
    embedder = untrained(backbone("llama"))
    statistics = CorpusStatistics(1, np.zeros(embedder.vocabulary_size, int), np.zeros(embedder.vocabulary_size, int))
    names = {
        mixing: make_builders(embedder, statistics, CORPUS, Recipe(backbone=backbone("llama"), mixing=mixing), "")[
            2
        ].settings["builder"]
        for mixing in (0.0, 0.5)
    }
    assert names == {0.0: "model-derived", 0.5: "combined"}


def test_targets_of_another_frequency_are_not_taken_for_these(backbone, tmp_path):
    recipe = Recipe(backbone=backbone("llama"), max_texts=30, held_out=4, stage_1=1.0)
    again = [*CORPUS, *CORPUS[:20]]  # the same distinct texts, but other document frequencies
    store, _ = build_targets(CORPUS, str(tmp_path / "s"), 1, recipe)
    (tmp_path / "texts.txt").write_text("\n".join(CORPUS))
    same, _ = build_targets(tmp_path / "texts.txt", tmp_path / "s", 1, recipe)
    assert same.manifest == store.manifest
    with pytest.raises(UserError, match="different settings"):
        build_targets(again, tmp_path / "s", 1, recipe)
