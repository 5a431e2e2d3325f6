"""Tools for HTML and Markdown pages: the template environment, numbers for people, and aligned tokens as bars."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

MISSING = "–"
_CASED = ("Ll", "Lu", "Lt", "Mn", "Nd")  # Unicode categories: letters with case, their accents, digits
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥"}


class Bar(NamedTuple):
    """An aligned token in a bar chart.

    Attributes:
        token: Text of the token, with visible signs for spaces and line breaks.
        weight: Weight of the token.
        percent: Length of the bar: the weight in percent of the largest one, from 0 to 100.
        in_text: Whether the token is spelled in the text.
    """

    token: str
    weight: float
    percent: float
    in_text: bool


def page_environment() -> Environment:
    """Return the environment of the page templates. HTML is escaped. An unknown name is an error."""
    environment = Environment(
        autoescape=select_autoescape(("html.j2",)),
        loader=PackageLoader("text2token.utils", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number}
    return environment


def number(value: Any, digits: int = 3) -> str:
    """Write a number with thousands separators, a ``float`` with ``digits`` decimals; a dash for anything but a finite number."""
    if not is_finite(value):
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def is_finite(value: Any) -> bool:
    """Return True for a number that is neither NaN nor infinite."""
    return isinstance(value, int | float) and math.isfinite(value)


def bars(tokens: Sequence[tuple[str, float]], text: str) -> Iterator[Bar]:
    """Yield the aligned tokens of a text as bars. A weight that is not a finite number has a bar of length 0."""
    places = [f" {' '.join(spaced.split())}".casefold() for spaced in (text, _signs_apart(text))]
    heaviest = max((weight for _, weight in tokens if is_finite(weight)), default=0.0)
    for token, weight in tokens:
        percent = max(0.0, 100 * weight / heaviest) if is_finite(weight) and heaviest > 0 else 0.0
        in_text = bool(token.strip()) and any(token.casefold() in place for place in places)
        yield Bar(visible(token), weight, percent, in_text)


def _signs_apart(text: str) -> str:
    """Return a text with spaces around all but digits and letters with case.

    A token that starts a word brings its space along, and some tokenizers start a word at every sign and Chinese character.
    """
    return "".join(char if unicodedata.category(char) in _CASED else f" {char} " for char in text)


def visible(token: str) -> str:
    """Return a token with signs for white space, and escapes for controls, joiners and direction marks."""
    return "".join(
        _VISIBLE.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode()) for char in token
    )


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table. A bar or line break inside a cell is escaped, so that it does not end the cell."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
