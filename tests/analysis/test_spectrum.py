"""Spectrum: streamed sums against a plain SVD, exact splits, figures and folders."""

from __future__ import annotations

import copy
import json

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from click.testing import CliRunner
from scipy.stats import spearmanr

from conftest import untrained
from text2token import Embedder, UserError
from text2token.analysis.spectrum import Moments, contributions, principal_components, shift_rows, shifts
from text2token.analysis.spectrum_figures import draw_contribution, draw_shift, draw_variation
from text2token.analysis.spectrum_run import run_spectrum
from text2token.analysis.sts import EmbeddedPairs
from text2token.cli import main
from text2token.data.corpus import Corpus
from text2token.data.sts import ScoredPairs
from text2token.model.vocabulary import spell
from text2token.settings.record import RunRecord, SpectrumRecord


@pytest.fixture
def embeddings() -> tuple[torch.Tensor, torch.Tensor]:
    """Base and tuned, 50×6, with a strong mean."""
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(50, 6, generator=generator) * torch.arange(6, 0, -1) + 8
    return base, base + torch.randn(50, 6, generator=generator) - torch.tensor([5.0, 5, 5, 0, 0, 0])


def moments_of(base, tuned, size=50):
    moments = Moments.none(base.shape[1])
    for start in range(0, len(base), size):
        moments.add(base[start : start + size], tuned[start : start + size])
    return moments


