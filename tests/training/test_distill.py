"""Distillation: the start in closed form, the training, the folders, and a killed run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sklearn.linear_model import Ridge

from conftest import CORPUS, SENTENCES, calibrated, done, refused
from text2token import Embedder, UserError
from text2token.model.query_table import QUERY, QueryTable
from text2token.model.static import pool, spaced, static_encoder
from text2token.model.tokens import tokenise
from text2token.settings.distillation import DistillSettings
from text2token.training.distillation import distill, views
from text2token.training.pairs import draw_pair, train_columns, with_pairs
from text2token.training.student import Lesson, ridge, start_table, train_table

FAST = DistillSettings(spans=1, epochs=3, batch_size=32, pair_texts=500)


@pytest.fixture(scope="module")
def teacher_folder(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("teacher") / "model"
    teacher = calibrated(backbone("llama"))
    teacher.calibrate(CORPUS[:40], ("centre", "first-component"))
    teacher.save(folder)
    return folder


@pytest.fixture(scope="module")
def student_folder(teacher_folder):
    distill(teacher_folder, CORPUS, teacher_folder / "student", FAST)
    return teacher_folder / "student"


@pytest.fixture(scope="module")
def lesson(teacher_folder):
    teacher = Embedder.open(teacher_folder)
    texts = views(CORPUS, 2, seed=0)
    return teacher, Lesson(tokenise(spaced(teacher.tokenizer.backend_tokenizer), texts, None), teacher.embed(texts))


def test_the_linear_map_is_that_of_another_library():
    random = torch.Generator().manual_seed(0)
    inputs, outputs = torch.randn(50, 6, generator=random) + 1, torch.randn(50, 3, generator=random) - 2
    matrix, offset = ridge(inputs, outputs, 0.1)
    centred = (inputs - inputs.mean(0)).numpy()
    expected = Ridge(alpha=0.1 * (centred**2).sum() / 6).fit(inputs.numpy(), outputs.numpy())
    np.testing.assert_allclose(matrix.T.numpy(), expected.coef_, atol=1e-4)
    np.testing.assert_allclose(offset.numpy(), expected.intercept_, atol=1e-4)


def test_a_table_that_exists_is_found_again(lesson):
    """A teacher whose embeddings are linear in the start is imitated exactly."""
    teacher, own = lesson
    table = start_table(teacher, own)
    linear = Lesson(own.ids, pool(table, own.ids) @ torch.randn(32, 32, generator=torch.Generator().manual_seed(1)))
    found = pool(start_table(teacher, linear), own.ids)
    wanted = linear.embeddings - linear.embeddings.mean(0)
    cosines = torch.cosine_similarity(found - linear.embeddings.mean(0), wanted)
    assert cosines.mean() > 0.95


def test_training_brings_the_student_closer_and_leaves_unseen_rows(lesson):
    teacher, own = lesson
    start = start_table(teacher, own)
    table = train_table(teacher, start, own, FAST)
    seen = sorted({i for ids in own.ids for i in ids})
    unseen = sorted(set(range(len(start))) - set(seen))
    assert torch.equal(table[unseen], start[unseen])
    assert unseen
    assert not torch.equal(table[seen], start[seen])
    target = teacher.densify(own.embeddings)
    before, after = ((teacher.densify(pool(rows, own.ids)) * target).sum(1).mean() for rows in (start, table))
    assert after > before


def test_spans_of_one_text_find_each_other():
    """Words that stand in the same texts come together: here the lower and the upper half of the vocabulary."""
    random = np.random.default_rng(0)
    halves = [np.arange(10, 40, dtype=np.int32), np.arange(40, 70, dtype=np.int32)]
    texts = [random.choice(halves[number % 2], 30) for number in range(200)]
    start = torch.randn(70, 16, generator=torch.Generator().manual_seed(0))
    columns = train_columns(start, texts, seed=0)
    assert torch.equal(columns[:10], start[:10])  # no text has these
    one, other = (torch.nn.functional.normalize(columns[half.tolist()], dim=1) for half in halves)
    assert (one @ one.T).mean() > (one @ other.T).mean() + 0.3
    assert torch.equal(columns, train_columns(start, texts, seed=0))


def test_two_spans_are_parts_of_the_text_that_do_not_overlap():
    random = np.random.default_rng(0)
    for length in (12, 13, 100, 1_000):
        for _ in range(50):
            first, second = draw_pair(np.arange(length, dtype=np.int32), random)
            assert 3 <= min(len(first), len(second)) <= max(len(first), len(second)) <= 64
            assert first[-1] < second[0]
            assert [len(span) for span in (first, second)] == [span[-1] - span[0] + 1 for span in (first, second)]


@pytest.mark.parametrize("family", ["llama", "bert"])
def test_pairs_change_the_dense_vectors_alone(backbone, family):
    teacher = calibrated(backbone(family))
    tokenizer = spaced(teacher.tokenizer.backend_tokenizer)
    texts = tokenise(tokenizer, CORPUS, None)
    table = torch.randn(teacher.vocabulary_size, 32, generator=torch.Generator().manual_seed(0))
    plain = Embedder(static_encoder(tokenizer, table), teacher.head, teacher.correction, teacher.mean_logits)
    student = with_pairs(plain, texts, seed=0)
    before, after = plain.correct(plain.embed(CORPUS)), student.correct(student.embed(CORPUS))
    width = before.shape[1]
    torch.testing.assert_close(after[:, :width], before)
    learnt = after[:, width:]
    assert learnt.mean(dim=0).abs().max() < 0.2 * learnt.norm(dim=1).mean()
    torch.testing.assert_close(student.logits(student.embed(CORPUS)), plain.logits(plain.embed(CORPUS)))
    assert with_pairs(plain, texts[:40], seed=0) is plain


def test_no_epoch_leaves_the_start(lesson):
    teacher, own = lesson
    start = start_table(teacher, own)
    assert torch.equal(train_table(teacher, start, own, DistillSettings(epochs=0)), start)


def test_spans_are_short_distinct_and_the_texts_are_whole():
    found = views(SENTENCES, 3, seed=0)
    assert set(SENTENCES) <= set(found)
    assert len(set(found)) == len(found)
    assert all(2 <= len(text.split()) <= 12 for text in found)
    assert found == views(SENTENCES, 3, seed=0) != views(SENTENCES, 3, seed=1)


def test_the_folders_are_plain_and_give_the_same_vectors(student_folder):
    student = Embedder.open(student_folder)
    dense = student.encode(SENTENCES)
    np.testing.assert_allclose(SentenceTransformer(str(student_folder / "dense")).encode(SENTENCES), dense, atol=1e-5)
    sparse = SparseEncoder(str(student_folder / "sparse")).encode(SENTENCES, convert_to_sparse_tensor=False).numpy()
    own = student.encode_sparse(SENTENCES)
    for row, ids, weights in zip(sparse, own.ids, own.weights, strict=True):
        np.testing.assert_allclose(row[ids], weights, atol=1e-4)
    assert student.explain(SENTENCES[:1], k=3)[0][0].weight > 0
    assert "model/dense" not in (student_folder / "dense" / "README.md").read_text()


def test_the_record_says_where_the_student_comes_from(student_folder, teacher_folder):
    record = json.loads((student_folder / "run.json").read_text())
    assert record["verb"] == "distill"
    assert record["teacher"]["name"] == str(teacher_folder)
    assert record["after"] > record["before"]
    assert record["query_table"] == QueryTable.open(student_folder / QUERY).sha256


def test_the_query_table_gives_the_vectors_of_the_student(student_folder):
    table, student = QueryTable.open(student_folder / QUERY), Embedder.open(student_folder)
    teacher = Embedder.open(student_folder.parent)
    width = teacher.encode(SENTENCES[:1]).shape[1]  # the columns that learnt from pairs come after these
    imitation = student.encode(SENTENCES)[:, :width]
    imitation /= np.linalg.norm(imitation, axis=1, keepdims=True)
    np.testing.assert_allclose(table.encode(SENTENCES)[0], imitation, atol=2e-3)  # float16
    token = next(
        text for text in (sentence.split()[1] for sentence in SENTENCES) if len(table.tokenizer.encode(text).ids) == 1
    )
    ((ids, weights),) = table.encode([token])[1]
    logits = student.logits(student.embed([token]))[0].relu().numpy()
    kept = weights > 0
    assert kept.any()
    np.testing.assert_allclose(weights[kept], logits[ids[kept]], rtol=2e-3, atol=1e-3)
    dense, (nothing,) = table.encode([""])
    assert not dense.any()
    assert len(nothing[0]) == 0


def test_a_killed_run_encodes_nothing_twice(teacher_folder, tmp_path, monkeypatch):
    from text2token.training import distillation

    encoded = []
    whole = Embedder.embed

    def counted(self, texts, **options):
        encoded.extend(texts)
        if len(encoded) > 60:
            raise KeyboardInterrupt
        return whole(self, texts, **options)

    monkeypatch.setattr(distillation, "_CHUNK", 25)
    monkeypatch.setattr(Embedder, "embed", counted)
    with pytest.raises(KeyboardInterrupt):
        distill(teacher_folder, CORPUS, tmp_path / "student", FAST)
    assert not (tmp_path / "student").exists()
    finished = encoded[:50]
    encoded.clear()
    monkeypatch.setattr(
        Embedder, "embed", lambda *given, **options: (encoded.extend(given[1]), whole(*given, **options))[1]
    )
    continued = distill(teacher_folder, CORPUS, tmp_path / "student", FAST)
    assert not set(finished) & set(encoded)
    fresh = distill(teacher_folder, CORPUS, tmp_path / "other", FAST)
    assert torch.equal(continued.encoder[0].embedding.weight, fresh.encoder[0].embedding.weight)


def test_chunks_of_another_precision_are_not_mixed(teacher_folder, tmp_path, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", killed)
        with pytest.raises(KeyboardInterrupt):
            distill(teacher_folder, CORPUS, tmp_path / "student", FAST)
    monkeypatch.setattr(Embedder, "precision", "bf16")
    with pytest.raises(UserError, match="unfinished run with other settings"):
        distill(teacher_folder, CORPUS, tmp_path / "student", FAST)


def test_something_else_is_not_replaced(teacher_folder, tmp_path):
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "file").touch()
    with pytest.raises(UserError, match="exists"):
        distill(teacher_folder, CORPUS, tmp_path / "student", FAST)


def test_what_cannot_be_imitated_is_refused(backbone, student_folder, tmp_path):
    with pytest.raises(UserError, match="this model knows none"):
        distill(backbone("llama"), CORPUS, tmp_path / "student", FAST)
    with pytest.raises(UserError, match="fast tokenizer"):
        distill(student_folder, CORPUS, tmp_path / "student", FAST)
    with pytest.raises(UserError, match="too few"):
        distill(student_folder.parent, SENTENCES[:3], tmp_path / "student", FAST)
    assert not list(tmp_path.iterdir())


def test_the_verb_says_how_close_the_student_is(teacher_folder, tmp_path):
    corpus = tmp_path / "notes.txt"
    corpus.write_text("\n".join(CORPUS))
    fast = ("--spans", 1, "--epochs", 1)
    said = done("distill", teacher_folder, corpus, "--output", tmp_path / "student", *fast)
    assert "Mean cosine with the teacher on held-out texts" in said
    assert "exists" in refused("distill", teacher_folder, corpus, "--output", tmp_path / "student", *fast)
    assert "spans" in refused("distill", teacher_folder, corpus, "--output", tmp_path / "other", "--spans", -1)
