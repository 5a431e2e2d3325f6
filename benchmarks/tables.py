"""Functions and filters of the templates of the results pages: lines of tables, numbers, goals and verdicts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, median
from typing import Any

from text2token.utils.page import markdown_table, visible

Goals = Mapping[str, tuple[str, str]]
"""Name of a figure → its description and its goal, ``≥ NUMBER`` or ``≤ NUMBER``."""


def head(*columns: str) -> str:
    """Write the heading of a table."""
    return markdown_table(columns, [])


def line(*cells: str) -> str:
    """Write one row of a table."""
    return markdown_table(cells, []).splitlines()[0]


def goals(figures: Mapping[str, float], named: Goals) -> str:
    """Make a table of figures with their goals."""
    rows = [
        [text, f"{figures[name]:.3g}" if name in figures else "", goal, reached(figures.get(name), goal)]
        for name, (text, goal) in named.items()
    ]
    return markdown_table(["figure", "measured", "goal", ""], rows)


def reached(measured: float | None, goal: str) -> str:
    """Say whether a figure reaches its goal."""
    if measured is None:
        return "not measured"
    sign, bound = goal.split()
    return "reached" if (measured >= float(bound) if sign == "≥" else measured <= float(bound)) else "**missed**"


def verdict(claims: Sequence[bool]) -> str:
    """Say whether a claim holds in all, some or none of the cases. Without a case it does not hold."""
    return "holds" if claims and all(claims) else "holds partly" if any(claims) else "does not hold here"


def fixed(value: float | None, digits: int = 1) -> str:
    """Format a number with a fixed number of decimals. A value that was not measured is an empty cell."""
    return "" if value is None else f"{value:.{digits}f}"


def signed(value: float) -> str:
    """Format a difference with its sign."""
    return f"{value:+.1f}"


def percent(share: float) -> str:
    """Format a share as a percentage without the sign."""
    return fixed(100 * share)


def average(scores: list[float] | None, *, spread: bool = False) -> str:
    """Format the mean over seeds; with ``spread``, the lowest and the highest follow in brackets."""
    if not scores:
        return ""
    return fixed(mean(scores)) + (f" ({min(scores):.1f} to {max(scores):.1f})" if spread and len(scores) > 1 else "")


def spent(cost: Mapping[str, float] | None) -> str:
    """Write the texts, tokens and minutes of a training. A contender that was not trained here has an empty cell."""
    return f"{cost['texts']:,.0f} texts, {cost['tokens']:,.0f} tokens, {cost['minutes']:.1f} min" if cost else ""


def code(tokens: Iterable[str]) -> str:
    """Write tokens as code, with visible spaces."""
    return " ".join(f"`{visible(token).replace('`', '´')}`" for token in tokens)


FILTERS: dict[str, Any] = {
    "median": median,
    "fixed": fixed,
    "signed": signed,
    "percent": percent,
    "average": average,
    "spent": spent,
    "code": code,
}
FUNCTIONS: dict[str, Any] = {"head": head, "line": line, "goals": goals}
