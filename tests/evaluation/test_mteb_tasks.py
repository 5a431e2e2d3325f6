"""Tasks of mteb from a local mirror: each class is scored as mteb scores it, or is refused before anything is encoded."""

from __future__ import annotations

import mteb
import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from conftest import CORPUS, calibrated, write_lines
from text2token import UserError
from text2token.evaluation import evaluate, saved_model, select_tasks
from text2token.evaluation.items import Items
from text2token.evaluation.task_data import load_task
from text2token.evaluation.task_subset import keep_documents
from text2token.evaluation.task_support import check_supported

RNG = np.random.default_rng(0)
TEXTS = CORPUS[:24]
SET = {"sentences": TEXTS, "labels": [str(i % 3) for i in range(24)]}
PAIRS = [{"sentence1": text, "sentence2": CORPUS[i + 7], "labels": i % 2} for i, text in enumerate(TEXTS)]
SUMMARIES = [
    {
        "text": " ".join(TEXTS[i : i + 3]),
        "human_summaries": TEXTS[i : i + 2],
        "machine_summaries": TEXTS[i + 2 : i + 7],
        "relevance": [float(score) for score in RNG.permutation(5)],
    }
    for i in range(12)
]


def write_configs(folder, configs):
    """Write tables, config → split → rows, with the README that names their files."""
    lines = ["---", "configs:"]
    for config, splits in configs.items():
        lines += [f"- config_name: {config}", "  data_files:"]
        for split, rows in splits.items():
            write_lines(folder / config / f"{split}.jsonl", rows)
            lines += [f"  - split: {split}", f"    path: {config}/{split}.jsonl"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))


def write_reranking(folder):
    """Write eight queries with four candidates each."""
    queries = [{"_id": f"q{i}", "text": text} for i, text in enumerate(TEXTS[:8])]
    judged = [{"query-id": f"q{i}", "corpus-id": f"d{i + j}", "score": int(j == 2)} for i in range(8) for j in range(4)]
    ranked = [{"query-id": f"q{i}", "corpus-ids": [f"d{i + j}" for j in range(4)]} for i in range(8)]
    write_configs(
        folder,
        {
            "corpus": {"corpus": [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(TEXTS)]},
            "queries": {"queries": queries},
            "default": {"test": judged},
            "top_ranked": {"test": ranked},
        },
    )


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    """A folder for a task of each class that the benchmark has not, or that holds lists, subsets or several splits."""
    root = tmp_path_factory.mktemp("mirror")
    sets = [{key: values[i:] for key, values in SET.items()} for i in range(6)]
    write_lines(root / "arxiv-clustering-p2p" / "test.jsonl", sets)
    write_lines(root / "WikiCitiesClustering" / "test.jsonl", [SET])
    write_lines(root / "summeval" / "test.jsonl", SUMMARIES)
    write_reranking(root / "AskUbuntuDupQuestions")
    for split, rows in {"test": PAIRS, "validation": PAIRS[:6:-1]}.items():
        write_lines(root / "CTKFactsNLI" / f"{split}.jsonl", rows)
    subsets = mteb.get_task("XStance").hf_subsets
    older = {name: [row[name] for row in PAIRS] for name in PAIRS[0]}  # all pairs in one row
    write_configs(root / "XStance", {subset: {"test": [older]} for subset in subsets})
    return root


