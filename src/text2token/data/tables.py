"""The table reader of all verbs: rows from JSON, CSV, TSV and Parquet files.

A reader of documents, queries or labelled texts uses it like this::

    check = TextCheck("query", strict=strict)
    for row in read_table(path, ["_id", "id", "text"]):
        text = row.text("text")
        if check.has_text(row.place, text):
            yield row.id(), text
    check.report(path)

``row.text`` and ``row.id`` hold the rules for cells (see docs/reads.md). :class:`TextCheck` counts the rows without text and
reports them in one line, or refuses the first one.
"""

from __future__ import annotations

import csv
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from text2token.data.lines import COMPRESSIONS, file_format, read_lines
from text2token.data.text import cell_text, clean, clean_id
from text2token.utils.errors import UserError, first_line

ID_COLUMNS = ("_id", "id")
"""Where the id of a row is looked for, in this order: BEIR writes ``_id``, most others ``id``."""

_PARQUET_BATCH = 64  # rows decoded at once; small, because one text may have megabytes
_FIRST_ROWS = 64  # rows of a JSON file that tell which columns it has
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


def is_table(path: Path) -> bool:
    """Return True if the ending of a file is that of a table, compressed or not."""
    return file_format(path) in _READERS and (file_format(path) != ".parquet" or path.suffix.lower() == ".parquet")


def find_table(folder: Path, stem: str) -> Path | None:
    """Return the first table of a folder that is called ``stem``, with any ending; None if there is none."""
    endings = [f"{ending}{compression}" for compression in ("", *COMPRESSIONS) for ending in _READERS]
    files = (folder / f"{stem}{ending}" for ending in endings)
    return next((file for file in files if file.is_file() and is_table(file)), None)


def read_table(path: Path, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Row]:
    """Yield the rows of a table. Only a JSON array is read into memory as a whole.

    Args:
        path: ``.jsonl`` (an object per line), ``.json`` (the same, or an array of objects), ``.csv``, ``.tsv`` (both with a
            header) or ``.parquet``; all but the last also compressed, as ``.csv.gz``, ``.zst``, ``.bz2`` or ``.xz``.
        columns: The columns wanted: a Parquet file is read faster without the others. Those that are missing are left out.
        start: Rows left out at the beginning. They are not decoded, so this is much faster than reading them.

    Raises:
        UserError: There is no such file, its format is another, or it is malformed; the message gives the line.
    """
    if not path.is_file() or not is_table(path):
        raise UserError(f"{path} is not a table; give one of {TABLE_FORMATS}")
    for row in _READERS[file_format(path)](path, columns, start):
        yield Row(row.place, {name: None if _is_nan(value) else value for name, value in row.values.items()})


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _complete(read: Callable[[int], Iterator[Row]], start: int) -> Iterator[Row]:
    """Give each row the keys that the first rows have, except ids: many programs leave out a key whose value is null."""
    keys: dict[str, None] = {}
    with suppress(UserError):  # the loop below comes to that row, too
        for row in islice(read(0), _FIRST_ROWS):
            keys |= dict.fromkeys(key for key in row.values if key not in ID_COLUMNS)
    for row in read(start):
        yield Row(row.place, {**row.values, **{key: None for key in keys if key not in row.values}})


def _read_jsonl(path: Path, _: object, start: int) -> Iterator[Row]:
    return _complete(partial(_json_lines, path), start)


def _json_lines(path: Path, start: int) -> Iterator[Row]:
    lines = ((number, line) for number, line in enumerate(read_lines(path), start=1) if line.strip())
    for number, line in islice(lines, start, None):
        place = f"{path}, line {number}"
        yield _json_row(place, _parse_json(place, line, "write one whole object per line"))


def _read_json(path: Path, columns: object, start: int) -> Iterator[Row]:
    lines = read_lines(path)
    first = next((line.lstrip() for line in lines if line.strip()), "")
    lines.close()  # type: ignore[attr-defined]  # it is a generator, and holds the file open
    if not first.startswith("["):
        yield from _read_jsonl(path, columns, start)
        return
    values = _parse_json(str(path), "".join(read_lines(path)), "write an array of objects, or one object per line")
    rows = partial(enumerate, values, 1)
    yield from _complete(
        lambda skipped: (_json_row(f"{path}, row {n}", value) for n, value in islice(rows(), skipped, None)), start
    )


def _parse_json(place: str, text: str, advice: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f"{place}: the JSON is nested too deeply; {advice}") from None
    except ValueError as error:
        raise UserError(f"{place}: malformed JSON ({first_line(error)}); {advice}") from None


def _json_row(place: str, value: Any) -> Row:
    if not isinstance(value, dict):
        raise UserError(f'{place}: expected a JSON object such as {{"text": …}}, found {type(value).__name__}')
    return Row(place, value)


def _read_csv(path: Path, columns: Sequence[str] | None, start: int, delimiter: str = ",") -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # a setting of the process, not of a reader; the default refuses a text of 128 KiB
    rows = csv.reader(read_lines(path), delimiter=delimiter, strict=True)
    try:
        header = [name.strip() for name in next(filter(None, rows), ())]
        if not header:
            return
        _check_names(path, header, columns)
        for cells in islice(filter(None, rows), start, None):
            if len(cells) > len(header):
                message = f"{len(cells)} cells under {len(header)} columns; quote cells that hold the separator"
                raise UserError(f"{path}, line {rows.line_num}: {message}")
            yield Row(f"{path}, line {rows.line_num}", dict(zip_longest(header, cells)))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: malformed table ({error}); check its quotes") from None


def _check_names(path: Path, names: Sequence[str], columns: Sequence[str] | None) -> None:
    """Refuse a table in which two of the wanted columns have one name."""
    if double := sorted({name for name in names if names.count(name) > 1 and name in (columns or names)}):
        raise UserError(f"{path}: two columns are called {double[0]!r}; rename one")


def _read_tsv(path: Path, columns: Sequence[str] | None, start: int) -> Iterator[Row]:
    return _read_csv(path, columns, start, delimiter="\t")


def _read_parquet(path: Path, columns: Sequence[str] | None, start: int) -> Iterator[Row]:
    import pyarrow as pa  # both take a moment to import, which other formats need not wait for
    import pyarrow.parquet as pq

    number = 0
    try:
        with path.open("rb") as stream, pq.ParquetFile(stream) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = list(accumulate(sizes))
            groups = [group for group, end in enumerate(ends) if end > start]
            number = sum(sizes) - sum(sizes[group] for group in groups)
            wanted = [name for name in file.schema_arrow.names if name in (columns or [name])]
            _check_names(path, wanted, None)
            for batch in file.iter_batches(_PARQUET_BATCH, row_groups=groups, columns=wanted or None):
                skipped = min(max(start - number, 0), len(batch))
                number += skipped
                for values in batch.slice(skipped).to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
    except UserError:
        raise
    except UnicodeDecodeError:
        raise UserError(f"{path}, row {number + 1}: not UTF-8 text; write the file again in UTF-8") from None
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, OSError) and error.filename:
            raise
        raise UserError(f"{path}: not a readable Parquet file ({first_line(error)}); write it again") from None


_READERS: dict[str, Callable[[Path, Sequence[str] | None, int], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
TABLE_FORMATS = f"{', '.join(_READERS)} (all but .parquet also as {', '.join(COMPRESSIONS)})"
"""The formats, for messages."""
