"""A folder of the user's as an mteb task: what its files hold decides what is measured."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, DatasetDict
from mteb.abstasks import (
    AbsTask,
    AbsTaskClassification,
    AbsTaskClustering,
    AbsTaskPairClassification,
    AbsTaskRetrieval,
    AbsTaskSTS,
)
from mteb.abstasks.task_metadata import TaskMetadata

from text2token.data.tables import pick, read_table
from text2token.utils.errors import UserError

_TABLES = {".jsonl": "json", ".json": "json", ".csv": "csv", ".parquet": "parquet"}
_SHAPES = (
    "corpus.jsonl, queries.jsonl and qrels/test.tsv (retrieval), or a test.jsonl/.csv/.parquet with the columns "
    "sentence1, sentence2 and score (STS), sentence1, sentence2 and label 0/1 (pair classification), or "
    "text and label (clustering; classification when a train file stands beside it)"
)
_CLUSTERED = 2_048  # documents, as most clustering tasks of MTEB(eng, v2) take


def folder_task(folder: Path) -> AbsTask:
    """The task that a folder holds, named after the folder.

    ========================================  =====================  ==================
    files                                     task                   main score
    ========================================  =====================  ==================
    ``corpus.jsonl``, ``queries.jsonl``,      retrieval (BEIR)       nDCG@10
    ``qrels/test.tsv``
    ``test``: sentence1, sentence2, score     STS                    cosine Spearman
    ``test``: sentence1, sentence2, label     pair classification    average precision
    ``train`` and ``test``: text, label       classification         accuracy
    ``test``: text, label                     clustering             V-measure
    ========================================  =====================  ==================

    Raises:
        UserError: The folder is none of these, or its rows do not fit together.
    """
    if not folder.is_dir():
        raise UserError(f"There is no folder '{folder}': a task of your own is a folder with {_SHAPES}.")
    if (folder / "corpus.jsonl").is_file():
        return _retrieval(folder)
    splits = {split: table for split in ("train", "test") if (table := _table(folder, split)) is not None}
    columns = set(splits["test"].column_names) if "test" in splits else set()
    if {"sentence1", "sentence2", "score"} <= columns:
        scores = [score for score in splits["test"]["score"] if isinstance(score, int | float) and math.isfinite(score)]
        if len(scores) < len(splits["test"]) or min(scores, default=0) == max(scores, default=0):
            raise UserError(f"The scores of '{folder}' must be numbers, and not all the same.")
        return _task(folder, AbsTaskSTS, "STS", "cosine_spearman", splits, min_score=min(scores), max_score=max(scores))
    if {"sentence1", "sentence2", "label"} <= columns:
        _check_labels(folder, splits["test"]["label"])
        return _task(
            folder, AbsTaskPairClassification, "PairClassification", "max_ap", splits, label_column_name="label"
        )
    if {"text", "label"} <= columns and "train" in splits:
        return _task(folder, AbsTaskClassification, "Classification", "accuracy", splits)
    if {"text", "label"} <= columns:
        size = {"max_fraction_of_documents_to_embed": None, "max_document_to_embed": _CLUSTERED}
        names = {"input_column_name": "text", "label_column_name": "label"}
        return _task(folder, AbsTaskClustering, "Clustering", "v_measure", splits, **size, **names)
    raise UserError(f"The folder '{folder}' is no task: expected {_SHAPES}.")


def _task(
    folder: Path, kind: type[AbsTask], type_name: str, main_score: str, data: dict[str, Any], **attributes: Any
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
    task.dataset = DatasetDict(data) if isinstance(data.get("test"), Dataset) else data
    task.data_loaded = True
    return task


def _table(folder: Path, split: str) -> Dataset | None:
    for suffix, reader in _TABLES.items():
        file = folder / f"{split}{suffix}"
        if file.is_file():
            try:
                return datasets.load_dataset(reader, data_files=str(file), split="train")
            except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
                raise UserError(
                    f"Cannot read '{file}' as a table: {error.__cause__ or error}; check its format."
                ) from error
    return None


def _check_labels(folder: Path, labels: Iterable[Any]) -> None:
    found = list(labels)
    if other := [label for label in found if not isinstance(label, int | float) or label not in {0, 1}]:
        raise UserError(f"The labels of '{folder}' must be the numbers 0 and 1, found {other[0]!r}.")
    if len(set(found)) < 2:
        raise UserError(
            f"All labels of '{folder}' are {found[0] if found else 'missing'}: there is nothing to tell apart."
        )


def _retrieval(folder: Path) -> AbsTask:
    split = {
        "corpus": _texts(folder / "corpus.jsonl", "id", "title", "text"),
        "queries": _texts(folder / "queries.jsonl", "id", "text"),
        "relevant_docs": _judgements(folder / "qrels" / "test.tsv"),
        "top_ranked": None,
    }
    return _task(folder, AbsTaskRetrieval, "Retrieval", "ndcg_at_10", {"default": {"test": split}})


def _texts(file: Path, *columns: str) -> Dataset:
    """Rows with an ``id`` of their own, a ``text`` and perhaps a ``title``, as mteb names the columns."""
    found: dict[str, list[str]] = {column: [] for column in columns}
    seen: set[str] = set()
    for row in read_table(_there(file), ["_id", "title", "text"]):
        if row.values is None:
            continue
        name, text = (pick(row, column, "name it so") for column in ("_id", "text"))
        if not isinstance(text, str):
            raise UserError(f"{row.place}: the text is {type(text).__name__}, expected a string.")
        if (name := str(name)) in seen:
            raise UserError(f"{row.place}: the id '{name}' is there a second time.")
        seen.add(name)
        values = {"id": name, "title": str(row.values.get("title") or ""), "text": text}
        for column in columns:
            found[column].append(values[column])
    return Dataset.from_dict(found)


def _judgements(file: Path) -> dict[str, dict[str, int]]:
    """Query → document → relevance, a whole number."""
    judged: dict[str, dict[str, int]] = {}
    try:
        text = _there(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"'{file}' is not in UTF-8: convert it.") from error
    for number, line in enumerate(filter(str.strip, text.split("\n")), start=1):
        try:
            query, document, score = line.split("\t")
            if number > 1:
                judged.setdefault(query, {})[document] = int(score)
        except ValueError as error:
            raise UserError(
                f"'{file}', line {number}: expected query, document and a whole number between tabs."
            ) from error
        if number == 1 and score.strip().isdigit():
            raise UserError(f"'{file}' has no header: its first line must be 'query-id corpus-id score', between tabs.")
    return judged


def _there(file: Path) -> Path:
    if not file.is_file():
        raise UserError(f"There is no '{file}': a search task has corpus.jsonl, queries.jsonl and qrels/test.tsv.")
    return file
