"""Filters on the metadata of documents: ``lang=en``, ``year>=2020``, ``date<2021-06-01``."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, NamedTuple, TypeAlias, cast, get_args

import numpy as np

from text2token.data.text import clean, clean_id, finite_number
from text2token.utils.errors import UserError

Value: TypeAlias = str | int | float | bool
Metadata: TypeAlias = Mapping[str, Value]
"""Values of a document by column."""
Operator = Literal["=", "<", "<=", ">", ">="]

_MAX_VALUE = 1_000  # characters of a metadata value; a longer one is a text, which no filter compares
_WRITTEN = re.compile(r"(?P<column>[^=<>]+?)\s*(?P<operator><=|>=|=|<|>)(?![=<>])\s*(?P<value>.+)", re.DOTALL)


class Filter(NamedTuple):
    """A condition that a document must meet.

    ``=`` compares as text, and a whole number has no decimal point: 2020.0 is ``2020``. The other operators compare as
    numbers if the value is a number, and else as text, which orders ISO dates such as ``2021-06-01`` in time. A document without
    the column, or without a number to compare with, does not meet the condition. A search refuses to compare numbers where no
    document has one.

    Attributes:
        column: Column of the metadata.
        operator: How the column is compared with the value.
        value: The value, as text; a search turns a number, a truth value or a date into text.
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
    text = clean_id(text)
    written = _WRITTEN.fullmatch(text)
    if written is None:
        raise UserError(f"'{text}' is not a filter: write column=value, or <, <=, > or >= in place of the equals sign.")
    return Filter(written["column"], cast(Operator, written["operator"]), written["value"])


def read_filters(filters: Sequence[Filter | str] | str, known: Mapping[str, bool]) -> list[Filter]:
    """Return filters with their values in the form in which an index keeps metadata.

    Args:
        filters: Filters as people write them or as :class:`Filter`; the value of the latter may be of any type of metadata.
        known: Columns of the index, and whether each holds a number.

    Raises:
        UserError: One is no filter, has an unknown operator or a value that no document can have, no document has its column, or
            it compares numbers and no document has a number there.
    """
    several = [filters] if isinstance(filters, str | Filter) else filters
    return [_checked(parse_filter(own) if isinstance(own, str) else own, known) for own in several]


def _checked(condition: Any, known: Mapping[str, bool]) -> Filter:
    if not isinstance(condition, Filter):
        raise UserError(f"{condition!r:.100} is not a filter: write text such as 'year>=2020', or a Filter.")
    column, value = clean_id(str(condition.column)), simple_value(condition.value)
    if column not in known:
        there = f"its columns are {', '.join(sorted(known))}" if known else "its documents have no metadata"
        raise UserError(f"The index has no metadata column '{column}': {there}.")
    if condition.operator not in get_args(Operator):
        raise UserError(f"{condition.operator!r} does not compare '{column}' with a value: use =, <, <=, > or >=.")
    if value is None:
        raise UserError(
            f"'{column}' cannot be compared with {condition.value!r:.100}: give a text of 1 to {_MAX_VALUE} characters, "
            "a number, a truth value or a date."
        )
    checked = Filter(column, condition.operator, as_text(value))
    if checked.number is not None and not known[column]:
        raise UserError(
            f"'{column}' holds no numbers to compare with {checked.value}: compare it with a text, such as a whole date "
            f"({column}{checked.operator}2018-01-01)."
        )
    return checked


def simple_value(value: Any) -> Value | None:
    """A value in the form in which an index keeps it; None for an empty or long text, a list and anything else."""
    if isinstance(value, np.datetime64):
        value = value.astype("datetime64[us]").item()
    if isinstance(value, datetime.datetime) and math.isnan(value.year):
        return None  # the missing date of pandas
    if isinstance(value, datetime.datetime) and value.time() == datetime.time():
        value = value.date()  # tables often keep dates as the time of midnight
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    value = _plain_number(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:  # JSON and databases have integers of 64 bits
        value = str(value) if value.bit_length() < 4 * _MAX_VALUE else None
    if isinstance(value, str):
        text = clean(value)
        return text if 0 < len(text) <= _MAX_VALUE else None
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, bool | int) else None


def _plain_number(value: Any) -> Any:
    """A Decimal, or a number as a row of pandas has it, with the same digits as Python's own; anything else as it is.

    A Decimal with more digits than a float becomes text, and one that no text can hold None.
    """
    if isinstance(value, np.floating):
        return float(str(value))  # 4.1 in 32 bits is 4.1, not 4.099999904632568
    if isinstance(value, np.number | np.bool_):
        return value.item()
    if not isinstance(value, Decimal):
        return value
    if not value.is_finite() or abs(value.adjusted()) > _MAX_VALUE:
        return None
    if value == value.to_integral_value():
        return int(value)
    number = float(value)
    return number if Decimal(str(number)) == value else str(value)


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
