"""Documents, read as a stream from tables and folders of text files."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from text2token.data.folders import visible_files
from text2token.data.lines import name_file
from text2token.data.rows import Row, TextCheck
from text2token.data.tables import TABLE_FORMATS, beir_corpus, is_table, read_table
from text2token.data.text import clean, clean_id
from text2token.search.filters import Metadata, Value, simple_value, text_values
from text2token.utils.errors import UserError
from text2token.utils.places import explain_unreachable, open_place, reached

_TEXT_FILES = (".txt", ".md")
_NAMED = 5  # endings of files left out that a message names
_logger = logging.getLogger(__name__)


class Document(NamedTuple):
    """A document that can be found.

    Attributes:
        id: Its id.
        title: Its title; may be empty.
        text: Its text.
        metadata: Values by column. They are returned with hits, and filters compare them; see :func:`simple_metadata`.
    """

    id: str
    title: str
    text: str
    metadata: Metadata = MappingProxyType({})

    @property
    def content(self) -> str:
        """Title and text, which are encoded and counted together."""
        return f"{self.title} {self.text}".strip()


@dataclass(frozen=True)
class Columns:
    """Names of the columns in a table of documents.

    Attributes:
        id: Column of the ids; None: ``_id``, or else ``id``.
        title: Column of the titles; None: ``title`` if the table has it.
        text: Column of the texts; None: ``text``.
    """

    id: str | None = None
    title: str | None = None
    text: str | None = None


def read_documents(source: str | Path, columns: Columns | None = None, *, strict: bool = False) -> Iterator[Document]:
    """Read documents from a table, or from a folder with ``.txt`` and ``.md`` files.

    A folder in the format of BEIR (``corpus.jsonl`` beside ``queries.jsonl`` or ``qrels``) is read as its ``corpus`` table alone.
    One line of the log counts the files of a folder that are left out; hidden ones do not count.
    The id of a text file is its path inside the folder, and its title is the name of the file. The other columns of a table
    become metadata if they hold texts of at most 1,000 characters, numbers, truth values or dates; the columns of an object get
    names with a dot, as ``metadata.url``. Documents with neither title nor text are skipped, and one line of the log counts them.

    Args:
        source: A table in one of the formats of :func:`text2token.data.read_table`, or a folder.
        columns: Names of the columns in a table.
        strict: Refuse a document without text instead of skipping it.

    Raises:
        UserError: There is no such source or column, no document has text, an id is missing or occurs twice, or ``strict`` is set
            and a document has no text.
    """
    source = open_place(source)
    rows = read_rows(source, columns or Columns())
    return checked_documents(rows, source, strict=strict)


def checked_documents(
    rows: Iterable[tuple[str, Document]], source: Path, *, strict: bool = False
) -> Iterator[Document]:
    """Leave out documents without text, and refuse an id that occurs twice; the arguments are those of :func:`read_documents`."""
    with explain_unreachable(source):
        if source.is_dir():
            _report_left_out(source)
    seen: set[bytes] = set()
    check = TextCheck("document", strict=strict)
    for place, document in rows:
        if not check.has_text(place, document.title, document.text):
            continue
        if (key := document.id.encode()) in seen:
            raise UserError(f"{place}: the id '{document.id}' occurs a second time; give each document its own.")
        seen.add(key)
        yield document
    if not seen:
        raise UserError(f"There is no document with text in '{source}': check that this is the right file or folder.")
    check.report(source)


def read_rows(source: Path, columns: Columns, start: int = 0) -> Iterator[tuple[str, Document]]:
    """Read the documents of all rows, or of all text files in a folder, each with its place; some may have no text.

    Args:
        source: See :func:`read_documents`.
        columns: Names of the columns in a table.
        start: Rows left out at the beginning.

    Raises:
        UserError: There is no such source, it is malformed, or an object store does not answer.
    """
    return reached(source, _rows(source, columns, start))


def _rows(source: Path, columns: Columns, start: int) -> Iterator[tuple[str, Document]]:
    check_source(source)
    place = _place(source)
    if place.is_dir():
        yield from _read_folder(place, start)
    elif is_table(place):
        for row in read_table(place, start=start):
            yield row.place, _document(row, columns)
    else:
        raise UserError(f"'{source}' is neither a folder nor one of {TABLE_FORMATS}: convert the documents.")


def check_source(source: Path) -> None:
    """Check that there is a file or folder of documents.

    Raises:
        UserError: There is none, or the object store does not answer.
    """
    with explain_unreachable(source):
        if not source.is_dir() and not source.is_file():
            raise UserError(f"There is no file or folder '{source}': check the path of the documents.")


def document_files(source: Path) -> list[Path]:
    """Return the files that documents are read from: a table, or the text files of a folder at any depth, sorted by path.

    Which these are, :func:`text2token.data.folders.visible_files` says.

    Raises:
        UserError: A folder in the format of BEIR has several ``corpus`` tables.
    """
    place = _place(source)
    if not place.is_dir():
        return [place]
    return _texts(visible_files(place))


def _place(source: Path) -> Path:
    """The table of documents of a folder in the format of BEIR; any other source as it is."""
    tables = beir_corpus(source) if source.is_dir() else []
    if len(tables) > 1:
        names = ", ".join(file.name for file in tables)
        raise UserError(f"'{source}' holds several tables of documents ({names}): name the one to read.")
    return tables[0] if tables else source


def _texts(files: list[Path]) -> list[Path]:
    return [file for file in files if file.suffix.lower() in _TEXT_FILES]


def _report_left_out(folder: Path) -> None:
    place, visible = _place(folder), visible_files(folder)
    read = set(_texts(visible)) if place == folder else {place}
    left = Counter(file.suffix.lower() or "no ending" for file in visible if file not in read)
    if left:
        endings = ", ".join(ending for ending, _ in left.most_common(_NAMED))
        more = ", …" if len(left) > _NAMED else ""
        what = f"{' and '.join(_TEXT_FILES)} files" if place == folder else place.name
        _logger.warning("%s: reading %s; other files left out: %d (%s%s)", folder, what, left.total(), endings, more)


def _read_folder(folder: Path, start: int) -> Iterator[tuple[str, Document]]:
    """Text files. An empty one has neither title nor text."""
    for file in document_files(folder)[start:]:
        name = file.relative_to(folder)
        if clean_id(str(name)) != str(name):
            raise UserError(
                f"{os.fsencode(file)!r}: this name is not UTF-8 text or begins with white space, so it cannot be an id; rename "
                "the file."
            )
        try:
            with name_file(file):
                text = clean(file.read_text(encoding="utf-8-sig"))
        except UnicodeDecodeError:
            raise UserError(f"{file}: not UTF-8 text; convert it to UTF-8.") from None
        yield str(file), Document(name.as_posix(), file.stem if text else "", text)


def _document(row: Row, columns: Columns) -> Document:
    name = row.id(columns.id, "id_column")
    has_title = columns.title or ("title" in row.values and columns.text != "title")
    title = row.text(columns.title or "title", "title_column") if has_title else ""
    text = row.text(columns.text or "text", "text_column")
    used = {columns.id or row.id_column, columns.title or "title", columns.text or "text"}
    others = {column: value for column, value in row.values.items() if column not in used}
    return Document(name, title, text, simple_metadata(others, row.place))


def as_kept(document: Document) -> Document:
    """A document in the form that the index keeps.

    Raises:
        UserError: It is no Document, it has no text, its id is empty or holds null bytes or lone surrogates, or one of these is
            no string.
    """
    if not isinstance(document, Document):
        raise UserError(f"A Document is expected, not {document!r:.40}: write Document(id, title, text).")
    name, title, text, metadata = document
    for part, value in (("id", name), ("title", title), ("text", text)):
        if not isinstance(value, str):
            raise UserError(f"The {part} of the document {name!r} is of type {type(value).__name__}: give a string.")
    if not isinstance(metadata, Mapping):
        raise UserError(
            f"The metadata of the document {name!r} are of type {type(metadata).__name__}: give a dictionary."
        )
    if not name.strip() or clean_id(name) != name.strip():
        raise UserError(
            f"{name!r} cannot be an id, since it is empty or has a character that is no text: give another."
        )
    cleaned = Document(name, clean(title), clean(text), simple_metadata(metadata, f"The document '{name}'"))
    if not cleaned.content:
        raise UserError(f"The document '{name}' has no text: leave it out.")
    return cleaned


def is_kept(known: Document | None, document: Document) -> bool:
    """Whether the index holds a document as it is. Python takes 1 for equal to True, a filter does not."""
    return known == document and text_values(known.metadata) == text_values(document.metadata)


def simple_metadata(values: Mapping[str, Any], owner: str = "A document") -> dict[str, Value]:
    """The values that filters can compare: short texts, numbers, truth values and dates.

    Dates, integers beyond 64 bits and decimals with more digits than a float become text. The columns of an object get names with
    a dot. Other values are left out.

    Args:
        values: Values by column.
        owner: What messages call the document.

    Raises:
        UserError: Two values get one name.
    """
    simple: dict[str, Value] = {}
    for name, value in _simple_values(values, ""):
        if name in simple:
            raise UserError(f"{owner}: two values of the metadata are called {name!r}; rename one")
        simple[name] = value
    return simple


def _simple_values(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Value]]:
    for column, value in values.items():
        name = clean_id(f"{prefix}{column}")
        if isinstance(value, Mapping):
            yield from _simple_values(value, f"{name}.")
        elif (simple := simple_value(value)) is not None:
            yield name, simple
