"""Corrections without training: each against its definition, chains, the choice without labels, saved folders."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer, SparseEncoder

from conftest import CORPUS, SENTENCES
from text2token import Embedder, Recipe, UserError
from text2token.cli import main
from text2token.data.corpus import Corpus
from text2token.model.correction import correction, spectral_filter
from text2token.model.head import DecodingHead
from text2token.model.spans import correction_sample
from text2token.search import Document, Index
from text2token.settings.corrections import Step, parse_steps
from text2token.training.adaptation import adapt, adapt_draw
from text2token.training.choose import (
    CANDIDATES,
    Candidate,
    CandidateScore,
    SelectionData,
    choose,
    overlapping_pairs,
    score_candidates,
)
from text2token.training.start import read_corpus


@pytest.fixture
def sample() -> torch.Tensor:
    """200×6 with a mean and unequal variances."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(6, 6, generator=generator)
    return torch.randn(200, 6, generator=generator) * torch.arange(6, 0, -1) @ mix + 4


@pytest.fixture
def head() -> DecodingHead:
    return DecodingHead(torch.randn(40, 6, generator=torch.Generator().manual_seed(1)))


def apply(steps, sample, head, keep=(0.0, 1.0)):
    return correction(steps, sample, head, keep)({"sentence_embedding": sample})["sentence_embedding"]


def covariance(x):
    return torch.from_numpy(np.cov(x.detach().double().numpy(), rowvar=False, bias=True))


