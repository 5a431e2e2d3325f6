"""Pairs of sentences with gold scores."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from text2token.data.tables import pick, read_table
from text2token.utils.errors import UserError

_COLUMNS = ("sentence1", "sentence2", "score")


class ScoredPairs(NamedTuple):
    """N pairs of sentences and their gold scores."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]


def read_sts(file: Path, pairs: int | None = None) -> ScoredPairs:
    """Read pairs from the columns ``sentence1``, ``sentence2`` and ``score``.

    Args:
        file: ``.jsonl``, ``.csv`` or ``.parquet``.
        pairs: Draw so many, always the same ones; None: all.

    Raises:
        UserError: No such file or column, an empty sentence, a score that is no number, or scores that are all the same.
    """
    rows = []
    for row in read_table(file, _COLUMNS):
        if row.values is None:
            continue
        first, second, score = (pick(row, column, "rename the one that holds it") for column in _COLUMNS)
        if not all(isinstance(text, str) and text.strip() for text in (first, second)) or not _is_number(score):
            raise UserError(f"{row.place}: expected two sentences and a number as their score; mend or drop it.")
        rows.append((first, second, float(score)))
    if pairs is not None and len(rows) > pairs:
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:pairs]]
    if len({score for _, _, score in rows}) < 2:
        raise UserError(f"{file} needs pairs of at least two different scores: nothing can be ranked otherwise.")
    return ScoredPairs([a for a, _, _ in rows], [b for _, b, _ in rows], np.array([score for _, _, score in rows]))


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except (TypeError, ValueError):
        return False
