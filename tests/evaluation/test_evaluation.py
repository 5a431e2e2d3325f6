"""Evaluation: scores as mteb computes them, intervals, no text encoded twice, no score of another model."""

from __future__ import annotations

import dataclasses
import errno
import json
import shutil
from pathlib import Path

import mteb
import numpy as np
import pytest
import torch
from datasets import Dataset
from mteb.models.sentence_transformer_wrapper import SentenceTransformerEncoderWrapper
from mteb.types import PromptType
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer, SparseEncoder
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM

from conftest import CORPUS, SENTENCES, of_recipe, untrained, write_lines, write_search
from text2token import Recipe, UserError
from text2token.cli import main
from text2token.evaluation import (
    LearnedCorrection,
    bm25_model,
    compare,
    evaluate,
    recorrected_model,
    runner,
    saved_model,
    select_tasks,
    untrained_model,
    write_comparison,
)
from text2token.evaluation.comparison import Row, _difference, _means
from text2token.evaluation.encoders import Session
from text2token.evaluation.items import Items, Part
from text2token.evaluation.results import read_summary, summarise
from text2token.evaluation.vector_store import VectorStore, hash_key
from text2token.model.fingerprint import content_hash
from text2token.model.spans import correction_sample
from text2token.model.static import static_embedder
from text2token.utils.files import exclusive_lock

RNG = np.random.default_rng(0)
PAIRS = [(a, b) for i, a in enumerate(SENTENCES) for b in CORPUS[i : i + 6]]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    """A folder of each kind of task, and a mirror with two of mteb's."""
    root = tmp_path_factory.mktemp("data")
    pairs = [
        {"sentence1": a, "sentence2": b, "score": float(RNG.integers(0, 50)) / 10, "label": int(RNG.integers(2))}
        for a, b in PAIRS
    ]
    labelled = [{"text": text, "label": i % 3} for i, text in enumerate(CORPUS)]
    many = [
        {"text": row["text"], "label": [row["label"], "x"] if i % 2 else [row["label"]]}
        for i, row in enumerate(labelled)
    ]
    own = root / "own"
    write_search(own / "search")
    write_lines(own / "similar" / "test.jsonl", [{k: v for k, v in row.items() if k != "label"} for row in pairs])
    write_lines(own / "paired" / "test.jsonl", [{k: v for k, v in row.items() if k != "score"} for row in pairs])
    write_lines(own / "grouped" / "test.jsonl", labelled)
    write_lines(own / "classes" / "train.jsonl", labelled)
    write_lines(own / "classes" / "test.jsonl", labelled[::-1])
    write_lines(own / "several" / "train.jsonl", many)
    write_lines(own / "several" / "test.jsonl", many[::-1])
    write_lines(root / "mirror" / "biosses-sts" / "test.jsonl", pairs)
    write_lines(root / "mirror" / "mteb" / "banking77" / "train.jsonl", labelled)
    write_lines(root / "mirror" / "mteb" / "banking77" / "test.jsonl", labelled)
    return root


@pytest.fixture(scope="module")
def model(backbone, tmp_path_factory):
    embedder = of_recipe(Recipe(backbone=backbone("llama"), max_length=128))
    embedder.calibrate(CORPUS, ["centre"])
    embedder.save(tmp_path_factory.mktemp("models") / "model")
    return tmp_path_factory.getbasetemp() / "models0" / "model"


def plain_model(recipe):
    return untrained_model(recipe, LearnedCorrection())


def own_folders(tasks):
    return sorted((tasks / "own").iterdir())