@pytest.mark.parametrize("centred", [False, True])
def test_streamed_components_are_those_of_a_plain_svd(embeddings, centred):
    base, tuned = (side.double().numpy() for side in embeddings)
    components = principal_components(moments_of(*embeddings, size=7), centred=centred)
    _, singular, directions = np.linalg.svd(base - centred * base.mean(axis=0), full_matrices=False)
    directions *= np.where(directions @ base.mean(axis=0) < 0, -1, 1)[:, None]
    change = (tuned - base) @ directions.T
    np.testing.assert_allclose(components.directions, directions, atol=1e-6)
    np.testing.assert_allclose(components.energy, singular**2 / (singular**2).sum(), atol=1e-6)
    np.testing.assert_allclose(components.variation, change.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(components.spread, change.std(axis=0), atol=1e-6)
    np.testing.assert_allclose(components.mean, (base @ directions.T).mean(axis=0), atol=1e-6)


def test_centring_changes_what_the_first_component_is(embeddings):
    mean = embeddings[0].mean(dim=0).double().numpy()
    along = [
        abs(principal_components(moments_of(*embeddings), centred=c).directions[0] @ mean) / np.linalg.norm(mean)
        for c in (False, True)
    ]
    assert along[0] > 0.95 > along[1]


def test_variation_is_energy_of_the_mean_change(embeddings):
    """Orthonormal directions: the squares of all v_j are the squared length of the mean change, centred or not."""
    base, tuned = embeddings
    length = ((tuned.double() - base.double()).mean(dim=0) ** 2).sum().item()
    for centred in (False, True):
        variation = principal_components(moments_of(base, tuned), centred=centred).variation
        assert (variation**2).sum() == pytest.approx(length, abs=1e-9)


def test_shifts_are_named_or_numbers(embeddings):
    components = principal_components(moments_of(*embeddings))
    v1, zero = components.variation[0], -components.mean[0]
    assert shifts(components, ["v1"]) == sorted([0.0, v1])
    assert shifts(components, ["-2.5", "zero"]) == sorted([zero, -2.5, 0.0])
    assert len(shifts(components, ["sweep", "v1"])) == 8
    for wrong in ("v2", "nan"):
        with pytest.raises(UserError, match="shift"):
            shifts(components, [wrong])


def test_shift_to_zero_takes_the_mean_coefficient_away(embeddings):
    components = principal_components(moments_of(*embeddings))
    shifted = embeddings[0] - components.mean[0] * components.first
    assert abs((shifted @ components.first).mean().item()) < 1e-5


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_contributions_add_up_to_the_logit(backbone, corpus, family):
    embedder = untrained(backbone(family))
    h = embedder.embed(corpus[:12])
    components = principal_components(moments_of(h, h + 1))
    rows = contributions(embedder, h[:3], components, k=4)
    assert [(row["text"], row["rank"]) for row in rows] == [(t, r) for t in range(3) for r in range(1, 5)]
    logits = embedder.decoding_head.uncapped(h[:3])
    best = logits.topk(4, dim=1).values.flatten().tolist()
    assert [row["total"] for row in rows] == pytest.approx(best, abs=1e-5)
    assert [row["first"] + row["rest"] for row in rows] == pytest.approx(best, abs=1e-5)
    if family == "llama":  # where the head is linear, u₁'s part is its coefficient times what the head says of u₁
        token = logits[0].argmax()
        by_hand = (h[0] @ components.first) * (embedder.decoding_head.weight[token] @ components.first)
        assert rows[0]["first"] == pytest.approx(by_hand.item(), abs=1e-4)


def test_no_shift_is_the_base_itself_and_a_large_one_is_the_direction_alone(backbone, corpus):
    embedder = untrained(backbone("llama"))
    texts = corpus[:10]
    h = embedder.embed(texts)
    direction = torch.nn.functional.normalize(h[0] - h[1], dim=0)
    pairs = EmbeddedPairs(h[:5], h[5:], np.arange(5.0))
    none, far = shift_rows(embedder, h, texts, direction, [0.0, 1e4], pairs, examples=2)
    cosines = torch.nn.functional.cosine_similarity(h[:5], h[5:])
    assert none["sts"] == pytest.approx(spearmanr(cosines, range(5)).statistic)
    best = embedder.decoding_head.uncapped(direction[None]).topk(10).indices[0]
    assert far["tokens"] == [spell(embedder.tokenizer, best.tolist())] * 2
    assert none["tokens"] != far["tokens"]
    assert sum(
        none[name] for name in ("literal, meaningful", "literal, meaningless", "derived", "noise")
    ) == pytest.approx(1)


def test_pairs_embed_each_sentence_once_in_place(backbone):
    embedder = untrained(backbone("llama"))
    pairs = EmbeddedPairs.embed(embedder, ScoredPairs(["a cat", "a dog"], ["a dog", "a cat"], np.array([1, 2])))
    assert torch.equal(pairs.left, pairs.right.flip(0))
    assert pairs.scores.tolist() == [1, 2]


@pytest.fixture(scope="module")
def models(backbone) -> tuple[Embedder, Embedder]:
    base, tuned = (untrained(backbone("llama"), pooling=pooling) for pooling in ("mean", "last"))
    return base, tuned


PAIRS = ScoredPairs(["a cat", "cat", "stars"], ["the dog", "a cat", "the stars"], np.array([1.0, 4.0, 5.0]))


def run(models, corpus, output, **options):
    return run_spectrum(models, Corpus.from_texts(corpus), output, {"base": "b"}, **{"aligned": 20, **options})


def test_a_run_is_tables_and_figures_of_the_same_numbers(models, corpus, tmp_path):
    result = run(models, corpus, tmp_path / "out", pairs=PAIRS)
    assert json.loads((tmp_path / "out" / "spectrum.json").read_text()) == json.loads(json.dumps(result))
    assert result["texts"] == len(corpus)
    base, tuned = (model.embed(corpus) for model in models)
    expected = principal_components(moments_of(base, tuned))
    variation = pq.read_table(tmp_path / "out" / "variation.parquet").column("variation").to_pylist()
    np.testing.assert_allclose(variation, expected.variation, atol=1e-4)
    for name, key in (("contribution", "contribution"), ("shift", "shift_rows")):
        assert pq.read_table(tmp_path / "out" / f"{name}.parquet").to_pylist() == result[key]
    for name in ("variation", "contribution", "shift"):
        assert (tmp_path / "out" / f"{name}.svg").read_text().startswith("<?xml")
        assert (tmp_path / "out" / f"{name}.png").read_bytes()[:4] == b"\x89PNG"
    assert result["tuned"]["sts"] == pytest.approx(EmbeddedPairs.embed(models[1], PAIRS).spearman())


def test_a_run_writes_its_record(models, corpus, tmp_path):
    run(models, corpus, tmp_path / "out")
    file = tmp_path / "out" / "run.json"
    record = SpectrumRecord.of(json.loads(file.read_text()))  # refuses unknown and missing keys
    assert (record.settings["base"], record.settings["aligned"], len(record.models)) == ("b", 20, 2)
    assert set(record.timings) >= {"encode", "read"}
    with pytest.raises(UserError, match="not a record of fit, adapt or baseline"):
        RunRecord.read(file)


def test_figures_show_the_data(models, corpus, tmp_path):
    result = run(models, corpus[:30], tmp_path / "out", pairs=PAIRS)
    bars = draw_variation(result).axes[0].patches
    assert [bar.get_height() for bar in bars] == [row["variation"] for row in result["components"]]
    split = draw_contribution(result).axes
    assert len(split) == len({row["text"] for row in result["contribution"]})
    assert [bar.get_width() for bar in split[0].patches[:10]] == [row["first"] for row in result["contribution"][:10]]
    panels = draw_shift(result).axes
    assert len(panels) == 3
    lines = {line.get_label(): line for axes in panels for line in axes.lines}
    for label, key in (("Hit@10", "hit"), ("noise", "noise"), ("base, shifted", "sts")):
        assert list(lines[label].get_xdata()) == [row["shift"] for row in result["shift_rows"]]
        assert list(lines[label].get_ydata()) == [row[key] for row in result["shift_rows"]]


def test_killed_it_continues_where_it_was(models, corpus, tmp_path, monkeypatch):
    monkeypatch.setattr("text2token.analysis.spectrum_run._CHUNK", 30)
    whole = run(copy.deepcopy(models), corpus, tmp_path / "whole")
    base, tuned = copy.deepcopy(models)
    calls = []

    class Dies(Embedder):
        def embed(self, texts, **options):
            calls.append(len(texts))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return tuned.embed(texts, **options)

    with pytest.raises(KeyboardInterrupt):
        run((base, Dies(tuned.encoder, tuned.head)), corpus, tmp_path / "cut")
    assert not (tmp_path / "cut").exists()
    base, tuned = models  # as another process loads them
    again = run((base, Dies(tuned.encoder, tuned.head)), corpus, tmp_path / "cut")
    assert calls == [20, 30, 30, 30, 30, 10]  # sample; two chunks, the second cut off and done again; the rest
    np.testing.assert_allclose(
        [row["variation"] for row in again["components"]], [row["variation"] for row in whole["components"]], atol=1e-6
    )


def test_an_unfinished_run_is_not_continued_with_other_content(models, corpus, tmp_path):
    """Names stay the same when a model is trained again, or when a file gets other texts at its end."""

    class Dies(Embedder):
        def embed(self, texts, **options):
            raise KeyboardInterrupt

    base, tuned = copy.deepcopy(models)
    with pytest.raises(KeyboardInterrupt):
        run((base, Dies(tuned.encoder, tuned.head)), corpus, tmp_path / "out")
    trained = copy.deepcopy(models)
    with torch.no_grad():
        next(trained[1].encoder.parameters()).mul_(2)
    for changed, texts in ((trained, corpus), (models, [*corpus[:-1], "Another end."])):
        with pytest.raises(UserError, match="other settings or texts"):
            run(changed, texts, tmp_path / "out")
    assert run(models, corpus, tmp_path / "out")["texts"] == len(corpus)


def test_the_tuned_model_needs_no_head(backbone, corpus, tmp_path):
    (tmp_path / "notes.txt").write_text("\n".join(corpus[:30]))
    untrained(backbone("qwen3")).encoder.save(str(tmp_path / "tuned"), create_model_card=False)
    arguments = [backbone("qwen3"), str(tmp_path / "tuned"), "--corpus", str(tmp_path / "notes.txt"), "--shift", "0"]
    result = CliRunner().invoke(main, ["spectrum", *arguments, "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output


def test_models_of_different_sizes_and_a_single_text_are_refused(models, corpus, tmp_path, backbone):
    class Wide:
        encoder = type("E", (), {"get_embedding_dimension": lambda self: 48})()

    class Unused:
        def embed(self, *_, **__):
            raise AssertionError("encoded before the options were looked at")

    with pytest.raises(UserError, match="32 dimensions and the tuned model 48"):
        run((models[0], Wide()), corpus, tmp_path / "out")
    with pytest.raises(UserError, match="shift 'v2' is unknown"):
        run((Unused(), Unused()), corpus, tmp_path / "out", shift=["v2"])
    with pytest.raises(UserError, match="different tokenizers"):
        run((models[0], untrained(backbone("bert"))), corpus, tmp_path / "out")
    with pytest.raises(UserError, match="only one text"):
        run(models, corpus[:1], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_command_writes_a_folder_and_says_what_it_found(backbone, corpus, tmp_path):
    (tmp_path / "notes.txt").write_text("\n".join(corpus[:30]))
    rows = [dict(zip(("sentence1", "sentence2", "score"), row, strict=True)) for row in zip(*PAIRS, strict=True)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    names = [backbone("llama"), backbone("llama"), "--corpus", str(tmp_path / "notes.txt")]
    options = ["--output", str(tmp_path / "out"), "--shift", "2.5", "--sts", str(tmp_path / "pairs.jsonl")]
    result = CliRunner().invoke(main, ["spectrum", *names, *options, "--json"])
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert [row["shift"] for row in said["shift_rows"]] == [0.0, 2.5]
    assert said["v1"] == pytest.approx(0, abs=1e-6)  # a model and itself
    again = CliRunner().invoke(main, ["spectrum", *names, *options])
    assert again.exit_code == 2
    assert "exists" in again.output
    table = CliRunner().invoke(main, ["spectrum", *names, *options, "--overwrite", "--centred"])
    assert table.exit_code == 0, table.output
    assert "30 texts" in table.stdout
