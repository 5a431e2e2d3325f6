"""Tasks from a user's own folder: the files and columns that it holds decide what is measured."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskMultilabelClassification,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from text2token.data.queries import read_queries
from text2token.data.rows import ID_COLUMNS, Row, TextCheck
from text2token.data.tables import find_table, read_table
from text2token.data.text import clean, finite_number
from text2token.evaluation.labels import Split, encode_labels, listed
from text2token.evaluation.qrels import read_qrels
from text2token.utils.errors import UserError

_SHAPES = (
    "corpus.jsonl, queries.jsonl and qrels/test.tsv (search), or a test table with the columns sentence1, sentence2 and score "
    "(similarity), sentence1, sentence2 and label (pair classification), or text and label (clustering; classification with "
    "a train table beside it)"
)
_CLUSTERED = 2_048  # documents, as most clustering tasks of MTEB(eng, v2) take
_NEIGHBOURS = 5  # mteb's multi-label classifier looks at so many training texts


def folder_task(folder: Path, *, strict: bool = False) -> AbsTask:
    """The task in a folder, named after the folder.

    =============================================  ==========================  =================================
    files                                          task                        main score
    =============================================  ==========================  =================================
    ``corpus``, ``queries``, ``qrels/test.tsv``    search (BEIR)               nDCG@10
    ``test``: sentence1, sentence2, score          similarity (STS)            Spearman correlation of cosines
    ``test``: sentence1, sentence2, label          pair classification         average precision
    ``train`` and ``test``: text, label            classification              accuracy
    ``train`` and ``test``: text, list of labels   multi-label classification  accuracy, all labels of a text right
    ``test``: text, label                          clustering                  V-measure
    =============================================  ==========================  =================================

    ``corpus``, ``queries``, ``train`` and ``test`` are tables that :func:`text2token.data.tables.read_table` reads.

    Args:
        folder: The folder.
        strict: Refuse rows without text instead of skipping them.

    Raises:
        UserError: The folder is none of these, or its rows do not fit together.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}': a task of your own is a folder with {_SHAPES}.")
    if find_table(folder, "corpus"):
        return _search(folder, strict)
    files = {split: file for split in ("train", "test") if (file := find_table(folder, split))}
    columns = _columns(files["test"]) if "test" in files else set()
    if {"sentence1", "sentence2", "score"} <= columns:
        return _similarity(folder, files["test"], strict)
    if {"sentence1", "sentence2", "label"} <= columns:
        splits = _labelled(folder, {"test": files["test"]}, ("sentence1", "sentence2"), strict)
        return _pair_classification(folder, splits)
    if {"text", "label"} <= columns:
        splits = _labelled(folder, files, ("text",), strict)
        return _classification(folder, splits) if "train" in files else _clustering(folder, splits)
    raise UserError(f"The folder '{folder}' is not a task: expected {_SHAPES}.")


def _similarity(folder: Path, file: Path, strict: bool) -> AbsTask:
    rows = _read(file, ("sentence1", "sentence2"), ("score",), strict)
    scores = rows["score"] = [number for score in rows["score"] if (number := finite_number(score)) is not None]
    if len(scores) < len(rows["sentence1"]) or len(set(scores)) < 2:
        raise UserError(f"The scores of '{folder}' must be numbers, and not all the same.")
    limits = {"min_score": min(scores), "max_score": max(scores)}
    return _task(folder, AbsTaskSTS, "STS", "cosine_spearman", {"test": rows}, **limits)


def _pair_classification(folder: Path, splits: Mapping[str, Split]) -> AbsTask:
    if any(isinstance(label, list) for label in splits["test"]["label"]):
        raise UserError(f"Pair classification needs one label a row, and '{folder}' has lists of labels.")
    names = encode_labels(folder, splits)
    if len(names) != 2:
        raise UserError(f"The pairs of '{folder}' must have two different labels, found {listed(names)}.")
    column = {"label_column_name": "label"}
    return _task(folder, AbsTaskPairClassification, "PairClassification", "max_ap", splits, **column)


def _classification(folder: Path, splits: Mapping[str, Split]) -> AbsTask:
    if not any(isinstance(label, list) for rows in splits.values() for label in rows["label"]):
        encode_labels(folder, splits)
        return _task(folder, AbsTaskClassification, "Classification", "accuracy", splits)
    if len(splits["train"]["label"]) < _NEIGHBOURS:
        raise UserError(f"The train table of '{folder}' has fewer than {_NEIGHBOURS} texts: add some.")
    for rows in splits.values():
        rows["label"] = [label if isinstance(label, list) else [label] for label in rows["label"]]
    encode_labels(folder, splits)
    whole = {"max_eval_samples": None}
    return _task(folder, AbsTaskMultilabelClassification, "MultilabelClassification", "accuracy", splits, **whole)


def _clustering(folder: Path, splits: Mapping[str, Split]) -> AbsTask:
    if any(isinstance(label, list) for label in splits["test"]["label"]):
        raise UserError(
            f"Clustering needs one label per text, and '{folder}' has lists of labels: "
            "write one label, or add a train table for multi-label classification."
        )
    encode_labels(folder, splits, note=False)
    size = {"max_fraction_of_documents_to_embed": None, "max_document_to_embed": _CLUSTERED}
    names = {"input_column_name": "text", "label_column_name": "label"}
    return _task(folder, AbsTaskClustering, "Clustering", "v_measure", splits, **size, **names)


