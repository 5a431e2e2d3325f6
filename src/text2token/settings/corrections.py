"""Parse corrections as recipes and commands write them, such as ``centre+whiten-0.3+filter``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from text2token.utils.errors import UserError

FEWEST_TEXTS = 48
"""With fewer texts, a correction fits noise."""


class Step(NamedTuple):
    """One step of a correction.

    Attributes:
        name: A key of :data:`STEPS`.
        value: λ for ``shift``, the number of components for ``remove``, the shrinkage for ``whiten``; None: the default.
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
"""Name of a step → its written form."""


def split_steps(correction: str) -> list[str]:
    """Split a correction into its steps; ``none`` has no step."""
    return [] if correction == "none" else correction.split("+")


def parse_steps(texts: Sequence[str]) -> list[Step]:
    """Parse steps in their order.

    Raises:
        UserError: They are one text, a step is unknown, its value is out of range, or the order has no meaning.
    """
    if isinstance(texts, str):
        raise UserError(f"A list of steps is expected, not a text alone: write {split_steps(texts)}.")
    steps = [_parse(text) for text in texts]
    names = [step.name for step in steps]
    if "filter" in names[:-1]:
        raise UserError("the correction 'filter' changes the dimension: name it once, as the last step")
    if "shift" in names and {"centre", "whiten"} & {*names[: names.index("shift")]}:
        raise UserError("the correction 'shift' moves the mean, which 'centre' and 'whiten' remove: name 'shift' first")
    return steps


def _parse(text: str) -> Step:
    name, _, value = (text, "", "") if text in STEPS else text.partition("-")
    if name not in STEPS:
        raise UserError(
            f"there is no correction '{text}': write none, or steps joined by +: {', '.join(STEPS.values())}"
        )
    if not value:
        if name == "remove" or text != name:
            raise UserError(f"the correction '{text}' lacks its value: write {STEPS[name]}")
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
        raise UserError(
            f"the value of the correction '{text}' is out of range: write {STEPS[name]}, with N from 1 and S from 0 to 1"
        )
    return Step(name, number)
