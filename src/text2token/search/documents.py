"""Documents to be found: from tables and folders of text files, streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from text2token.data.corpus import clean
from text2token.data.tables import TABLES, Row, pick, read_table
from text2token.utils.errors import UserError

_TEXTS = frozenset({".txt", ".md"})
_ID_COLUMNS = ("_id", "id")  # BEIR's, and everybody's
_ADVICE = "name the right one with --{}-column"


class Document(NamedTuple):
    """What is searched for: an id, a title (may be empty) and a text."""

    id: str
    title: str
    text: str

    @property
    def content(self) -> str:
        """What is encoded and counted: the title, then the text."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Columns:
    """Where a table has what; None: ``_id`` or ``id``, ``title``, ``text``."""

    id: str | None = None
    title: str | None = None
    text: str | None = None


def read_documents(source: Path, columns: Columns | None = None, noun: str = "document") -> Iterator[Document]:
    """Documents of a ``.jsonl``, ``.csv`` or ``.parquet`` file, or of a folder of ``.txt`` and ``.md`` files, as a stream.

    The id of a text file is its path inside the folder, its title the file's name. Ids that are numbers become strings.

    Args:
        source: File or folder.
        columns: Of a table.
        noun: What messages call one: queries are read like documents.

    Raises:
        UserError: No such source or column, a document without text or id, or an id that is there twice.
    """
    seen: set[bytes] = set()
    place = None
    for place, document in _read(source, columns or Columns()):
        if not document.content:
            raise UserError(f"{place}: the {noun} '{document.id}' has no text; leave it out, or give it one.")
        if (key := document.id.encode()) in seen:
            raise UserError(f"{place}: the id '{document.id}' is there a second time; give each {noun} its own.")
        seen.add(key)
        yield document
    if place is None:
        raise UserError(f"There is no {noun} in '{source}': give a file with rows, or a folder with text files.")


def _read(source: Path, columns: Columns) -> Iterator[tuple[str, Document]]:
    if source.is_dir():
        yield from _read_folder(source)
    elif not source.is_file():
        raise UserError(f"There is no file or folder '{source}': check the path of the documents.")
    elif source.suffix.lower() in TABLES:
        wanted = [*filter(None, (columns.id, columns.title, columns.text)), *_ID_COLUMNS, "title", "text"]
        for row in read_table(source, wanted):
            if row.values is not None:
                yield row.place, _document(row, columns)
    else:
        raise UserError(f"'{source}' is no {', '.join(sorted(TABLES))} file and no folder: convert the documents.")


def _read_folder(folder: Path) -> Iterator[tuple[str, Document]]:
    files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in _TEXTS and file.is_file())
    for file in files:
        name = file.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        if clean(str(name)) != str(name):
            raise UserError(f"{os.fsencode(file)!r}: this name is not UTF-8 text, so it is no id; rename the file.")
        try:
            text = clean(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError(f"{file}: not UTF-8 text; convert it to UTF-8.") from None
        if not text:
            raise UserError(f"{file}: no text in it; leave it out.")
        yield str(file), Document(name.as_posix(), file.stem, text)


def _document(row: Row, columns: Columns) -> Document:
    text = pick(row, columns.text or "text", _ADVICE.format("text"))
    first = columns.id or next((name for name in _ID_COLUMNS if name in row.values), _ID_COLUMNS[-1])
    name = pick(row, first, _ADVICE.format("id"))
    title = pick(row, columns.title, _ADVICE.format("title")) if columns.title else row.values.get("title")
    if isinstance(name, float) and name.is_integer():  # whole numbers that once stood beside a gap
        name = int(name)
    if not isinstance(name, str | int) or isinstance(name, bool) or not (name := clean(str(name))):
        raise UserError(f"{row.place}: '{name}' is no id; give each row a string or a whole number.")
    return Document(name, _text(row, title), _text(row, text))


def _text(row: Row, value: Any) -> str:
    if value is not None and not isinstance(value, str):
        raise UserError(f"{row.place}: expected a text, found {type(value).__name__}; name the right column.")
    return clean(value or "")
