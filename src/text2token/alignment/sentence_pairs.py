"""Sentence pairs with gold similarities, embedded once and scored under any shift of the embeddings."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from pyarrow import json
from scipy.stats import spearmanr
from torch import Tensor

from text2token.embedder import Embedder
from text2token.errors import UserError

_COLUMNS = ("sentence1", "sentence2", "score")


@dataclass(frozen=True)
class SentencePairs:
    """Embedded pairs.

    Attributes:
        left: N×d.
        right: N×d.
        scores: N gold similarities.
    """

    left: Tensor
    right: Tensor
    scores: NDArray[np.float64]

    @classmethod
    def embed(
        cls,
        embedder: Embedder,
        rows: list[dict[str, Any]],
        *,
        keep: Callable[[Callable[[], Tensor]], Tensor] | None = None,
        progress: bool = False,
    ) -> SentencePairs:
        """Embed rows as :func:`read_pairs` gives them; each distinct sentence once.

        Args:
            embedder: Whose embeddings.
            rows: N.
            keep: Called with what computes the vectors of the distinct sentences; may have them already.
            progress: Show a bar.
        """
        sides = [[row[name] for row in rows] for name in ("sentence1", "sentence2")]
        places = {text: place for place, text in enumerate(dict.fromkeys([*sides[0], *sides[1]]))}

        def compute() -> Tensor:
            return embedder.embed(list(places), progress=progress)

        vectors = keep(compute) if keep else compute()
        left, right = (vectors[[places[text] for text in side]] for side in sides)
        return cls(left, right, np.array([row["score"] for row in rows], dtype=np.float64))

    def mapped(self, change: Callable[[Tensor], Tensor]) -> SentencePairs:
        """The pairs with both sides mapped."""
        return SentencePairs(change(self.left), change(self.right), self.scores)

    def spearman(self, shift: Tensor | float = 0.0) -> float:
        """Spearman correlation × 100 of cosines with the scores, after adding ``shift`` (d) to every embedding."""
        cosines = torch.nn.functional.cosine_similarity(self.left + shift, self.right + shift)
        return 100 * float(spearmanr(cosines.numpy(), self.scores).statistic)


def read_pairs(file: Path) -> list[dict[str, Any]]:
    """Rows of ``sentence1``, ``sentence2`` and ``score`` from a ``.jsonl`` file.

    Raises:
        UserError: It cannot be read, lacks a column, or its scores are no numbers or all the same.
    """
    try:
        table = json.read_json(str(file))
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"Cannot read the pairs '{file}': {str(error).splitlines()[0]}.") from error
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise UserError(f"The pairs '{file}' have no '{missing[0]}': write {', '.join(_COLUMNS)} on each line.")
    table = table.select(_COLUMNS)
    kinds = [field.type for field in table.schema]
    numeric = pa.types.is_integer(kinds[2]) or pa.types.is_floating(kinds[2])
    if any(column.null_count for column in table.columns) or kinds[:2] != [pa.string()] * 2 or not numeric:
        raise UserError(f"The pairs '{file}' must have two texts and a number on each line.")
    rows: list[dict[str, Any]] = table.to_pylist()
    if len({row["score"] for row in rows}) < 2:
        raise UserError(f"The scores of '{file}' are all the same, so nothing can correlate with them.")
    return rows
