"""The items of a finished task, computed as mteb computes the task's score."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask
from sklearn.preprocessing import MultiLabelBinarizer

from text2token.evaluation.items import Floats, Items, Part, spearman


def task_items(task: AbsTask, predictions: dict[str, Any], scores: dict[str, Any]) -> Items:
    """The items of a finished task.

    Args:
        task: The task with its data.
        predictions: mteb's predictions by subset and split.
        scores: mteb's scores by split, one entry per subset.
    """
    unit, make = _BY_TYPE[task.metadata.type]
    parts = []
    for split, entries in scores.items():
        for entry in entries:
            subset = entry["hf_subset"]
            rows = task.dataset.get(subset, task.dataset)[split]
            parts.append(make(_Finished(task, rows, predictions[subset][split], entry)))
    return Items(unit, tuple(parts))


class _Finished(NamedTuple):
    """One split and subset of a finished task."""

    task: Any
    rows: Any
    predictions: Any
    scores: dict[str, Any]


def _retrieval(done: _Finished) -> Part:
    """The main score of each query, computed by trec_eval."""
    relevant, predictions = done.rows["relevant_docs"], done.predictions
    name = done.task.metadata.main_score
    if name.startswith("max_over_subqueries_"):
        name = name.removeprefix("max_over_subqueries_")
        relevant, predictions = _merge_subqueries(relevant, predictions)
    if done.task.ignore_identical_ids:
        predictions = {
            query: {document: score for document, score in found.items() if document != query}
            for query, found in predictions.items()
        }
    metric, _, depth = name.rpartition("_at_")
    measure = f"{_TREC_EVAL[metric]}.{depth}"
    scored = pytrec_eval.RelevanceEvaluator(relevant, {measure}).evaluate(predictions)
    return _mean([scored[query][measure.replace(".", "_")] for query in sorted(scored)])


def _merge_subqueries(relevant: Any, predictions: Any) -> tuple[Any, Any]:
    """Merge the subqueries ``q_1``, ``q_2``, … of a query ``q`` (MindSmallReranking): a document gets its best score."""
    judged: dict[str, Any] = {}
    merged: dict[str, dict[str, float]] = {}
    for query, documents in relevant.items():
        whole = query.rpartition("_")[0]
        judged[whole] = documents
        best = merged.setdefault(whole, {})
        for document, score in predictions[query].items():
            best[document] = max(score, best.get(document, score))
    return judged, merged


def _sts(done: _Finished) -> Part:
    key = "cosine_scores" if done.task.metadata.main_score.startswith("cosine") else "similarity_scores"
    return Part("spearman", _floats(done.predictions[key]), _floats(done.rows["score"]))


def _pairs(done: _Finished) -> Part:
    """Pairs with the one of five similarities whose score is the main score: the highest."""
    labels = done.rows[done.task.label_column_name]
    labels = labels[0] if len(done.rows) == 1 else labels  # older data sets hold all pairs in one row
    found = {name: _floats(values) for name, values in done.predictions.items()}
    by_name = {
        "similarity": found["similarity_scores"],
        "cosine": found["cosine_scores"],
        "dot": found["dot_scores"],
        "manhattan": -found["manhattan_distances"],
        "euclidean": -found["euclidean_distances"],
    }
    best = max(by_name, key=lambda name: done.scores[f"{name}_ap"])
    return Part("average_precision", by_name[best], _floats(labels))


def _classification(done: _Finished) -> Part:
    """The share of mteb's experiments that label a text correctly."""
    labels = np.asarray(done.rows[done.task.label_column_name])
    return _mean((np.asarray(done.predictions) == labels).mean(axis=0))


def _multilabel_classification(done: _Finished) -> Part:
    """The share of mteb's experiments that give a text exactly its labels."""
    labels = MultiLabelBinarizer().fit_transform(done.rows[done.task.label_column_name])
    return _mean((np.asarray(done.predictions) == labels).all(axis=2).mean(axis=0))


def _clustering(done: _Finished) -> Part:
    """One item per clustering: ten samples of the documents, or in a legacy task its sets of texts."""
    found = done.scores["v_measures"]
    return _mean(found if isinstance(found, list) else [value for level in found.values() for value in level])


def _summarization(done: _Finished) -> Part:
    """The correlation of each document over its summaries."""
    pairs = zip(done.predictions["cosine_scores"], done.predictions["human_scores"], strict=True)
    return _mean([spearman(_floats(cosines), _floats(human)) for cosines, human in pairs])


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _mean(values: Any) -> Part:
    return Part("mean", _floats(values), np.empty(0))


_TREC_EVAL = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
MAIN_SCORES = {
    "Retrieval": _TREC_EVAL.keys(),
    "Reranking": _TREC_EVAL.keys(),
    "STS": {"cosine_spearman", "spearman"},
    "PairClassification": {"max_ap"},
    "Classification": {"accuracy"},
    "MultilabelClassification": {"accuracy"},
    "Clustering": {"v_measure"},
    "Summarization": {"cosine_spearman"},
}
"""Type of task → the main scores that items are computed for, without their depth."""

_BY_TYPE: dict[str, tuple[str, Callable[[_Finished], Part]]] = {
    "Retrieval": ("query", _retrieval),
    "Reranking": ("query", _retrieval),
    "STS": ("pair", _sts),
    "PairClassification": ("pair", _pairs),
    "Classification": ("text", _classification),
    "MultilabelClassification": ("text", _multilabel_classification),
    "Clustering": ("clustering", _clustering),
    "Summarization": ("document", _summarization),
}