def test_whitening_without_shrinkage_gives_an_identity_covariance(sample, head):
    white = apply(["whiten-0"], sample, head)
    torch.testing.assert_close(covariance(white).float(), torch.eye(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.mean(0), torch.zeros(6), atol=1e-4, rtol=0)


def test_shrinkage_goes_from_whitening_to_none(sample, head):
    """Variances of the whitened sample are v / ((1 − S)·v + S·mean), in the directions that they had."""
    variances = torch.linalg.eigvalsh(covariance(sample))
    for shrinkage in (0.3, 1.0):
        expected = variances / ((1 - shrinkage) * variances + shrinkage * variances.mean())
        found = torch.linalg.eigvalsh(covariance(apply([f"whiten-{shrinkage}"], sample, head)))
        torch.testing.assert_close(found.float(), expected.sort().values.float(), atol=1e-4, rtol=1e-4)
    scaled = apply(["whiten-1"], sample, head)
    centred = sample - sample.mean(0)
    torch.testing.assert_close(scaled, centred / variances.mean().sqrt().float(), atol=1e-4, rtol=1e-4)
    assert torch.equal(apply(["whiten"], sample, head), apply(["whiten-0.3"], sample, head))


def test_whitening_of_fewer_texts_than_dimensions_is_finite(head):
    few = torch.randn(4, 6) + 3
    for steps in (["whiten-0"], ["centre", "first-component", "whiten-0"], ["whiten"]):
        assert apply(steps, few, head).isfinite().all()


def test_whitening_of_one_text_keeps_what_differs_from_it(head, sample):
    learned = correction(["whiten-0.7"], sample[:1].expand(2, -1), head)
    found = learned({"sentence_embedding": sample})["sentence_embedding"]
    torch.testing.assert_close(found, sample - sample[0], atol=1e-6, rtol=0)


def test_removal_projects_out_singular_vectors(sample, head):
    centred = sample - sample.mean(0)
    _, _, directions = torch.linalg.svd(centred.double())
    rest = apply(["centre", "remove-3"], sample, head)
    torch.testing.assert_close(rest.double() @ directions[:3].T, torch.zeros(200, 3).double(), atol=1e-3, rtol=0)
    torch.testing.assert_close(
        rest.double() @ directions[3:].T, centred.double() @ directions[3:].T, atol=1e-3, rtol=1e-3
    )
    assert torch.equal(apply(["remove-1"], sample, head), apply(["first-component"], sample, head))
    with pytest.raises(UserError, match="remove-6 would leave none"):
        correction(["remove-6"], sample, head)


def test_shift_moves_along_the_first_component_only(sample, head):
    first = torch.linalg.svd(sample.double())[2][0]
    first = (first if sample.double().mean(0) @ first > 0 else -first).float()
    torch.testing.assert_close(apply(["shift--2.5"], sample, head), sample - 2.5 * first, atol=1e-4, rtol=0)
    zero = apply(["shift"], sample, head)
    assert abs((zero @ first).mean()) < 1e-4
    others = torch.eye(6) - torch.outer(first, first)
    torch.testing.assert_close(zero @ others, sample @ others, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "chain",
    [
        "centre+remove-2+filter",
        "shift-1.5+whiten-0.2+filter",
        "first-component+centre+whiten",
        "centre+whiten-0.4+remove-1",
    ],
)
def test_a_chain_is_one_map_equal_to_its_steps_one_after_another(sample, head, chain):
    keep = (0.2, 0.9)
    stepwise = sample
    for step in chain.split("+"):
        stepwise = apply([step], stepwise, head, keep)
    torch.testing.assert_close(apply(chain.split("+"), sample, head, keep), stepwise, atol=1e-3, rtol=1e-3)


def test_the_filter_after_whitening_is_the_heads(sample, head):
    """Whitening turns nothing, so that the head's directions are still those of its own space."""
    rows = spectral_filter(head, 0.2, 0.9)
    white = apply(["whiten-0.5"], sample, head)
    torch.testing.assert_close(
        apply(["whiten-0.5", "filter"], sample, head, (0.2, 0.9)), white @ rows.T, atol=1e-4, rtol=1e-4
    )
    matrix = correction(["whiten-0.5"], sample, head).linear.weight
    torch.testing.assert_close(matrix, matrix.T, atol=1e-6, rtol=0)


def test_steps_are_read_as_written():
    written = ["shift--48.5", "remove-32", "whiten-0.3", "first-component", "filter"]
    assert parse_steps(written) == [
        Step("shift", -48.5), Step("remove", 32), Step("whiten", 0.3), Step("first-component"), Step("filter"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("chain", "sentence"),
    [
        ("center", "no correction 'center'"),
        ("", "no correction ''"),
        ("remove", "lacks its value: write remove-N"),
        ("whiten-", "lacks its value"),
        ("remove-0", "N from 1"),
        ("remove-1.5", "N from 1"),
        ("whiten-2", "S from 0 to 1"),
        ("whiten-nan", "S from 0 to 1"),
        ("shift-inf", "is out of range: write"),
        ("centre-3", "is out of range: write"),
        ("filter+centre", "'filter' changes the dimension"),
        ("centre+shift", "name .shift. first"),
    ],
)
def test_wrong_steps_are_refused_by_the_recipe(chain, sentence):
    with pytest.raises(UserError, match=sentence):
        Recipe.load(None, correction=chain)


texts = st.lists(
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip), min_size=2, max_size=6
)


@given(texts, st.integers(0, 9))
def test_overlap_is_what_it_says_for_any_text(texts, seed):
    pairs = overlapping_pairs(texts, seed)
    assert len(pairs.left) == len(pairs.right) == len(pairs.share) == len(texts)
    assert ((pairs.share >= 0) & (pairs.share <= 1)).all()
    for left, right, share in zip(*pairs, strict=True):
        if share == 1:
            assert left == right
    again = overlapping_pairs(texts, seed)
    assert (again.left, again.right) == (pairs.left, pairs.right)


def test_the_share_is_counted_in_words():
    numbered = [" ".join(f"{name}{i}" for i in range(30)) for name in "abcdefgh"]
    pairs = overlapping_pairs(numbered, 3)
    for left, right, share in zip(*pairs, strict=True):
        common = [word for word in right.split() if word in left.split()]
        assert len(common) / len(right.split()) == pytest.approx(share)
        assert " ".join(common) in left  # one contiguous part
        assert 6 <= len(left.split()) <= 14
    assert len(set(pairs.share)) > 4


def test_the_choice_finds_the_correction_that_the_vectors_need(head):
    """Vectors that differ by what they share, under a common offset: only centring shows it."""
    generator = torch.Generator().manual_seed(0)
    offset = torch.tensor([30.0, 0, 0, 0, 0, 0])
    words = [torch.randn(120, 6, generator=generator) for _ in range(2)]
    share = torch.linspace(0, 1, 120)
    left, right = words[0], share[:, None] * words[0] + (1 - share[:, None]) * words[1]
    scale = torch.rand(120, 1, generator=generator) + 0.5
    evidence = SelectionData(left + offset, left * scale + offset, right + offset, share.numpy())
    embedder = Embedder(encoder=SimpleNamespace(similarity_fn_name="cosine"), head=head)
    some = [Candidate("none", (0.0, 1.0)), Candidate("centre", (0.0, 1.0))]
    plain, centred = score_candidates(embedder, evidence, some)
    assert [plain.candidate, centred.candidate] == some
    assert centred.agreement > plain.agreement + 0.1
    assert choose([plain, centred], 120) == centred
    assert embedder.correction is None


def test_of_candidates_within_a_standard_error_the_gentlest_is_chosen():
    """At 0.8 over 403 pairs the error is 0.36·√1.32/20 = 0.0207."""
    rows = [
        CandidateScore(candidate, agreement)
        for candidate, agreement in zip(CANDIDATES, [0.6, 0.779, 0.7795, 0.8], strict=False)
    ]
    assert choose(rows, 403) == rows[2]
    assert choose(rows, 40_003) == rows[3]
    assert choose(rows[:1], 4) == rows[0]


def test_candidates_are_recipes():
    for candidate in CANDIDATES:
        recipe = Recipe(correction=candidate.correction, keep_from=candidate.keep[0], keep_to=candidate.keep[1])
        assert recipe.correction_steps() == candidate.steps
    assert len(set(CANDIDATES)) == len(CANDIDATES)


@pytest.fixture(scope="module")
def adapted(backbone, tmp_path_factory):
    output = tmp_path_factory.mktemp("adapted") / "model"
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60, sparse_k=8, pooling="mean", template="none")
    return adapt(CORPUS, output, recipe, auto=True), output


