"""Helper for SQLite databases."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any

from more_itertools import chunked

_PARAMETERS = 500  # values in one statement; every SQLite allows 999


def select_in(connection: sqlite3.Connection, select: str, values: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Run a query for many values in batches, and return its rows.

    Args:
        connection: The database.
        select: Statement that ends in ``IN``, as ``SELECT a FROM t WHERE b IN``.
        values: Values to look for.
    """
    rows: list[tuple[Any, ...]] = []
    for part in chunked(values, _PARAMETERS):
        rows += connection.execute(f"{select} ({','.join('?' * len(part))})", part)
    return rows
