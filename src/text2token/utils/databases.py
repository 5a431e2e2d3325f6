"""Helper for SQLite databases."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from more_itertools import chunked

_PARAMETERS = 500  # values in one statement; every SQLite allows 999


def select_in(
    execute: Callable[[str, Sequence[Any]], Iterable[tuple[Any, ...]]], select: str, values: Sequence[Any]
) -> list[tuple[Any, ...]]:
    """Run a query for many values in batches, and return its rows.

    Args:
        execute: Runs a statement with values for its parameters, and returns its rows.
        select: Statement that ends in ``IN``, as ``SELECT a FROM t WHERE b IN``.
        values: Values to look for.
    """
    rows: list[tuple[Any, ...]] = []
    for part in chunked(values, _PARAMETERS):
        rows += execute(f"{select} ({','.join('?' * len(part))})", part)
    return rows
