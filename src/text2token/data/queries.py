"""Read a table of queries."""

from __future__ import annotations

from pathlib import Path

from text2token.data.rows import ID_COLUMNS, TextCheck
from text2token.data.tables import read_table
from text2token.utils.errors import UserError


def read_queries(file: Path, *, strict: bool = False) -> dict[str, str]:
    """Return the text of each query by its id, in the order of the table. One line of the log counts those without text.

    Args:
        file: A table with ``_id`` or ``id``, and ``text``; other columns, as ``title``, are not read.
        strict: Refuse a query without text; otherwise its text is empty.

    Raises:
        UserError: The table is malformed, a column is missing, an id is missing or occurs twice, no query has text, or ``strict``
            is set and a query has none.
    """
    queries: dict[str, str] = {}
    check = TextCheck("query", strict=strict)
    for row in read_table(file, [*ID_COLUMNS, "text"]):
        name, text = row.id(), row.text("text")
        if name in queries:
            raise UserError(f"{row.place}: the id '{name}' is there a second time; give each query its own.")
        check.has_text(row.place, text)
        queries[name] = text
    if not any(queries.values()):
        raise UserError(f"There is no query with text in '{file}': check that this is the right file.")
    check.report(file)
    return queries
