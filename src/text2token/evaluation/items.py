"""The items that a task's score is computed from: queries, pairs or texts. Intervals and paired comparisons need them.

The bootstrap draws items with replacement. Its intervals therefore describe other queries or pairs of the same kind, not other
seeds or tasks. Two models are compared on the same draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytrec_eval
from mteb.abstasks import AbsTask
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score
from sklearn.preprocessing import MultiLabelBinarizer

from text2token.utils.files import atomic_write

DRAWS = 1_000  # 25 draws lie outside either end of a 95 % interval; twice as many moved no end by more than a tenth of its width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """The items of one split and subset.

    Attributes:
        kind: How to compute the score: ``mean`` of the values, or ``spearman`` or ``average_precision`` of values and gold.
        values: One number per item: its own score, or the similarity of a pair.
        gold: The true scores or labels of pairs; empty for ``mean``.
    """

    kind: str
    values: Floats
    gold: Floats

    def score(self, drawn: NDArray[np.intp]) -> float:
        """The score of a draw: places of items, with repetitions."""
        return _SCORES[self.kind](self.values[drawn], self.gold[drawn] if len(self.gold) else self.gold)

    def matches(self, other: Part) -> bool:
        """Are these the same items, perhaps evaluated with another model?"""
        same = self.kind == other.kind and len(self.values) == len(other.values)
        return same and np.array_equal(self.gold, other.gold)


@dataclass(frozen=True)
class Items:
    """The items of one task; its score is the mean over its parts.

    Attributes:
        unit: The word for one item: query, pair, text, clustering or document.
        parts: One part per split and subset.
    """

    unit: str
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.values) for part in self.parts)

    @property
    def score(self) -> float:
        """The score of all items, between 0 and 1; it equals mteb's main score."""
        return self._score([np.arange(len(part.values)) for part in self.parts])

    def interval(self) -> tuple[float, float]:
        """The 95 % percentile interval of the score."""
        return percentile_interval(self.draws())

    def draws(self, seed: int = 0) -> Floats:
        """Scores of ``DRAWS`` samples of the items with replacement; all models of a task get the same samples.

        Args:
            seed: Use a different one for each task, so that the draws of different tasks are independent.
        """
        rng = np.random.default_rng(seed)
        sizes = [len(part.values) for part in self.parts]
        return np.array([self._score([rng.integers(size, size=size) for size in sizes]) for _ in range(DRAWS)])

    def matches(self, other: Items) -> bool:
        """Are these the same items, perhaps evaluated with another model?"""
        same = len(self.parts) == len(other.parts)
        return same and all(mine.matches(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True))

    def save(self, file: Path) -> None:
        """Write as ``.npz``."""
        arrays: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            arrays |= {f"values{number}": part.values, f"gold{number}": part.gold}
        with atomic_write(file) as whole, whole.open("wb") as stream:
            np.savez_compressed(stream, unit=self.unit, kinds=[part.kind for part in self.parts], **arrays)

    @classmethod
    def load(cls, file: Path) -> Items:
        """Read a file that :meth:`save` wrote."""
        with np.load(file) as found:
            parts = [Part(str(kind), found[f"values{i}"], found[f"gold{i}"]) for i, kind in enumerate(found["kinds"])]
            return cls(str(found["unit"]), tuple(parts))

    def _score(self, drawn: list[NDArray[np.intp]]) -> float:
        return float(np.mean([part.score(places) for part, places in zip(self.parts, drawn, strict=True)]))


def measurable(task: AbsTask) -> bool:
    """Can :func:`task_items` compute the items of such a task?"""
    if getattr(task, "max_eval_samples", None) is not None:  # mteb does not say which samples it draws
        return False
    scores = _MAIN_SCORES.get(task.metadata.type, frozenset())
    return task.metadata.main_score.removeprefix("max_over_subqueries_").partition("_at_")[0] in scores


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
    """One item per clustering: mteb clusters ten samples of the documents."""
    return _mean([value for level in done.scores["v_measures"].values() for value in level])


def _summarization(done: _Finished) -> Part:
    """The correlation of each document over its summaries."""
    pairs = zip(done.predictions["cosine_scores"], done.predictions["human_scores"], strict=True)
    return _mean([_spearman(_floats(cosines), _floats(human)) for cosines, human in pairs])


def _floats(values: Any) -> Floats:
    return np.asarray(values, dtype=np.float64)


def _mean(values: Any) -> Part:
    return Part("mean", _floats(values), np.empty(0))


def percentile_interval(draws: Floats) -> tuple[float, float]:
    """The 95 % percentile interval of bootstrap draws."""
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return float(low), float(high)


def _spearman(values: Floats, gold: Floats) -> float:
    return float(np.corrcoef(rankdata(values), rankdata(gold))[0, 1])


_SCORES: dict[str, Callable[[Floats, Floats], float]] = {
    "mean": lambda values, _: float(values.mean()),
    "spearman": _spearman,
    "average_precision": lambda values, gold: float(average_precision_score(gold, values)),
}
_TREC_EVAL = {"ndcg": "ndcg_cut", "map": "map_cut", "recall": "recall", "precision": "P", "hit_rate": "success"}
_MAIN_SCORES = {
    "Retrieval": _TREC_EVAL.keys(),
    "Reranking": _TREC_EVAL.keys(),
    "STS": {"cosine_spearman", "spearman"},
    "PairClassification": {"max_ap"},
    "Classification": {"accuracy"},
    "MultilabelClassification": {"accuracy"},
    "Clustering": {"v_measure"},
    "Summarization": {"cosine_spearman"},
}
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
