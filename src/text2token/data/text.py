"""One rule for texts and one for ids, whatever file they come from."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence, Set, Sized
from typing import Any

from text2token.utils.errors import UserError


def clean(text: str) -> str:
    """Return a text in Unicode's form NFC, without null bytes, lone surrogates and surrounding white space.

    In form NFC an "é" is one character, also where a file writes it as "e" and an accent.
    """
    return unicodedata.normalize("NFC", _encodable(text)).strip()


def clean_id(text: str) -> str:
    """Return an id without null bytes, lone surrogates and surrounding white space; it keeps its Unicode form."""
    return _encodable(text).strip()


def cell_text(value: Any) -> str | None:
    """Return a cell of a table as text, or None if the cell is not a text.

    A null and a number that is not finite are empty. A whole number has no decimal point (``7`` and ``7.0`` are "7"), because
    a column of whole numbers becomes one of floats in many tools once a value is missing. Truth values, lists, objects, dates and
    bytes are not texts.
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if isinstance(value, float):
        if not math.isfinite(value):
            return ""
        if value.is_integer():
            value = int(value)
    return str(value)


def finite_number(value: Any) -> float | None:
    """Return a number, or text that is one, as a float; None for a truth value, and for what is no finite number."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def check_texts(texts: Sequence[Any]) -> None:
    """Make sure that ``texts`` is a sequence of strings: a list, a tuple, an array or a column of a table.

    Raises:
        UserError: It is one string or anything else, such as an iterator or a ``Corpus``, which have no length, a set, which has
            no order, or a table of pandas, which would give its column names; or an item is not a string, and the sentence gives
            its position.
    """
    if isinstance(texts, str):
        raise UserError("A list of texts is expected, not a text alone: write [text].")
    kind = type(texts).__name__
    if is_stream(texts) or isinstance(texts, Set):
        raise UserError(f"A list of texts is expected, not a {kind}: write list(texts).")
    if isinstance(texts, Mapping) or not isinstance(texts, Iterable) or getattr(texts, "ndim", 1) != 1:
        raise UserError(f"A list of texts is expected, not a {kind}: give a list, or one column of a table.")
    for place, text in enumerate(texts):
        if not isinstance(text, str):
            what = "None" if text is None else f"of type {type(text).__name__}"
            raise UserError(f"texts[{place}] is {what}, not a string: give a list of strings.")


def is_stream(texts: object) -> bool:
    """Return True for what yields items and has no length, as an iterator or a :class:`text2token.Corpus`."""
    return isinstance(texts, Iterable) and not isinstance(texts, Sized)


def _encodable(text: str) -> str:
    return text.replace("\0", "").encode(errors="ignore").decode()