def test_folders_are_plain_and_give_the_same_vectors(adapted):
    embedder, output = adapted
    dense = SentenceTransformer(str(output / "dense")).encode(SENTENCES)
    np.testing.assert_allclose(dense, embedder.encode(SENTENCES), atol=1e-5)
    sparse = SparseEncoder(str(output / "sparse")).encode(SENTENCES).to_dense().numpy()
    expected = np.zeros_like(sparse)
    vectors = embedder.encode_sparse(SENTENCES)
    np.put_along_axis(expected, vectors.ids.astype(np.int64), vectors.weights, axis=1)
    np.testing.assert_allclose(sparse, expected, atol=1e-4)
    again = Embedder.open(output)
    np.testing.assert_allclose(again.encode(SENTENCES), dense, atol=1e-5)
    assert again.explain(SENTENCES[:1])[0][0].token == embedder.explain(SENTENCES[:1])[0][0].token


def test_the_record_says_what_was_chosen_and_from_what(adapted):
    _, output = adapted
    run = json.loads((output / "run.json").read_text())
    judged = run["judged"]
    assert [row["correction"] for row in judged] == [candidate.correction for candidate in CANDIDATES]
    written = [row["overlap"] for row in judged if row["correction"] == run["recipe"]["correction"]]
    assert run["after"]["overlap"] in written
    assert run["after"]["overlap"] > judged[0]["overlap"]
    assert run["before"]["overlap"] == judged[0]["overlap"]
    assert run["corpus"]["texts"] == len(CORPUS)
    for kind in ("dense", "sparse"):
        card = (output / kind / "README.md").read_text()
        assert "nothing was trained" in card
        assert "Trained on" not in card


def test_by_hand_it_is_that_correction_of_spans(backbone, tmp_path):
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60, correction="centre+remove-2", template="none")
    embedder = adapt(CORPUS, tmp_path / "model", recipe)
    run = json.loads((tmp_path / "model" / "run.json").read_text())
    assert [row["correction"] for row in run["judged"]].count("centre+remove-2") == 1
    (texts, _), _ = read_corpus(Corpus.from_texts(CORPUS), adapt_draw(recipe), recipe.seed)
    sample = embedder.embed(correction_sample(texts, recipe.seed))
    with torch.no_grad():
        corrected = embedder.correction({"sentence_embedding": sample.clone()})["sentence_embedding"]
    torch.testing.assert_close(corrected.mean(dim=0), torch.zeros(32), atol=1e-4, rtol=0)  # centred on the spans
    rank = torch.linalg.matrix_rank(embedder.correction.linear.weight, rtol=1e-4)
    assert rank == 30


