"""The names of corrections, as recipes and commands write them: ``centre+whiten-0.3+filter``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """One correction.

    Attributes:
        name: Of ``STEPS``.
        value: λ of ``shift``, components of ``remove``, shrinkage of ``whiten``; None: its default.
    """

    name: str
    value: float | None = None


STEPS = {
    "centre": "centre",
    "shift": "shift[-λ]",
    "first-component": "first-component",
    "remove": "remove-N",
    "whiten": "whiten[-S]",
    "filter": "filter",
}
"""Name → how it is written."""


def split_steps(correction: str) -> list[str]:
    """The steps of a correction as recipes and commands write it; ``none`` has no step."""
    return [] if correction == "none" else correction.split("+")


def parse_steps(texts: Sequence[str]) -> list[Step]:
    """Steps as they are written, in order.

    Raises:
        ValueError: An unknown step, a value that it cannot have, or an order that makes no sense.
    """
    steps = [_parse(text) for text in texts]
    names = [step.name for step in steps]
    if "filter" in names[:-1]:
        raise ValueError("the correction 'filter' changes the dimension: name it once, as the last step")
    if "shift" in names and {"centre", "whiten"} & {*names[: names.index("shift")]}:
        raise ValueError(
            "the correction 'shift' moves the mean, which 'centre' and 'whiten' have taken away: name it first"
        )
    return steps


def _parse(text: str) -> Step:
    name, _, value = (text, "", "") if text in STEPS else text.partition("-")
    if name not in STEPS:
        raise ValueError(f"there is no correction '{text}': none, or {', '.join(STEPS.values())}, joined by +")
    if not value:
        if name == "remove" or text != name:
            raise ValueError(f"the correction '{text}' lacks its value: write {STEPS[name]}")
        return Step(name)
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    fits = {
        "shift": math.isfinite(number),
        "remove": number >= 1 and number.is_integer(),
        "whiten": 0 <= number <= 1,
    }
    if not fits.get(name, False):
        raise ValueError(
            f"the correction '{text}' has no value that it can take: write {STEPS[name]}, N from 1, S from 0 to 1"
        )
    return Step(name, number)
