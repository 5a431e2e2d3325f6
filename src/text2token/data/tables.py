"""Read tables: JSON lines, CSV and Parquet files, row by row, each row with its place for error messages."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from text2token.utils.errors import UserError

_PARQUET_BATCH = 64  # rows decoded at once; small, since a single text may have megabytes


class Row(NamedTuple):
    """A row of a table: where it stands, for messages, and its values by column; None for a blank line."""

    place: str
    values: Any


def read_table(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    """Rows of a ``.jsonl``, ``.json``, ``.csv`` or ``.parquet`` file, one in memory at a time.

    Args:
        path: The file.
        columns: Those wanted, of which a format that can reads no others; the ones that are not there are left out.

    Raises:
        UserError: There is no such file, its format is another, or it is malformed, at the line that the message names.
    """
    if not path.is_file() or path.suffix.lower() not in TABLES:
        raise UserError(f"{path} is no table; give one of {', '.join(TABLES)}")
    return TABLES[path.suffix.lower()](path, columns)


def pick(row: Row, column: str, advice: str = "set text_column to that of the texts") -> Any:
    """The value of a column; ``advice`` ends the sentence that says it is not there.

    Raises:
        UserError: The row has none of that name.
    """
    if not isinstance(row.values, dict):
        example = f"write one {{{json.dumps(column)}: …}} on each line"
        raise UserError(f"{row.place}: expected a JSON object a line; {example}")
    if column not in row.values:
        names = ", ".join(row.values)
        raise UserError(f"{row.place}: no column {column!r} among its columns ({names}); {advice}")
    return row.values[column]


def read_lines(path: Path) -> Iterator[str]:
    """Lines of a UTF-8 file.

    They are decoded one by one, so an error can name its line, and only a line feed ends a line (not ``\\x85`` or ``\\u2028``).
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError:
                raise UserError(f"{path}, line {number}: not UTF-8 text; convert it to UTF-8") from None
            yield text


def _read_jsonl(path: Path, _columns: Sequence[str]) -> Iterator[Row]:
    for number, line in enumerate(read_lines(path), start=1):
        place = f"{path}, line {number}"
        if not line.strip():
            yield Row(place, None)
            continue
        try:
            values = json.loads(line)
        except ValueError:
            raise UserError(f"{place}: malformed JSON; write one whole object a line") from None
        yield Row(place, values)


def _read_csv(path: Path, _columns: Sequence[str]) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # of the process, there is none a reader; the default refuses a 128 KiB text
    rows = csv.reader(read_lines(path), strict=True)
    try:
        header = next(rows, None)
        if header is None:
            return
        for cells in rows:
            if len(cells) > len(header):
                message = f"{len(cells)} cells under {len(header)} columns; quote cells that hold commas"
                raise UserError(f"{path}, line {rows.line_num}: {message}")
            yield Row(f"{path}, line {rows.line_num}", dict(zip_longest(header, cells)))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: malformed CSV ({error}); check its quotes") from None


def _read_parquet(path: Path, columns: Sequence[str]) -> Iterator[Row]:
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            wanted = [name for name in file.schema_arrow.names if name in columns]
            for batch in file.iter_batches(_PARQUET_BATCH, columns=wanted or None):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path}, row {number}", values)
    except (pa.ArrowException, OSError):
        raise UserError(f"{path}: not a readable Parquet file; write it again") from None
    except UnicodeDecodeError:
        raise UserError(f"{path}: a column of {', '.join(wanted)} is not UTF-8 text; convert it to UTF-8") from None


TABLES: dict[str, Callable[[Path, Sequence[str]], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_jsonl,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
