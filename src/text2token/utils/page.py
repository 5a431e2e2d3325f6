"""What our pages share: one environment and style, numbers for people, aligned tokens as bars, files that appear whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import ChainableUndefined, Environment, PackageLoader, select_autoescape

from text2token.utils.files import atomic_write

MISSING = "–"
_VISIBLE = {" ": "␣", "\n": "↵", "\t": "⇥"}


class Bar(NamedTuple):
    """An aligned token as it is drawn: visible, its weight, that in percent of the heaviest, is it in the text?"""

    token: str
    weight: float
    percent: float
    in_text: bool


def page_environment() -> Environment:
    """Templates of pages, HTML escaped and Markdown as it is; what is missing in the data is a dash, never an error."""
    environment = Environment(
        autoescape=select_autoescape(("html.j2",)),
        loader=PackageLoader("text2token.utils", "templates"),
        undefined=ChainableUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number}
    return environment


def write_page(page: str, file: Path) -> None:
    """Write a page of HTML or Markdown, whole or not at all."""
    with atomic_write(file) as part:
        # a token or the name of a file can hold half of a surrogate pair, which UTF-8 has no bytes for
        part.write_text(page, encoding="utf-8", errors="backslashreplace")


def number(value: Any, digits: int = 3) -> str:
    """A number for people, an ``int`` with thousands separators; a dash for NaN, infinity and what is no number."""
    if not is_finite(value):
        return MISSING
    return f"{value:,}" if isinstance(value, int) else f"{value:,.{digits}f}"


def is_finite(value: Any) -> bool:
    """Is it a number, and neither NaN nor infinite?"""
    return isinstance(value, int | float) and math.isfinite(value)


def bars(tokens: Sequence[tuple[str, float]], text: str) -> Iterator[Bar]:
    """Aligned tokens and weights of a text as bars; a weight that is no number has none."""
    words = f" {' '.join(text.split())}".casefold()  # a token that starts a word brings its space along
    heaviest = max((weight for _, weight in tokens if is_finite(weight)), default=0.0)
    for token, weight in tokens:
        percent = max(0.0, 100 * weight / heaviest) if is_finite(weight) and heaviest > 0 else 0.0
        in_text = bool(token.strip()) and token.casefold() in words
        yield Bar(visible(token), weight, percent, in_text)


def visible(token: str) -> str:
    """A token with a sign for each space, and escapes for what has no glyph: controls, joiners, direction marks."""
    return "".join(
        _VISIBLE.get(char) or (char if char.isprintable() else char.encode("unicode_escape").decode()) for char in token
    )


def markdown_table(heading: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Make a Markdown table. A bar or line break inside a cell is escaped, so that it does not end the cell."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
