"""Labels of a user's tables as numbers."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from text2token.evaluation.qrels import WHOLE_NUMBER
from text2token.utils.errors import UserError

_OTHER_NUMBER = re.compile(r"-?\d*\.\d+(?:[eE][-+]?\d+)?")

Label = int | str
Split = dict[str, list[Any]]
"""Column → values."""


def encode_labels(folder: Path, splits: Mapping[str, Split], *, note: bool = True) -> list[Label]:
    """Replace labels by their places in sorted order, in place: 0, 1, …; returns the sorted labels.

    Whole numbers are sorted as numbers and stand before words.
    """
    cleaned = {split: [_label(folder, label) for label in rows["label"]] for split, rows in splits.items()}
    every = {
        label for labels in cleaned.values() for row in labels for label in (row if isinstance(row, list) else [row])
    }
    names = sorted(every, key=lambda label: (isinstance(label, str), label))
    if len(names) < 2:
        raise UserError(f"All labels of '{folder}' are {listed(names)}, so there is nothing to tell apart.")
    codes = {label: place for place, label in enumerate(names)}
    for split, labels in cleaned.items():
        splits[split]["label"] = [
            [codes[label] for label in row] if isinstance(row, list) else codes[row] for row in labels
        ]
    if note and len(names) == 2 and names != [0, 1]:
        warnings.warn(f"{folder.resolve().name}: label '{names[0]}' counts as 0, '{names[1]}' as 1.", stacklevel=2)
    return names


def _label(folder: Path, value: Any) -> Any:
    """A label as a whole number or a word. ``7.0`` is 7, in numbers and in text; ``007`` is a word."""
    if isinstance(value, list):
        return [_label(folder, label) for label in value]
    written = str(int(value) if isinstance(value, bool) else value)
    if number := WHOLE_NUMBER.fullmatch(written):
        return int(number[1])
    if not isinstance(value, str | int) or _OTHER_NUMBER.fullmatch(written):
        raise UserError(f"The label {written} of '{folder}' is not a whole number or a word: a label names a class.")
    return written


def listed(names: Iterable[Label]) -> str:
    """The first labels, for messages."""
    return ", ".join(f"'{name}'" for name in list(names)[:5]) or "missing"
