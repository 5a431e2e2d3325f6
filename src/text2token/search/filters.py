"""Filters on the metadata of documents: ``lang=en``, ``year>=2020``, ``date<2021-06-01``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias, cast

from text2token.data.text import finite_number
from text2token.utils.errors import UserError

Value: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Value]
"""Values of a document by column."""
Operator = Literal["=", "<", "<=", ">", ">="]

_WRITTEN = re.compile(r"(?P<column>[^=<>]+?)\s*(?P<operator><=|>=|=|<|>)(?![=<>])\s*(?P<value>.+)", re.DOTALL)


class Filter(NamedTuple):
    """A condition that a document must meet.

    ``=`` compares as text, and a whole number has no decimal point: 2020.0 is ``2020``. The other operators compare as
    numbers if the value is a number, and else as text, which orders ISO dates such as ``2021-06-01`` in time. A document without
    the column, or without a number to compare with, does not meet the condition.

    Attributes:
        column: Column of the metadata.
        operator: How the column is compared with the value.
        value: The value, as text.
    """

    column: str
    operator: Operator
    value: str

    @property
    def number(self) -> float | None:
        """The value as a number, if it is compared as one."""
        return None if self.operator == "=" else finite_number(self.value)


def parse_filter(text: str) -> Filter:
    """Read a filter as people write it.

    Raises:
        UserError: The text is not a filter.
    """
    written = _WRITTEN.fullmatch(text.strip())
    if written is None:
        raise UserError(f"'{text}' is not a filter: write column=value, or <, <=, > or >= in place of the equals sign.")
    return Filter(written["column"], cast(Operator, written["operator"]), written["value"])


def check_filters(filters: Iterable[Filter], known: Sequence[str]) -> None:
    """Check that filters name columns of the index.

    Raises:
        UserError: No document has such a column.
    """
    for condition in filters:
        if condition.column not in known:
            there = f"its columns are {', '.join(sorted(known))}" if known else "its documents have no metadata"
            raise UserError(f"The index has no metadata column '{condition.column}': {there}.")


def text_values(metadata: Metadata) -> dict[str, str]:
    """All values as text."""
    return {column: as_text(value) for column, value in metadata.items()}


def number_values(metadata: Metadata) -> dict[str, float]:
    """The values that are numbers."""
    return {column: number for column, value in metadata.items() if (number := finite_number(value)) is not None}


def as_text(value: Value) -> str:
    """A value as text: ``true`` and ``false`` for booleans, whole numbers without decimal point."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