@pytest.fixture(scope="module")
def model(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "model"
    calibrated(backbone("llama"), max_length=64).save(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "items"),
    [
        ("ArxivClusteringP2P", 6),
        ("WikiCitiesClustering", 1),
        ("SummEvalSummarization.v2", 12),
        ("AskUbuntuDupQuestions", 8),
        ("CTKFactsNLI", 24 + 17),
        ("XStance", 3 * 24),
    ],
)
@pytest.mark.parametrize("mode", ["dense", "sparse"])
def test_a_task_of_a_mirror_has_the_score_of_mteb(model, mirror, tmp_path, monkeypatch, name, items, mode):
    monkeypatch.setattr("text2token.evaluation.items.DRAWS", 50)
    selection = select_tasks(data_root=mirror, names=[name])
    (row,) = evaluate(saved_model(str(model), mode), selection, tmp_path / "r")["tasks"]
    found = Items.load(tmp_path / "r" / "items" / f"{name}.npz")
    assert row["items"] == len(found) == items
    assert found.score == pytest.approx(row["score"], abs=2e-5)
    low, high = row["interval"]
    assert low <= row["score"] <= high
    if mode == "dense":
        theirs = mteb.evaluate(
            SentenceTransformer(str(model / "dense")),
            select_tasks(data_root=mirror, names=[name]).tasks,
            cache=None,
            show_progress_bar=False,
        )[0]
        assert row["score"] == pytest.approx(theirs.get_score(), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        (
            "CQADupstackRetrieval",
            "(Retrieval, AbsTaskAggregate) .* no texts of its own: name its parts, CQADupstackAndroid.*,",
        ),
        ("SciRepEvalDRSMClassification", "(Classification, AbsTaskClassification) .* is cross-validated: leave it out"),
        ("SummEval", "(Summarization, AbsTaskSummarization) .* from Deprecated.*: choose SummEvalSummarization.v2"),
        ("VDRMultilingualRetrieval", "(Retrieval, AbsTaskRetrieval) .* it needs image: leave it out"),
        ("IFIRFiQA", "(InstructionRetrieval, AbsTaskRetrieval) .* no intervals for this kind of task: leave it out"),
        ("Tatoeba", "(BitextMining, AbsTaskBitextMining) .* no intervals for this kind of task: leave it out"),
        ("TalemaaderPC", "(PairClassification, .*) .* no interval for its score max_accuracy: leave it out"),
    ],
)
def test_a_task_without_items_is_refused_when_it_is_named(name, sentence):
    pattern = sentence.replace("(", r"\(", 1).replace(")", r"\)", 1)
    with pytest.raises(UserError, match=f"The task {name} {pattern}"):
        select_tasks(names=[name])


def test_a_task_that_draws_its_texts_is_refused(monkeypatch):
    name = "EmotionAnalysisPlus"
    monkeypatch.setattr(type(mteb.get_task(name)), "max_eval_samples", 100, raising=False)
    with pytest.raises(
        UserError, match=rf"The task {name} \(MultilabelClassification, .*which of its texts are scored: leave"
    ):
        select_tasks(names=[name])


def test_all_tasks_of_the_benchmark_are_supported():
    for task in select_tasks().tasks:
        check_supported(task)


@pytest.mark.parametrize(
    ("name", "limit", "items"), [("ArxivClusteringP2P", 45, 2), ("WikiCitiesClustering", 10, 1), ("XStance", 10, 30)]
)
def test_sets_and_older_pairs_are_cut_down(mirror, name, limit, items):
    (task,) = select_tasks(data_root=mirror, names=[name]).tasks
    load_task(task)
    keep_documents(task, limit)
    tables = [task.dataset.get(subset, task.dataset)["test"] for subset in task.hf_subsets]
    assert sum(map(len, tables)) == items
    if name != "XStance":
        sizes = [len(labels) for labels in tables[0]["labels"]]
        assert [len(texts) for texts in tables[0]["sentences"]] == sizes
        assert 0 < sum(sizes) <= limit
    with pytest.raises(UserError, match=f"So few texts .* of {name} have only one label"):
        keep_documents(task, 1)


@pytest.mark.parametrize(
    ("name", "folder", "row", "sentence"),
    [
        ("WikiCitiesClustering", "WikiCitiesClustering", SET | {"labels": ["a", "b"]}, "24 in sentences, 2 in labels"),
        (
            "WikiCitiesClustering",
            "WikiCitiesClustering",
            {"sentences": "A cat.", "labels": "a"},
            "has no list in row 1",
        ),
        ("WikiCitiesClustering", "WikiCitiesClustering", SET | {"labels": ["a"] * 24}, "has only one label"),
        (
            "SummEvalSummarization.v2",
            "summeval",
            SUMMARIES[0] | {"relevance": [1.0]},
            "5 in machine_summaries, 1 in rel",
        ),
        (
            "SummEvalSummarization.v2",
            "summeval",
            SUMMARIES[0] | {"human_summaries": []},
            "no list in row 1, column 'human",
        ),
    ],
)
def test_lists_that_do_not_fit_together_are_found_before_anything_is_encoded(tmp_path, name, folder, row, sentence):
    write_lines(tmp_path / folder / "test.jsonl", [row])
    (task,) = select_tasks(data_root=tmp_path, names=[name]).tasks
    with pytest.raises(UserError, match=sentence):
        load_task(task)