@pytest.fixture(scope="module")
def results(model, tasks, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "model"
    selection = select_tasks(data_root=tasks / "mirror", folders=own_folders(tasks))
    return output, evaluate(saved_model(str(model)), selection, output)


def test_every_kind_of_task_is_scored_as_mteb_scores_it(results):
    output, summary = results
    assert {row["type"] for row in summary["tasks"]} == {
        "STS", "PairClassification", "Classification", "MultilabelClassification", "Clustering", "Retrieval",
    }  # fmt: skip
    for row in summary["tasks"]:
        items = Items.load(output / "items" / f"{row['task']}.npz")
        assert items.score == pytest.approx(row["score"], abs=2e-5)  # mteb rounds search scores to five places
        low, high = row["interval"]
        assert low <= row["score"] <= high
        assert row["items"] == len(items)


def test_scores_equal_those_computed_by_hand(results, model, tasks):
    scores = {row["task"]: row["score"] for row in results[1]["tasks"]}
    encoder = SentenceTransformer(str(model / "dense"))
    rows = [json.loads(line) for line in (tasks / "own" / "similar" / "test.jsonl").read_text().splitlines()]
    first, second = (encoder.encode([row[key] for row in rows]) for key in ("sentence1", "sentence2"))
    cosines = (first * second).sum(axis=1)
    assert scores["similar"] == pytest.approx(spearmanr(cosines, [row["score"] for row in rows])[0], abs=1e-3)
    queries = encoder.encode([" ".join(text.split()[-4:]) for text in CORPUS[:12]])
    documents = encoder.encode([f"{text.split()[0]} {text}" for text in CORPUS])
    ranked = (-(queries @ documents.T)).argsort(axis=1)[:, :10]
    gains = np.array([[document in (query, query + 1) for document in row] for query, row in enumerate(ranked)])
    discounts = 1 / np.log2(np.arange(2, 12))
    assert scores["search"] == pytest.approx((gains @ discounts / discounts[:2].sum()).mean(), abs=1e-3)


def test_what_the_mirror_lacks_is_named(results):
    summary = results[1]
    assert len(summary["skipped"]) == 39
    assert summary["skipped"]["STS12"].startswith("not in ")
    assert summary["coverage"] == "mean over 8 tasks, 2 of them among the 41 of MTEB(eng, v2)"


def test_clustering_draws_the_same_documents_in_a_second_evaluation(results, model, tasks, tmp_path):
    (again,) = evaluate(saved_model(str(model)), select_tasks(folders=[tasks / "own" / "grouped"]), tmp_path)["tasks"]
    (before,) = [row for row in results[1]["tasks"] if row["task"] == "grouped"]
    assert again["score"] == before["score"]


def test_a_second_run_encodes_nothing_and_another_model_is_refused(results, model, tasks, monkeypatch, backbone):
    output, summary = results
    selection = select_tasks(data_root=tasks / "mirror", folders=own_folders(tasks))
    monkeypatch.setattr(runner, "_measure", lambda *_: pytest.fail("run again"))
    again = evaluate(saved_model(str(model)), selection, output)
    assert again["tasks"] == summary["tasks"]
    other = plain_model(Recipe(backbone=backbone("llama"), template="none"))
    with pytest.raises(UserError, match="results of another model"):
        evaluate(other, selection, output)
    with pytest.raises(UserError, match="results of another max_docs"):
        evaluate(saved_model(str(model)), selection, output, max_docs=5)
    renamed = dataclasses.replace(saved_model(str(model)), name="renamed")
    assert evaluate(renamed, selection, output)["tasks"] == summary["tasks"]


def test_an_evaluation_that_measured_nothing_leaves_its_folder_to_another(model, tasks, tmp_path):
    selection = select_tasks(folders=[tasks / "own" / "search"])
    with pytest.raises(UserError, match="are too few for search"):
        evaluate(saved_model(str(model)), selection, tmp_path, max_docs=1)
    assert evaluate(saved_model(str(model)), selection, tmp_path, max_docs=5)["max_docs"] == 5


def test_a_killed_run_keeps_tasks_and_vectors(model, tasks, tmp_path, monkeypatch):
    selection = select_tasks(folders=own_folders(tasks))
    encoded = []
    real = SentenceTransformer.encode

    def count(self, inputs, **options):
        encoded.extend(inputs)
        return real(self, inputs, **options)

    measure = runner._measure

    def die(task, *rest):
        scores = measure(task, *rest)
        if task.metadata.name == "paired":
            raise KeyboardInterrupt
        return scores

    monkeypatch.setattr(SentenceTransformer, "encode", count)
    monkeypatch.setattr(runner, "_measure", die)
    with pytest.raises(KeyboardInterrupt):
        evaluate(saved_model(str(model)), selection, tmp_path / "r")
    monkeypatch.setattr(runner, "_measure", measure)
    selection = select_tasks(folders=own_folders(tasks))
    summary = evaluate(saved_model(str(model)), selection, tmp_path / "r")
    assert len(summary["tasks"]) == 6
    assert len(encoded) == len(set(encoded))  # no text twice: not over tasks, and not over the kill
    (tmp_path / "r" / ".vectors.sqlite").touch()  # killed after the last task
    evaluate(saved_model(str(model)), selection, tmp_path / "r")
    assert not list((tmp_path / "r").glob(".vectors*"))


def test_without_memory_batches_are_halved_and_the_scores_stay(tasks, tmp_path, backbone, monkeypatch, caplog):
    recipe = Recipe(backbone=backbone("llama"), template="none", pooling="mean", correction="none", max_length=64)
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    expected = evaluate(untrained_model(recipe, LearnedCorrection()), selection, tmp_path / "calm")
    plain = SentenceTransformer.encode

    def narrow(self, texts, **settings):
        if len(texts) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB")
        return plain(self, texts, **settings)

    monkeypatch.setattr(SentenceTransformer, "encode", narrow)
    found = evaluate(untrained_model(recipe, LearnedCorrection()), selection, tmp_path / "narrow")
    assert found["tasks"][0]["score"] == pytest.approx(expected["tasks"][0]["score"], abs=1e-6)
    assert sum("Memory ran out" in message for message in caplog.messages) == 1


@pytest.mark.slow
def test_a_killed_run_counts_the_texts_of_both_processes(results, model, tasks, tmp_path, monkeypatch):
    names = ("classes", "paired", "similar")
    whole = tmp_path / "whole"
    evaluate(saved_model(str(model)), select_tasks(folders=[tasks / "own" / name for name in names]), whole)
    monkeypatch.setattr("text2token.evaluation.encoders._CHUNK", 16)
    for calls in (2, 3):  # killed twice, both times in the middle of a task
        with monkeypatch.context() as patch:
            left = iter(range(calls))
            real = SentenceTransformer.encode

            def encode(self, inputs, left=left, real=real, **options):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return real(self, inputs, **options)

            patch.setattr(SentenceTransformer, "encode", encode)
            with pytest.raises(KeyboardInterrupt):
                evaluate(
                    saved_model(str(model)),
                    select_tasks(folders=[tasks / "own" / name for name in names]),
                    tmp_path / "r",
                )
    evaluate(saved_model(str(model)), select_tasks(folders=[tasks / "own" / name for name in names]), tmp_path / "r")
    for name in names:
        expected, found = (
            json.loads((folder / "tasks" / f"{name}.json").read_text()) for folder in (whole, tmp_path / "r")
        )
        assert found["texts"] == expected["texts"]
        assert found["score"] == expected["score"]
        assert found["seconds"] >= found["encoding_seconds"]
        assert (found["encoding_seconds"] > 0) == (found["texts"] > 0)


def test_summaries_of_the_first_version_have_means_from_0_to_1_too(tmp_path):
    old = {"model": "m", "tasks": [], "mean_by_type": {"STS": 81.0}, "mean_over_types": 81.0, "mean_over_tasks": None}
    (tmp_path / "summary.json").write_text(json.dumps(old))
    found = read_summary(tmp_path)
    assert (found["mean_by_type"], found["mean_over_types"], found["mean_over_tasks"]) == ({"STS": 0.81}, 0.81, None)


def test_corrections_share_their_vectors_and_score_as_the_saved_embedder(backbone, tasks, tmp_path, monkeypatch):
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES))
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    encoded = []
    real = SentenceTransformer.encode

    def count(self, inputs, **options):
        encoded.extend(inputs)
        return real(self, inputs, **options)

    scores, revisions = {}, set()
    for correction in ("none", "centre", "first-component", "centre+filter"):
        recipe = Recipe(backbone=backbone("llama"), correction=correction, keep_from=0.1)
        learned = LearnedCorrection.of_recipe(recipe, str(tmp_path / "corpus.txt"))
        embedder = of_recipe(recipe)
        texts = learned.texts or SENTENCES
        embedder.calibrate(texts, recipe.correction_steps(), recipe.keep, seed=recipe.seed)
        embedder.save(tmp_path / correction)
        saved = evaluate(saved_model(str(tmp_path / correction)), selection, tmp_path / f"saved {correction}")
        with monkeypatch.context() as patch:
            patch.setattr(SentenceTransformer, "encode", count)
            plain = untrained_model(recipe, learned)
            summary = evaluate(plain, selection, tmp_path / f"r {correction}", vectors=tmp_path / "shared")
        assert summary["tasks"][0]["score"] == pytest.approx(saved["tasks"][0]["score"], abs=1e-4)
        scores[correction] = summary["tasks"][0]["score"]
        revisions.add(plain.revision)
        again = recorrected_model(str(tmp_path / "none"), learned, head=recipe.backbone)
        (row,) = evaluate(again, selection, tmp_path / f"again {correction}")["tasks"]
        assert row["score"] == pytest.approx(saved["tasks"][0]["score"], abs=1e-4)
    assert len(encoded) == len(set(encoded))
    assert len(revisions) == len(set(scores.values())) == 4


