"""What a task's score is made of, item by item: the ground of intervals and of paired comparisons.

The bootstrap draws items with replacement, so its intervals speak of other queries or pairs of the same kind, not of other
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

DRAWS = 1_000  # an end of a 95 % interval then rests on 25 draws; twice as many moved none by more than a tenth of its width

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """Items of one split and subset.

    Attributes:
        kind: How they make a score: ``mean`` of values; ``spearman`` or ``average_precision`` of values and gold.
        values: One number an item: its own score, or the similarity of a pair.
        gold: Scores or labels of pairs; empty for ``mean``.
    """

    kind: str
    values: Floats
    gold: Floats

    def score(self, drawn: NDArray[np.intp]) -> float:
        """The score of the items drawn."""
        return _SCORES[self.kind](self.values[drawn], self.gold[drawn] if len(self.gold) else self.gold)

    def matches(self, other: Part) -> bool:
        """Are these the same items, of another model perhaps?"""
        same = self.kind == other.kind and len(self.values) == len(other.values)
        return same and np.array_equal(self.gold, other.gold)


@dataclass(frozen=True)
class Items:
    """Items of one task; its score is the mean over its parts.

    Attributes:
        unit: What one item is, for readers: query, pair, text, clustering, document.
        parts: One a split and subset.
    """

    unit: str
    parts: tuple[Part, ...]

    def __len__(self) -> int:
        return sum(len(part.values) for part in self.parts)

    @property
    def score(self) -> float:
        """Of all items, in 0 … 1; equals mteb's main score."""
        return self._score([np.arange(len(part.values)) for part in self.parts])

    def interval(self) -> tuple[float, float]:
        """95 % percentile interval of the score."""
        return percentile_interval(self.draws())

    def draws(self, seed: int = 0) -> Floats:
        """Scores of ``DRAWS`` samples of the items with replacement; the same samples for every model of a task.

        Args:
            seed: Another one a task makes draws independent over tasks.
        """
        rng = np.random.default_rng(seed)
        sizes = [len(part.values) for part in self.parts]
        return np.array([self._score([rng.integers(size, size=size) for size in sizes]) for _ in range(DRAWS)])

    def matches(self, other: Items) -> bool:
        """Are these the same items, of another model perhaps?"""
        same = len(self.parts) == len(other.parts)
        return same and all(mine.matches(theirs) for mine, theirs in zip(self.parts, other.parts, strict=True))

    def save(self, file: Path) -> None:
        """Write as ``.npz``."""
        arrays: dict[str, Any] = {}
        for number, part in enumerate(self.parts):
            arrays |= {f"values{number}": part.values, f"gold{number}": part.gold}
        np.savez_compressed(file, unit=self.unit, kinds=[part.kind for part in self.parts], **arrays)

    @classmethod
    def load(cls, file: Path) -> Items:
        """Read what :meth:`save` wrote."""
        with np.load(file) as found:
            parts = [Part(str(kind), found[f"values{i}"], found[f"gold{i}"]) for i, kind in enumerate(found["kinds"])]
            return cls(str(found["unit"]), tuple(parts))

    def _score(self, drawn: list[NDArray[np.intp]]) -> float:
        return float(np.mean([part.score(places) for part, places in zip(self.parts, drawn, strict=True)]))


def measurable(task: AbsTask) -> bool:
    """Is it known what the main score of such a task is made of?"""
    scores = _MAIN_SCORES.get(task.metadata.type, frozenset())
    return task.metadata.main_score.removeprefix("max_over_subqueries_").partition("_at_")[0] in scores


def task_items(task: AbsTask, predictions: dict[str, Any], scores: dict[str, Any]) -> Items:
    """The items of a finished task, from what mteb predicted and what the data says.

    Args:
        task: With its data loaded.
        predictions: Of mteb, by subset and split.
        scores: Of mteb, by split, an entry a subset.
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
    """One split and subset of a task: its data, what was predicted, what mteb scored."""

    task: Any
    rows: Any
    predictions: Any
    scores: dict[str, Any]


def _retrieval(done: _Finished) -> Part:
    """A query's own main score, as trec_eval has it."""
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
    """MindSmallReranking: the best score of a document over the parts ``q_1``, ``q_2``, … of a query ``q``."""
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
    """By the similarity that reaches the main score, the best of five."""
    labels = done.rows[done.task.label_column_name]
    labels = labels[0] if len(done.rows) == 1 else labels  # all pairs in one row: how older data sets have it
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
    """A text's share of right answers over mteb's experiments."""
    labels = np.asarray(done.rows[done.task.label_column_name])
    return _mean((np.asarray(done.predictions) == labels).mean(axis=0))


def _clustering(done: _Finished) -> Part:
    """An item is one clustering: mteb clusters samples of the documents ten times over."""
    return _mean([value for level in done.scores["v_measures"].values() for value in level])


def _summarization(done: _Finished) -> Part:
    """A document's correlation over its summaries."""
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
    "Clustering": {"v_measure"},
    "Summarization": {"cosine_spearman"},
}
_BY_TYPE: dict[str, tuple[str, Callable[[_Finished], Part]]] = {
    "Retrieval": ("query", _retrieval),
    "Reranking": ("query", _retrieval),
    "STS": ("pair", _sts),
    "PairClassification": ("pair", _pairs),
    "Classification": ("text", _classification),
    "Clustering": ("clustering", _clustering),
    "Summarization": ("document", _summarization),
}
