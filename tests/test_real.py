"""A few real runs on the packaged default backbone; CI fetches it from the package index."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer, SparseEncoder

from text2token import Embedder, Recipe, fit
from text2token.docstrings import installed_docstrings

pytestmark = pytest.mark.slow
TEXT = "The navy of Albania took part in a parade of warships in the Bay of Naples."


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [docstring.summary for docstring in installed_docstrings()][::40][:200]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, texts):
    output = tmp_path_factory.mktemp("real") / "model"
    small = Recipe(max_texts=128, batch_size=16, held_out=32, calibration_texts=128, prior_texts=128, max_length=64)
    fit(texts, output, small)
    return output


def test_the_untrained_prior_reaches_meaning(texts):
    embedder = Embedder.open("smollm2-135m")
    embedder.calibrate(texts[:100])
    words = {token.token.strip().casefold() for token in embedder.explain([TEXT], k=30, filtered=True)[0]}
    assert words & {"albania", "albanian", "naval", "navy", "warships", "naples"}


def test_a_short_fit_learns(fitted):
    run = json.loads((fitted / "run.json").read_text())
    for stage in (1, 2):
        key = f"target_loss_stage_{stage}"
        assert run["after"][key] < run["before"][key] - 0.3
    assert run["after"]["pair_cosine_dense"] < 0.5
    beyond = {row["stage"]: row["mass_beyond_text"] for row in run["targets"]}
    assert beyond[1] == 0
    assert 0.1 < beyond[2] < 0.5


def test_its_folders_stand_alone_and_find_meaning(fitted):
    embedder, dense = Embedder.load(fitted), SentenceTransformer(str(fitted / "dense"))
    pair = [
        "A man is playing a guitar.",
        "Someone plays a musical instrument.",
        "The stock market fell by two percent.",
    ]
    vectors = dense.encode(pair)
    np.testing.assert_allclose(embedder.encode(pair), vectors, atol=1e-5)
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.1
    sparse = SparseEncoder(str(fitted / "sparse"))
    (decoded,) = sparse.decode(sparse.encode([TEXT]), top_k=20)
    assert {token.strip("Ġ ").casefold() for token, _ in decoded} & {
        "albania",
        "naval",
        "navy",
        "naples",
        "warships",
        "parade",
    }
