"""Pieces of the generated pages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table."""
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def goals(figures: Mapping[str, float], named: Mapping[str, tuple[str, str]]) -> str:
    """A table of figures by name, each with what it says and its goal, and whether that is reached."""
    rows = [
        [text, f"{figures[name]:.3g}" if name in figures else "", goal, _reached(figures.get(name), goal)]
        for name, (text, goal) in named.items()
    ]
    return table(["figure", "measured", "goal", ""], rows)


def verdict(claims: Sequence[bool]) -> str:
    """Does what was claimed of every case hold? Of no case, it does not."""
    return "holds" if claims and all(claims) else "holds partly" if any(claims) else "does not hold here"


def _reached(measured: float | None, goal: str) -> str:
    """Of a figure and its goal, ``≥ 1`` or ``≤ 1``."""
    if measured is None:
        return "not measured"
    sign, bound = goal.split()
    reached = measured >= float(bound) if sign == "≥" else measured <= float(bound)
    return "reached" if reached else "**missed**"


def revision(git: str | None) -> str:
    """Of a results file, short, with its mark where the checkout had changes."""
    if git is None:
        return "unknown"
    return git[:12] + "-dirty" * git.endswith("-dirty")