def test_a_filter_by_another_head_is_another_model(backbone, model, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(backbone("llama"), other)
    language_model = AutoModelForCausalLM.from_pretrained(other)
    language_model.get_output_embeddings().weight.data[0] += 1
    language_model.save_pretrained(other)
    for steps, heads in ((["centre"], 1), (["centre", "filter"], 2)):
        learned = LearnedCorrection(steps, texts=SENTENCES)
        found = {recorrected_model(str(model), learned, head=str(head)).revision for head in (backbone("llama"), other)}
        assert len(found) == heads


def test_the_revision_is_the_content(backbone, model, tmp_path, monkeypatch):
    load = backbone("llama")
    views = {
        "plain": Recipe(backbone=load, template="none"),
        "pooling": Recipe(backbone=load, template="none", pooling="mean"),
        "template": Recipe(backbone=load, suffix=" so"),
        "attention": Recipe(backbone=load, template="none", attention="bidirectional"),
        "length": Recipe(backbone=load, template="none", max_length=64),
    }
    revisions = {name: plain_model(recipe).revision for name, recipe in views.items()}
    assert len(set(revisions.values())) == len(views)
    assert plain_model(views["plain"]).revision == revisions["plain"]
    first, second = saved_model(str(model)), saved_model(str(model), "sparse")
    assert first.revision == saved_model(f"{model}/dense").revision != second.revision
    centred = [LearnedCorrection(["centre"], texts=texts) for texts in (CORPUS[:20], CORPUS[20:40])]
    assert len({untrained_model(views["plain"], correction).revision for correction in centred}) == 2
    with monkeypatch.context() as patch:
        patch.setattr("text2token.model.precision.has_bf16", lambda device: True)
        assert saved_model(str(model), precision="bf16").revision != first.revision
    shutil.copytree(model / "dense", tmp_path / "elsewhere")
    assert content_hash(SentenceTransformer(str(tmp_path / "elsewhere"))) == first.revision
    changed = SentenceTransformer(str(model / "dense"))
    with torch.no_grad():
        next(changed.parameters())[0] += 1e-3
    assert content_hash(changed) != first.revision


def test_sparse_and_fused(model, tasks, tmp_path):
    folders = [tasks / "own" / "search", tasks / "own" / "similar"]
    sparse = evaluate(saved_model(str(model), "sparse"), select_tasks(folders=folders), tmp_path / "s")
    encoder = SparseEncoder(str(model / "sparse"))
    queries = encoder.encode([" ".join(text.split()[-4:]) for text in CORPUS[:12]])
    documents = encoder.encode([f"{text.split()[0]} {text}" for text in CORPUS])
    ranked = (-(queries.to_dense() @ documents.to_dense().T)).argsort(dim=1, stable=True)[:, :10].numpy()
    gains = np.array([[document in (query, query + 1) for document in row] for query, row in enumerate(ranked)])
    discounts = 1 / np.log2(np.arange(2, 12))
    assert sparse["tasks"][0]["score"] == pytest.approx((gains @ discounts / discounts[:2].sum()).mean(), abs=1e-3)
    rows = [json.loads(line) for line in (folders[1] / "test.jsonl").read_text().splitlines()]
    pairs = [encoder.encode([row[key] for row in rows]).to_dense() for key in ("sentence1", "sentence2")]
    products = encoder.similarity_pairwise(*pairs)
    gold = [row["score"] for row in rows]
    expected = {
        "spearman": spearmanr(products, gold)[0],
        "cosine_spearman": spearmanr(torch.cosine_similarity(*pairs), gold)[0],
        "manhattan_spearman": spearmanr(-(pairs[0] - pairs[1]).abs().sum(dim=1), gold)[0],
    }
    scores = json.loads((tmp_path / "s" / "tasks" / "similar.json").read_text())["scores"]["test"][0]
    assert {name: scores[name] for name in expected} == pytest.approx(expected, abs=1e-4)
    fused = evaluate(saved_model(str(model), "dense+sparse"), select_tasks(folders=folders), tmp_path / "f")
    assert [row["task"] for row in fused["tasks"]] == ["search"]
    assert "only ranks" in fused["skipped"]["similar"]


def test_the_static_baseline_is_centred_and_scored(backbone, tasks, tmp_path):
    recipe = Recipe(backbone=backbone("llama"), template="static", correction="centre")
    learned = LearnedCorrection(["centre"], texts=CORPUS)
    model = untrained_model(recipe, learned)
    (row,) = evaluate(model, select_tasks(folders=[tasks / "own" / "similar"]), tmp_path / "r")["tasks"]
    embedder = static_embedder(recipe.backbone, CORPUS)
    mean = embedder.embed(correction_sample(CORPUS)).mean(dim=0)
    rows = [json.loads(line) for line in (tasks / "own" / "similar" / "test.jsonl").read_text().splitlines()]
    pairs = [embedder.embed([row[key] for row in rows]) - mean for key in ("sentence1", "sentence2")]
    expected = spearmanr(torch.cosine_similarity(*pairs), [row["score"] for row in rows])[0]
    assert row["score"] == pytest.approx(expected, abs=1e-3)
    assert "mean, static, centre" in model.name


def test_bm25_finds_words(tmp_path):
    search = write_search(tmp_path / "search", SENTENCES)
    summary = evaluate(bm25_model(), select_tasks(folders=[search]), tmp_path / "b")
    first_of_two = 1 / (1 + 1 / np.log2(3))  # of the two documents judged, the one that holds the words comes first
    assert summary["tasks"][0]["score"] >= first_of_two


def test_fewer_documents_are_marked(model, tasks, tmp_path):
    selection = select_tasks(folders=own_folders(tasks))
    summary = evaluate(saved_model(str(model)), selection, tmp_path / "r", max_docs=10)
    by_name = {row["task"]: row for row in summary["tasks"]}
    assert all(row["max_docs"] == 10 for row in by_name.values())
    assert by_name["similar"]["items"] == by_name["classes"]["items"] == 10
    assert 1 <= by_name["search"]["items"] < 10  # two documents each


PROMPTS = {
    "none": {},
    "by role": {"query": "find: ", "document": "read: "},
    "by task": {"STS": "same: ", "query": "find: ", "Retrieval-document": ""},
}


@pytest.mark.parametrize("name", PROMPTS)
def test_prompts_are_chosen_as_mteb_chooses_them(name, model, tmp_path):
    encoder = SentenceTransformer(str(model / "dense"), prompts=PROMPTS[name])
    if name == "by task":
        encoder.default_prompt_name = "query"
    encoder.save(str(tmp_path / "m"), create_model_card=False)
    session = Session(VectorStore(tmp_path / "v"), instructions=False, progress=False)
    once = saved_model(str(tmp_path / "m")).prepare(session)
    theirs = SentenceTransformerEncoderWrapper(SentenceTransformer(str(tmp_path / "m")))
    batches = DataLoader(Dataset.from_dict({"text": SENTENCES}), batch_size=4)
    for task in mteb.get_tasks(["SciFact", "BIOSSES"]):
        for role in (None, PromptType.query, PromptType.document):
            options = {"task_metadata": task.metadata, "hf_split": "test", "hf_subset": "default", "prompt_type": role}
            np.testing.assert_allclose(
                once.encode(batches, **options), theirs.encode(batches, show_progress_bar=False, **options), atol=1e-5
            )


def test_instructions_are_for_queries_and_only_when_asked_for(model, tmp_path):
    (task,) = select_tasks(names=["SciFact"]).tasks
    store = VectorStore(tmp_path / "v")
    plain, asked = (
        saved_model(str(model)).prepare(Session(store, instructions=given, progress=False)) for given in (False, True)
    )
    assert not plain._prompt(task.metadata, PromptType.query)
    assert not asked._prompt(task.metadata, PromptType.document)
    assert asked._prompt(task.metadata, PromptType.query).startswith("Instruct: Given a scientific claim")


def test_vectors_come_back_in_order_and_survive(tmp_path):
    keys = [hash_key("p", str(i)) for i in range(1200)]
    vectors = RNG.normal(size=(1200, 3)).astype(np.float32)
    store = VectorStore(tmp_path / "v")
    store.put(keys[:700], vectors[:700])
    assert store.missing(keys) == set(keys[700:])
    store.put(keys[700:], vectors[700:])
    again = VectorStore(tmp_path / "v")
    order = [*RNG.permutation(1200).tolist(), 3, 3]
    np.testing.assert_array_equal(again.get([keys[i] for i in order]), vectors[order])
    assert hash_key("a", "b") != hash_key("ab", "")


@pytest.fixture(scope="module")
def second(model, tasks, backbone, tmp_path_factory):
    output = tmp_path_factory.mktemp("results") / "plain"
    plain = plain_model(Recipe(backbone=backbone("llama"), template="none", pooling="mean"))
    evaluate(plain, select_tasks(folders=own_folders(tasks)), output)
    return output


@pytest.mark.slow
def test_side_by_side(results, second, tmp_path):
    first, summary = results
    published = {"<Famous>": {"BIOSSES": 0.8, "similar": 0.99}, "Unknown": {"STS12": 0.01}}
    found = compare([first, second], published)
    ours, theirs = found.measured
    rows = {row.label: row for row in found.tasks}
    assert theirs not in rows["BIOSSES"].scores
    assert rows["BIOSSES"].scores["<Famous> (published)"] == 0.8
    difference = rows["search"].differences[theirs]
    assert difference.value == pytest.approx(rows["search"].scores[ours] - rows["search"].scores[theirs])
    assert difference.low <= difference.value <= difference.high
    means = {row.label: row for row in found.means}
    assert summary["mean_over_types"] == pytest.approx(np.mean(list(summary["mean_by_type"].values())))
    assert means["mean over 6 types"].scores == {ours: pytest.approx(summary["mean_over_types"])}
    assert means["mean over 8 tasks"].scores == {ours: pytest.approx(summary["mean_over_tasks"])}
    assert means["Clustering, 1 task"].scores[theirs] == rows["grouped"].scores[theirs]
    assert "mean over 8 tasks, 2 of them among the 41 of MTEB(eng, v2)" in found.notes[0]
    assert not rows["grouped"].differences[theirs].clear
    alone = compare([first, second])
    shared = [row for row in alone.tasks if len(row.scores) == 2]
    expected = np.mean([row.scores[theirs] for row in shared])
    common = {row.label: row for row in alone.means}[f"mean over the {len(shared)} that all have"]
    assert common.scores[theirs] == pytest.approx(expected)
    write_comparison(found, tmp_path / "c")
    markdown = (tmp_path / "c" / "compare.md").read_text()
    assert "**99.0**" in markdown
    assert "<Famous> (published)" in markdown
    assert "Unknown" not in markdown
    page = (tmp_path / "c" / "compare.html").read_text()
    assert "&lt;Famous&gt; (published)" in page
    assert "<svg" in page
    assert '<g id="' not in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert json.loads((tmp_path / "c" / "compare.json").read_text())["measured"] == [ours, theirs]
    assert (tmp_path / "c" / "compare.png").stat().st_size > 5_000


def test_a_model_differs_from_itself_in_nothing_and_from_other_data_is_refused(model, tasks, tmp_path):
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    evaluate(saved_model(str(model)), selection, tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (difference,) = compare([tmp_path / "a", tmp_path / "b"]).tasks[0].differences.values()
    assert (difference.value, difference.low, difference.high, difference.clear) == (0, 0, 0, False)
    summary = json.loads((tmp_path / "b" / "summary.json").read_text())
    summary["tasks"][0]["data"] = "other"
    (tmp_path / "b" / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(UserError, match="on different data"):
        compare([tmp_path / "a", tmp_path / "b"])


def test_what_is_clear_is_said_so_but_of_clustering_runs_alone():
    draws = np.linspace(1, 2, 100)
    assert _difference(1.5, draws, enough_items=True).clear
    assert not _difference(1.5, draws, enough_items=False).clear
    assert not _difference(0.5, draws - 1.5, enough_items=True).clear
    tasks = [Row(kind, kind, {"a": 3.0, "b": 1.5}, items=10) for kind in ("Clustering", "STS")]
    means = {row.label: row for row in _means(tasks, [{"b": draws}] * 2, ["a", "b"], "a")}
    assert not means["Clustering, 1 task"].differences["b"].clear
    assert means["STS, 1 task"].differences["b"].clear
    assert means["mean over 2 types"].differences["b"].clear
    few = [*tasks, Row("Retrieval", "Retrieval", {"a": 3.0, "b": 1.5}, items=9)]
    means = {row.label: row for row in _means(few, [{"b": draws}] * 3, ["a", "b"], "a")}
    assert not means["Retrieval, 1 task"].differences["b"].clear
    assert not means["mean over 3 types"].differences["b"].clear
    assert means["STS, 1 task"].differences["b"].clear


def test_one_query_makes_no_difference_clear(model, tasks, tmp_path):
    for name, value in (("a", 1.0), ("b", 0.0)):
        evaluate(saved_model(str(model)), select_tasks(folders=[tasks / "own" / "similar"]), tmp_path / name)
        summary = json.loads((tmp_path / name / "summary.json").read_text())
        summary["model"], summary["tasks"][0]["score"], summary["tasks"][0]["items"] = name, value, 1
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
        Items("pair", (Part("mean", np.array([value]), np.empty(0)),)).save(tmp_path / name / "items" / "similar.npz")
    found = compare([tmp_path / "a", tmp_path / "b"])
    difference = found.tasks[0].differences["b"]
    assert (difference.low, difference.high, difference.clear) == (1, 1, False)
    assert "fewer than 10 items, as in similar" in " ".join(found.notes)


def test_published_models_go_by_their_last_name(results, tmp_path, capsys):
    (tmp_path / "p.json").write_text('{"owner__One": {"BIOSSES": 80.0}, "owner__Two": {"BIOSSES": 70.0}}')
    with pytest.raises(SystemExit):
        main(
            [
                "compare",
                str(results[0]),
                "--published",
                str(tmp_path / "p.json"),
                "--models",
                "Two",
                "-o",
                str(tmp_path),
            ]
        )
    table = capsys.readouterr().out
    assert "owner/Two (published)" in table
    assert "One" not in table
    said = refused(capsys, "compare", results[0], "--published", tmp_path / "p.json", "--models", "x", "-o", tmp_path)
    assert "no model 'x': it has owner/One, owner/Two" in said


def refused(capsys, *arguments):
    with pytest.raises(SystemExit) as exit_:
        main([str(argument) for argument in arguments])
    assert exit_.value.code == 2
    said = capsys.readouterr().err.strip()
    assert said.count("\n") == 0
    return said


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--tasks STSBenchmrk", "did you mean 'STSBenchmark'"),
        ("--data-root no-mirror", "no folder 'no-mirror'"),
        ("--data-root DATA/own", "None of the 41 tasks"),
        ("--data-root DATA/mirror --types Retreival", "No task has the type 'Retreival'"),
        ("--data DATA/mirror", "is not a task"),
        ("--data DATA/own/similar --mode thick", "no mode 'thick'"),
        ("--data DATA/own/similar --output DATA/own", "something other than results"),
        ("--data DATA/own/similar --pooling mean", "--pooling only applies to language models"),
    ],
)
def test_what_cannot_be_evaluated_is_one_sentence(capsys, model, tasks, tmp_path, options, sentence):
    line = f"evaluate {model} --output {tmp_path / 'r'} {options.replace('DATA', str(tasks))}"
    assert sentence in refused(capsys, *line.split())
    assert not (tmp_path / "r").exists()


def test_a_language_model_has_its_own_head(capsys, backbone, tasks, tmp_path):
    name = backbone("llama")
    line = f"evaluate {name} --head {name} --correction none --data {tasks}/own/similar --output {tmp_path / 'r'}"
    assert "is a language model with its own head: leave it out" in refused(capsys, *line.split())


def test_a_score_that_is_no_number_is_one_sentence(model, tmp_path):
    same = [{"sentence1": text, "sentence2": text, "score": float(i)} for i, text in enumerate(["A cat."] * 4)]
    write_lines(tmp_path / "task" / "test.jsonl", same)
    with pytest.raises(UserError, match="has no score, because its cosine_spearman is not a number"):
        evaluate(saved_model(str(model)), select_tasks(folders=[tmp_path / "task"]), tmp_path / "r")
    assert [file.name for file in tmp_path.glob(".*")] == []


def test_one_process_writes_results(model, tasks, tmp_path):
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    with exclusive_lock(tmp_path / ".r.lock", ""), pytest.raises(UserError, match="Another process is at work"):
        evaluate(saved_model(str(model)), selection, tmp_path / "r")


def test_a_model_without_a_head_is_centred(backbone, tasks, tmp_path):
    encoder = untrained(backbone("bert")).encoder
    encoder.save(str(tmp_path / "m"), create_model_card=False)
    (tmp_path / "corpus.txt").write_text("\n".join(SENTENCES))
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    scores = []
    for correction in ("centre", "first-component"):
        judged = recorrected_model(str(tmp_path / "m"), LearnedCorrection([correction], texts=SENTENCES))
        scores.append(evaluate(judged, selection, tmp_path / correction)["tasks"][0]["score"])
    assert scores[0] != scores[1]
    with pytest.raises(UserError, match="No decoding head was found"):
        recorrected_model(str(tmp_path / "m"), LearnedCorrection(["filter"], texts=SENTENCES))


@pytest.mark.parametrize(("split", "column"), [("train", "score"), ("test", "points")])
def test_a_mirror_without_a_split_or_a_column_keeps_what_was_finished(model, tmp_path, capsys, split, column):
    mirror = tmp_path / "mirror"
    good = [{"sentence1": text, "sentence2": SENTENCES[0], "score": float(i)} for i, text in enumerate(SENTENCES)]
    write_lines(mirror / "biosses-sts" / "test.jsonl", good)
    write_lines(mirror / "sts12-sts" / f"{split}.jsonl", [{"sentence1": "a", "sentence2": "b", column: 1.0}] * 2)
    output = tmp_path / "r"
    with pytest.raises(SystemExit):
        main(["evaluate", str(model), "--data-root", str(mirror), "--tasks", "BIOSSES,", "--output", str(output)])
    said = refused(capsys, "evaluate", model, "--data-root", mirror, "--tasks", "BIOSSES,STS12", "--output", output)
    assert "STS12" in said
    assert ("test" if column == "score" else "'score'") in said
    assert [row["task"] for row in json.loads((output / "summary.json").read_text())["tasks"]] == ["BIOSSES"]


def test_what_is_mended_in_a_mirror_is_read(model, tmp_path):
    rows = [{"sentence1": text, "sentence2": SENTENCES[0], "score": float(i)} for i, text in enumerate(SENTENCES)]
    folder = tmp_path / "biosses-sts"
    layout = "---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n"
    scores = []
    for sign in (1, -1):
        write_lines(folder / "test.jsonl", [{**row, "score": sign * row["score"]} for row in rows])
        (folder / "README.md").write_text(layout)
        selection = select_tasks(data_root=tmp_path, names=["BIOSSES"])
        summary = evaluate(saved_model(str(model)), selection, tmp_path.with_name("mended"))
        scores.append(summary["tasks"][0]["score"])
    assert scores[0] == pytest.approx(-scores[1])
    assert abs(scores[0]) > 0.01


def test_vectors_that_are_to_be_kept_are(model, tasks, tmp_path):
    vectors = tmp_path / "new" / "results" / "vectors.sqlite"
    selection = select_tasks(folders=[tasks / "own" / "similar"])
    evaluate(saved_model(str(model)), selection, vectors.parent.parent / "other", vectors=vectors)
    evaluate(saved_model(str(model)), selection, tmp_path / "results", vectors=vectors)
    assert vectors.is_file()
    kept = tmp_path / "results" / "vectors.sqlite"
    evaluate(saved_model(str(model)), selection, tmp_path / "results", vectors=kept)
    kept.touch()
    evaluate(saved_model(str(model)), selection, tmp_path / "results")
    assert kept.is_file()


def test_a_full_disk_at_the_first_file_leaves_a_folder_that_continues(model, tasks, tmp_path, monkeypatch):
    selection = select_tasks(folders=[tasks / "own" / "similar"])

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(runner, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        evaluate(saved_model(str(model)), selection, tmp_path / "r")
    monkeypatch.undo()
    (tmp_path / "r" / "model.json.part").touch()  # killed while it was written
    assert evaluate(saved_model(str(model)), selection, tmp_path / "r")["tasks"]


def test_costs_of_another_model_are_not_counted(model, tasks, tmp_path, monkeypatch):
    selection = select_tasks(folders=[tasks / "own" / "similar"])

    def stopped(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(runner, "_measure", stopped)
    with pytest.raises(KeyboardInterrupt):
        evaluate(saved_model(str(model)), selection, tmp_path / "r")
    monkeypatch.undo()
    other = saved_model(str(model), "sparse")
    for folder in ("r", "alone"):
        evaluate(other, select_tasks(folders=[tasks / "own" / "similar"]), tmp_path / folder)
    after, alone = (json.loads((tmp_path / name / "tasks" / "similar.json").read_text()) for name in ("r", "alone"))
    assert after["texts"] == alone["texts"]


def test_sparse_vectors_are_clustered(model, tasks, tmp_path):
    selection = select_tasks(folders=[tasks / "own" / "grouped"])
    (row,) = evaluate(saved_model(str(model), "sparse"), selection, tmp_path)["tasks"]
    assert row["type"] == "Clustering"
    assert 0 <= row["score"] <= 1


def test_zeros_that_do_not_fit_into_memory_are_refused(model, tasks, tmp_path, monkeypatch):
    monkeypatch.setattr("text2token.utils.provenance.memory_gib", lambda: 1e-6)
    selection = select_tasks(folders=[tasks / "own" / "grouped"])
    with pytest.raises(UserError, match=r"all zeros of the .* sparse vectors of the task grouped"):
        evaluate(saved_model(str(model), "sparse"), selection, tmp_path)


def test_a_model_without_numbers_is_refused(model, tasks, tmp_path):
    encoder = SentenceTransformer(str(model / "dense"))
    with torch.no_grad():
        encoder[0].model.embed_tokens.weight.fill_(torch.nan)
    encoder.save(str(tmp_path / "nan"), create_model_card=False)
    with pytest.raises(UserError, match="NaN or infinity"):
        evaluate(saved_model(str(tmp_path / "nan")), select_tasks(folders=[tasks / "own" / "similar"]), tmp_path / "r")


def test_an_untrained_setting_from_the_command_line(capsys, backbone, tasks, tmp_path):
    line = ["evaluate", backbone("llama"), "--data", str(tasks / "own" / "similar"), "--output", str(tmp_path / "r")]
    assert "learnt from texts" in refused(capsys, *line)
    write_lines(tmp_path / "texts.jsonl", [{"body": text} for text in CORPUS])
    line += ["--corpus", str(tmp_path / "texts.jsonl"), "--correction", "centre+first-component"]
    assert "'text'" in refused(capsys, *line)
    with pytest.raises(SystemExit):
        main([*line, "--text-column", "body", "--json"])
    summary = json.loads(capsys.readouterr().out)
    assert summary["model"] == f"{Path(backbone('llama')).name}, last, keywords, centre+first-component"


def test_a_damaged_result_is_named(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "A.json").touch()
    with pytest.raises(UserError, match=r"Cannot read '.*A\.json'"):
        summarise(tmp_path, {}, frozenset())
