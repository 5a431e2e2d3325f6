"""Draws explanations as tables for a terminal of any width."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, zip_longest
from typing import TYPE_CHECKING

from more_itertools import chunked
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from text2token.analysis.explain_sections import Section

_BAR = 20  # characters of the longest bar
_AROUND = 3  # characters of a cell's padding and border
_LIST = 26  # characters that a list needs at least: a token of 10, a weight of 10, and what is around both


def tables(section: Section, console: Console) -> Iterator[Table]:
    """Tables of a section, as wide as the console at most; the bars take what the tokens, headings and weights leave."""
    for columns in chunked(section.columns.items(), max(1, console.width // _LIST)):
        part = section._replace(columns=dict(columns))
        table = _table(part, 0)
        room = (console.width - console.measure(table).maximum) // len(columns) - _AROUND
        yield _table(part, min(room, _BAR)) if room > 0 else table


def _table(section: Section, bar: int) -> Table:
    """The lists of a section side by side, with bars of at most ``bar`` characters; 0: without bars."""
    lines = [*section.texts, *([section.note] if section.note else [])]
    table = Table(title=Text("\n".join(lines)), title_justify="left")
    lists = []
    for heading, tokens in section.columns.items():
        table.add_column(Text(heading), overflow="fold")
        table.add_column("weight", justify="right", no_wrap=True)
        if bar:
            table.add_column(max_width=bar)
        lists.append([_cells(token, weight, tokens[0][1], bar) for token, weight in tokens])
    empty: list[RenderableType] = [""] * (3 if bar else 2)
    for row in zip_longest(*lists, fillvalue=empty):
        table.add_row(*chain.from_iterable(row))
    return table


def _cells(token: str, weight: float, largest: float, bar: int) -> list[RenderableType]:
    from text2token.utils.page import visible

    cells: list[RenderableType] = [Text(visible(token)), f"{weight:.2f}"]
    return [*cells, Bar(largest, 0, weight) if weight > 0 else ""] if bar else cells
