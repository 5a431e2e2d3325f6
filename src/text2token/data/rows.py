"""A row of a table: the rules for its cells, and for rows without text (see docs/reads.md).

A reader of documents, queries or labelled texts uses them like this::

    check = TextCheck("query", strict=strict)
    for row in read_table(path, ["_id", "id", "text"]):
        text = row.text("text")
        if check.has_text(row.place, text):
            yield row.id(), text
    check.report(path)
"""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

from text2token.data.text import cell_text, clean, clean_id
from text2token.utils.errors import UserError

ID_COLUMNS = ("_id", "id")
"""Where the id of a row is looked for, in this order: BEIR writes ``_id``, most others ``id``."""

_logger = logging.getLogger(__name__)


class Row(NamedTuple):
    """One row of a table.

    Attributes:
        place: File and line, for messages.
        values: Column → value. A null, a NaN and a key that other rows of a JSON file have are None.
    """

    place: str
    values: dict[str, Any]

    def value(self, column: str, setting: str | None = None) -> Any:
        """Return the value of a column.

        Args:
            column: Its name.
            setting: The name of the setting that chooses another column, for the message.

        Raises:
            UserError: The row has no such column.
        """
        if column not in self.values:
            advice = f"set `{setting}`" if setting else f"rename the right one to {column!r}"
            names = " ".join(", ".join(self.values).split())
            raise UserError(f"{self.place}: no column {column!r} among its columns ({names}); {advice}")
        return self.values[column]

    @property
    def id_column(self) -> str:
        """The first of :data:`ID_COLUMNS` that the row has."""
        return next((name for name in ID_COLUMNS if name in self.values), ID_COLUMNS[-1])

    def text(self, column: str, setting: str | None = None) -> str:
        """Return the cleaned text in a column, empty for a null; a number is text, too.

        Raises:
            UserError: The row has no such column, or its value is not a text.
        """
        value = self.value(column, setting)
        text = cell_text(value)
        if text is None:
            advice = f"set `{setting}` to another column" if setting else "write it as a string"
            raise UserError(f"{self.place}: expected a text, found {type(value).__name__} in {column!r}; {advice}")
        return clean(text)

    def id(self, column: str | None = None, setting: str | None = None) -> str:
        """Return the id of the row: a string, or a whole number as a string (``7`` and ``7.0`` are "7", "007" stays "007").

        Args:
            column: Where it is; None: in :attr:`id_column`.
            setting: The name of the setting that chooses another column, for the message.

        Raises:
            UserError: The row has no id.
        """
        value = self.value(column or self.id_column, setting)
        is_id = not isinstance(value, float) or value.is_integer()
        name = clean_id((cell_text(value) if is_id else None) or "")
        if not name:
            raise UserError(f"{self.place}: {value!r} is not an id; give each row a string or a whole number")
        return name


class TextCheck:
    """Skips rows without text and counts them, or refuses the first one.

    Args:
        noun: One of them, for messages: row, document, query, text.
        strict: Refuse.
    """

    def __init__(self, noun: str = "row", *, strict: bool = False) -> None:
        self._noun, self._strict = noun, strict
        self.skipped = 0

    def has_text(self, place: str, *texts: str) -> bool:
        """Return True if one of the texts (title and text, for example) is not empty; count the row otherwise.

        Raises:
            UserError: All are empty, and ``strict`` is set.
        """
        if any(texts):
            return True
        if self._strict:
            raise UserError(f"{place}: a {self._noun} without text; remove it, or leave `strict` out to skip such rows")
        self.skipped += 1
        return False

    def report(self, source: object) -> None:
        """Log how many rows of a source were skipped; nothing if there were none."""
        if self.skipped:
            plural = "" if self.skipped == 1 else "ies" if self._noun.endswith("y") else "s"
            noun = self._noun.removesuffix("y") if plural == "ies" else self._noun
            _logger.warning("Skipped %d %s%s without text in %s", self.skipped, noun, plural, source)