def _search(folder: Path, strict: bool) -> AbsTask:
    corpus = _documents(_table(folder, "corpus"), strict)
    queries = read_queries(_table(folder, "queries"), strict=strict)
    file = find_table(folder / "qrels", "test")
    if file is None:
        raise UserError(f"There is no '{folder / 'qrels' / 'test.tsv'}': a search task keeps its judgements there.")
    judged = {query: found for query, found in read_qrels(file).items() if queries.get(query) != ""}
    texts = {name: text for name, text in queries.items() if text}
    asked = [place for place, name in enumerate(texts) if name in judged]  # as in mteb
    data = {
        "corpus": Dataset.from_dict(corpus),
        "queries": Dataset.from_dict({"id": list(texts), "text": list(texts.values())}).select(asked),
        "relevant_docs": judged,
        "top_ranked": None,
    }
    own = _finds_itself(corpus, texts, judged)
    if own:
        warnings.warn(
            f"{folder.resolve().name}: the queries are documents of the corpus, so a query's own document is left out of its "
            "results, as mteb does for ArguAna.",
            stacklevel=2,
        )
    return _task(
        folder, AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"default": {"test": data}}, ignore_identical_ids=own
    )


def _finds_itself(corpus: Split, queries: Mapping[str, str], judged: Mapping[str, Mapping[str, int]]) -> bool:
    """Are the queries documents of the corpus? Then most of those that share an id with a document also share its text.

    Ids alone do not show it: many collections number queries and documents from 1.
    """
    texts = dict(zip(corpus["id"], corpus["text"], strict=True))
    shared = [
        (query, text) for query, text in queries.items() if query in texts and judged.get(query, {}).get(query, 0) <= 0
    ]
    return 2 * sum(text.split() == texts[query].split() for query, text in shared) > len(shared)


def _table(folder: Path, stem: str) -> Path:
    file = find_table(folder, stem)
    if file is None:
        raise UserError(f"There is no '{folder / stem}.jsonl': a search task has corpus, queries and qrels/test.tsv.")
    return file


def _documents(file: Path, strict: bool) -> Split:
    """The documents of a table that have a title or a text."""
    found: Split = {"id": [], "title": [], "text": []}
    seen: set[str] = set()
    check = TextCheck("document", strict=strict)
    for row in read_table(file, [*ID_COLUMNS, "title", "text"]):
        name = row.id()
        if name in seen:
            raise UserError(f"{row.place}: the id '{name}' is there a second time.")
        seen.add(name)
        title, text = _text(row, "title"), row.text("text")
        if not check.has_text(row.place, title, text):
            continue
        for column, value in {"id": name, "title": title, "text": text}.items():
            found[column].append(value)
    check.report(file)
    if not found["id"]:
        raise UserError(f"'{file}' has no rows with text.")
    return found


def _labelled(folder: Path, files: Mapping[str, Path], texts: Sequence[str], strict: bool) -> dict[str, Split]:
    splits = {split: _read(file, texts, ("label",), strict) for split, file in files.items()}
    for split, rows in splits.items():
        if not rows["label"]:
            raise UserError(f"The {split} table of '{folder}' has no rows with text.")
    return splits


def _read(file: Path, texts: Sequence[str], others: Sequence[str], strict: bool) -> Split:
    """The rows of a table that have all their texts."""
    found: Split = {column: [] for column in (*texts, *others)}
    check = TextCheck(strict=strict)
    for row in read_table(file, [*texts, *others]):
        values: dict[str, Any] = {column: _text(row, column) for column in texts}
        if not check.has_text(row.place, min(values.values(), key=len)):
            continue
        for column in others:
            values[column] = _cleaned(row.values.get(column))
            if any(value in (None, "") for value in _several(values[column])):
                raise UserError(f"{row.place}: the column '{column}' is empty: fill it in, or remove the row.")
        for column, value in values.items():
            found[column].append(value)
    check.report(file)
    return found


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _cleaned(value: Any) -> Any:
    """A value in the form of a text, also inside a list: "pos " is "pos"."""
    if isinstance(value, list):
        return list(map(_cleaned, value))
    return clean(value) if isinstance(value, str) else value


def _task(
    folder: Path, kind: type[AbsTask], type_name: str, main_score: str, data: Mapping[str, Any], **attributes: Any
) -> AbsTask:
    metadata = TaskMetadata(
        name=folder.resolve().name,
        description=f"The folder {folder.name}.",
        dataset={"path": str(folder), "revision": "local"},
        type=type_name,
        category="t2t",
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score=main_score,
    )
    task = type(kind.__name__, (kind,), {"metadata": metadata, **attributes})()
    tables = type_name != "Retrieval"
    task.dataset = DatasetDict({split: Dataset.from_dict(rows) for split, rows in data.items()}) if tables else data
    task.data_loaded = True
    return task


def _columns(file: Path) -> set[str]:
    """The columns of the first row of a table."""
    row = next(read_table(file), None)
    return set(row.values) if row else set()


def _text(row: Row, column: str) -> str:
    return row.text(column) if column in row.values else ""
