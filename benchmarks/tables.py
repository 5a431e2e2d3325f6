"""Tables and verdicts of the results pages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from text2token.utils.page import markdown_table

__all__ = ["fixed", "goals", "markdown_table", "verdict"]


def goals(figures: Mapping[str, float], named: Mapping[str, tuple[str, str]]) -> str:
    """Make a table of figures with their goals.

    Args:
        figures: Name → measured value.
        named: Name → description and goal. A goal is ``≥ NUMBER`` or ``≤ NUMBER``.
    """
    rows = [
        [text, f"{figures[name]:.3g}" if name in figures else "", goal, _reached(figures.get(name), goal)]
        for name, (text, goal) in named.items()
    ]
    return markdown_table(["figure", "measured", "goal", ""], rows)


def verdict(claims: Sequence[bool]) -> str:
    """Say whether a claim holds in all, some or none of the cases. Without a case it does not hold."""
    return "holds" if claims and all(claims) else "holds partly" if any(claims) else "does not hold here"


def fixed(values: Iterable[float | None], digits: int = 1) -> list[str]:
    """Format numbers with a fixed number of decimals. A value that was not measured is an empty cell."""
    return ["" if value is None else f"{value:.{digits}f}" for value in values]


def _reached(measured: float | None, goal: str) -> str:
    if measured is None:
        return "not measured"
    sign, bound = goal.split()
    reached = measured >= float(bound) if sign == "≥" else measured <= float(bound)
    return "reached" if reached else "**missed**"