def test_what_it_returns_makes_an_index_of_its_folder(backbone, tmp_path):
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60, correction="centre", template="none")
    embedder = adapt(CORPUS, tmp_path / "model", recipe)
    made = Index.create(tmp_path / "index", tmp_path / "model", embedder=embedder)
    made.add([Document("a", "", CORPUS[0])])
    assert [hit.id for hit in Index.open(tmp_path / "index").search("cat").hits] == ["a"]


def test_killed_it_does_not_encode_again(backbone, tmp_path, monkeypatch):
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60, correction="centre", template="none")
    encoded = []
    original = Embedder.embed

    def dies(self, texts, **options):
        encoded.append(len(texts))
        if len(encoded) == 3:
            raise KeyboardInterrupt
        return original(self, texts, **options)

    monkeypatch.setattr(Embedder, "embed", dies)
    with pytest.raises(KeyboardInterrupt):
        adapt(CORPUS, tmp_path / "model", recipe)
    assert not (tmp_path / "model").exists()
    adapt(CORPUS, tmp_path / "model", recipe)
    assert encoded == [60, 120, 40, 40, 40]  # texts and spans once, the left side again, the right side
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_what_cannot_work_is_told_and_leaves_nothing(backbone, tmp_path):
    with pytest.raises(UserError, match="too few to learn from"):
        adapt(CORPUS[:30], tmp_path / "model", Recipe(backbone=backbone("llama")))
    recipe = Recipe(backbone=backbone("llama"), calibration_texts=60, correction="remove-40", template="none")
    with pytest.raises(UserError, match="none of 32 components"):
        adapt(CORPUS, tmp_path / "model", recipe)
    narrow = Recipe(backbone=backbone("llama"), calibration_texts=60, keep_from=0.899, keep_to=0.9, template="none")
    with pytest.raises(UserError, match=r"none between 0\.899 and 0\.9"):
        adapt(CORPUS, tmp_path / "model", narrow)
    with pytest.raises(UserError, match="'auto' chooses the part"):
        adapt(CORPUS, tmp_path / "model", narrow, auto=True)
    assert list(tmp_path.iterdir()) == []


def test_the_command_chooses_or_obeys(backbone, tmp_path):
    (tmp_path / "notes.txt").write_text("\n".join(CORPUS))
    line = ["adapt", backbone("llama"), "--corpus", str(tmp_path / "notes.txt"), "--calibration-texts", "60"]
    chosen = CliRunner().invoke(main, [*line, "--output", str(tmp_path / "auto"), "--json"])
    assert chosen.exit_code == 0, chosen.output
    said = json.loads(chosen.stdout)
    assert said["chosen"] == "by agreement with known overlaps"
    assert said["recipe"]["backbone"] == backbone("llama")
    obeyed = CliRunner().invoke(main, [*line, "--correction", "whiten-0.5+filter", "--output", str(tmp_path / "hand")])
    assert obeyed.exit_code == 0, obeyed.output
    assert "whiten-0.5+filter" in obeyed.stdout
    refused = CliRunner().invoke(main, [*line, "--correction", "whitening", "--output", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert "no correction 'whitening'" in refused.output
    assert not (tmp_path / "none").exists()
    (tmp_path / "recipe.yaml").write_text("correction: centre\nkeep_from: 0.1\n")
    line += ["--recipe", str(tmp_path / "recipe.yaml")]
    written = CliRunner().invoke(main, [*line, "--output", str(tmp_path / "file"), "--json"])
    assert json.loads(written.stdout)["recipe"]["correction"] == "centre"
    refused = CliRunner().invoke(main, [*line, "--correction", "auto", "--output", str(tmp_path / "none")])
    assert refused.exit_code == 2
    assert "keep_from" in refused.output or "--keep-from" in refused.output
    assert not (tmp_path / "none").exists()
