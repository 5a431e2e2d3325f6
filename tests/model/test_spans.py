"""The sample of a correction: spans of texts, the same in every command."""

from __future__ import annotations

import json

import numpy as np
import torch

from conftest import CORPUS, SENTENCES, of_recipe
from text2token import Recipe
from text2token.data.corpus import Corpus, sample
from text2token.evaluation.evaluated_model import LearnedCorrection, untrained_model
from text2token.model.correction import correction
from text2token.model.spans import correction_sample
from text2token.training import adapt, fit
from text2token.training.adaptation import adapt_draw
from text2token.training.pipeline import fit_draw
from text2token.training.start import read_corpus


def test_spans_lie_in_their_texts_and_follow_the_seed():
    long = sample([" ".join(f"{name}{i}" for i in range(40)) for name in "abc"], None, 0)
    found = correction_sample(long, 0)
    assert len(found) == 6
    assert all(span in text and 6 <= len(span.split()) <= 10 for span, text in zip(found, long * 2, strict=True))
    assert found == correction_sample(long, 0) != correction_sample(long, 1)
    assert found[:3] != found[3:]
    assert correction_sample(["two words"]) == ["two words"] * 2
    unspaced = "今天天气很好我们去公园散步然后回家吃饭看书睡觉" * 2
    for span in correction_sample([unspaced]):
        assert span in unspaced
        assert 6 <= len(span) <= 10


def test_the_order_of_the_texts_does_not_matter():
    """A corpus and an index hold the same texts in different orders, and both learn the same correction."""
    assert correction_sample(CORPUS, 3) == correction_sample(CORPUS[::-1] + CORPUS[:5], 3)
    drawn = sample(CORPUS, 30, 3)  # as `fit` draws them: their order stays, so its vectors did not change
    assert [span in text for span, text in zip(correction_sample(drawn, 3), drawn * 2, strict=True)] == [True] * 60


def test_every_command_learns_from_the_same_sample(backbone, tmp_path, monkeypatch):
    """Each correction equals the one learned from the spans of the texts that its command drew."""
    settings = {"correction": "whiten-0.3", "calibration_texts": 60, "seed": 3, "template": "none", "pooling": "mean"}
    recipe = Recipe(backbone=backbone("llama"), max_texts=60, prior_texts=10, max_length=64, **settings)
    steps = recipe.correction_steps()

    def expected(embedder, texts):
        learned = correction(steps, embedder.embed(correction_sample(texts, 3)), embedder.head)
        return learned.linear.weight, learned.linear.bias

    def check(embedder, texts):
        found = embedder.correction.linear
        torch.testing.assert_close((found.weight, found.bias), expected(embedder, texts), atol=1e-3, rtol=1e-3)

    drawn, _ = read_corpus(Corpus.from_texts(CORPUS), adapt_draw(recipe), 3)
    check(adapt(CORPUS, tmp_path / "adapt", recipe), drawn.texts)
    drawn, _ = read_corpus(Corpus.from_texts(CORPUS), fit_draw(recipe), 3)
    check(fit(CORPUS, tmp_path / "fit", recipe), drawn.texts)
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in CORPUS[:60]))
    evaluated = LearnedCorrection.of_recipe(recipe, str(tmp_path / "texts.jsonl"))
    drawn_texts = sample(CORPUS[:60], 60, seed=3)
    assert (evaluated.texts, evaluated.seed) == (drawn_texts, 3)
    asked = []
    monkeypatch.setattr(
        "text2token.evaluation.evaluated_model.correction_sample", lambda *given: asked.append(given) or []
    )
    untrained_model(recipe, evaluated)
    assert asked == [(drawn_texts, 3)]
    plain = of_recipe(recipe)
    plain.calibrate(CORPUS[:20], steps, seed=3)  # as ``index`` does
    check(plain, CORPUS[:20])
    np.testing.assert_allclose(np.linalg.norm(plain.encode(SENTENCES), axis=1), 1, rtol=1e-5)
