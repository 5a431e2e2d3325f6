"""Documents to be found: from tables and folders of text files, streamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from text2token.data.tables import ID_COLUMNS, TABLE_FORMATS, Row, is_table, read_table
from text2token.data.text import clean, clean_id
from text2token.utils.errors import UserError

_TEXTS = frozenset({".txt", ".md"})


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
    elif is_table(source):
        wanted = [*filter(None, (columns.id, columns.title, columns.text)), *ID_COLUMNS, "title", "text"]
        for row in read_table(source, wanted):
            yield row.place, _document(row, columns)
    else:
        raise UserError(f"'{source}' is neither a folder nor one of {TABLE_FORMATS}: convert the documents.")


def _read_folder(folder: Path) -> Iterator[tuple[str, Document]]:
    files = (file for file in sorted(folder.rglob("*")) if file.suffix.lower() in _TEXTS and file.is_file())
    for file in files:
        name = file.relative_to(folder)
        if any(part.startswith(".") for part in name.parts):
            continue
        if clean_id(str(name)) != str(name):
            raise UserError(f"{os.fsencode(file)!r}: this name is not UTF-8 text, so it is no id; rename the file.")
        try:
            text = clean(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError(f"{file}: not UTF-8 text; convert it to UTF-8.") from None
        if not text:
            raise UserError(f"{file}: no text in it; leave it out.")
        yield str(file), Document(name.as_posix(), file.stem, text)


def _document(row: Row, columns: Columns) -> Document:
    has_title = columns.title or "title" in row.values
    title = row.text(columns.title or "title", "title_column") if has_title else ""
    text = row.text(columns.text or "text", "text_column")
    return Document(row.id(columns.id, "id_column"), title, text)
