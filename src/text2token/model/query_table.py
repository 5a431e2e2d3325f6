"""A student as plain arrays: it encodes queries with NumPy alone, without torch and without a transformer (ours).

Everything between the tokens of a text and its vectors is linear, so it is computed once for each vocabulary entry: the dense
vector before normalisation, and the aligned tokens with their weights. A query only averages the rows of its tokens.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeAlias

import numpy as np
from more_itertools import pairwise
from numpy.typing import NDArray
from tokenizers import Tokenizer

from text2token.model.tokens import flat_token_ids
from text2token.utils.arrays import sum_by_key
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import atomic_folder, read_json, write_json

QUERY = "query"
"""The folder of a query table, inside the folder of a student and of an index."""
_ABOUT, _TOKENIZER = "table.json", "tokenizer.json"


Entries: TypeAlias = tuple[NDArray[np.int64], NDArray[np.float32]]
"""Vocabulary ids and their weights."""


class TokenRows(NamedTuple):
    """One row for each of V vocabulary entries.

    Attributes:
        dense: Dense vectors before normalisation, V×k; the correction is part of them.
        ids: The aligned tokens of each entry, V×K, heaviest first.
        weights: Their token logits above the corpus mean, V×K, 0 where there are fewer than K.
    """

    dense: NDArray[np.float16]
    ids: NDArray[np.int32]
    weights: NDArray[np.float16]


@dataclass(frozen=True)
class QueryTable:
    """The query side of an index.

    Attributes:
        rows: The arrays; they stay on disk until a row is read.
        tokenizer: Reads queries of any length.
        sha256: Checksum of the arrays that ``distill`` wrote.
        teacher: Fingerprint of the model whose vectors the student imitates.
        folder: Where the table is.
        documents: Number of documents of an index that it has learnt since.
    """

    rows: TokenRows
    tokenizer: Tokenizer
    sha256: str
    teacher: str
    folder: Path
    documents: int = 0

    @classmethod
    def open(cls, folder: Path) -> QueryTable:
        """Open what :func:`write_query_table` wrote.

        Raises:
            UserError: A file is missing or damaged.
        """
        about = read_json(folder / _ABOUT)
        try:
            arrays = [np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in TokenRows._fields]
            tokenizer = Tokenizer.from_file(str(folder / _TOKENIZER))
        except Exception as error:  # tokenizers raises bare exceptions
            raise UserError(
                f"The query model in '{folder}' is damaged: distil it again ({first_line(error)})."
            ) from error
        return cls(TokenRows(*arrays), tokenizer, about["sha256"], about["teacher"], folder, about.get("documents", 0))

    def encode(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[Entries]]:
        """Encode N texts.

        Returns:
            Dense vectors of length 1, N×k (a text without a token has the zero vector); and for each text its aligned tokens in
            any order: distinct vocabulary ids, and the mean of their weights over the tokens of the text.
        """
        vectors = np.zeros((len(texts), self.rows.dense.shape[1]), np.float32)
        tokens, ends = flat_token_ids(self.tokenizer, texts, len(self.rows.dense), None)
        entries = []
        for vector, (start, end) in zip(vectors, pairwise(ends), strict=True):
            ids = tokens[start:end]
            if len(ids):
                vector[:] = self.rows.dense[ids].mean(axis=0, dtype=np.float32)
            found, weights = sum_by_key(self.rows.ids[ids].ravel(), self.rows.weights[ids].ravel())
            entries.append((found, (weights / max(len(ids), 1)).astype(np.float32)))
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), entries


def write_query_table(table: QueryTable) -> None:
    """Write a query table to its folder. It replaces the one that is there."""
    with atomic_folder(table.folder) as part:
        for name, array in table.rows._asdict().items():
            np.save(part / f"{name}.npy", array)
        table.tokenizer.save(str(part / _TOKENIZER))
        write_json(part / _ABOUT, {name: getattr(table, name) for name in ("sha256", "teacher", "documents")})


def copy_query_table(source: Path, target: Path) -> None:
    """Copy a query table completely or not at all."""
    with atomic_folder(target) as part:
        shutil.copytree(source, part, dirs_exist_ok=True)
