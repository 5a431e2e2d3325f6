"""Pairs of sentences with gold scores of their similarity."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from text2token.data.tables import read_table
from text2token.data.text import finite_number
from text2token.utils.errors import UserError

_FIRST, _SECOND, _SCORE = "sentence1", "sentence2", "score"


class ScoredPairs(NamedTuple):
    """N pairs of sentences and their gold scores."""

    first: list[str]
    second: list[str]
    scores: NDArray[np.float64]


def read_sts(file: str | Path, pairs: int | None = None) -> ScoredPairs:
    """Read pairs from the columns ``sentence1``, ``sentence2`` and ``score`` of a table.

    Args:
        file: See :func:`text2token.data.read_table` for the formats.
        pairs: Draw so many pairs, always the same ones; None: all.

    Raises:
        UserError: There is no such file or column, a sentence is empty, a score is not a number, or all scores are equal.
    """
    rows = []
    for row in read_table(file, (_FIRST, _SECOND, _SCORE)):
        first, second, score = row.text(_FIRST), row.text(_SECOND), finite_number(row.value(_SCORE))
        if not first or not second or score is None:
            raise UserError(
                f"{row.place}: expected two sentences and a number as their score; correct or remove the row"
            )
        rows.append((first, second, score))
    if pairs is not None and len(rows) > pairs:
        rows = [rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:pairs]]
    if len({score for _, _, score in rows}) < 2:
        raise UserError(f"{file} needs pairs with at least two different scores: otherwise there is nothing to rank")
    return ScoredPairs([a for a, _, _ in rows], [b for _, b, _ in rows], np.array([score for _, _, score in rows]))


def pairs_fingerprint(pairs: ScoredPairs | None) -> str:
    """Return a SHA-256 (hex) of pairs, by which an unfinished run is recognised."""
    return hashlib.sha256(json.dumps(pairs, default=np.ndarray.tolist).encode()).hexdigest()
