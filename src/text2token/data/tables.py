"""Read the rows of JSON, CSV, TSV and Parquet files."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import accumulate, islice, zip_longest
from pathlib import Path
from typing import Any

from text2token.data.lines import COMPRESSIONS, file_format, name_file, read_lines
from text2token.data.rows import ID_COLUMNS, Row
from text2token.utils.errors import UserError, first_line
from text2token.utils.places import open_place

_PARQUET_BATCH = 64  # rows decoded at once; small, because one text may have megabytes
_SEPARATORS = {",": "','", ";": "';'", "\t": "a tab", "|": "'|'"}  # sign → its name in messages
_FIRST_ROWS = 64  # rows of a JSON file that tell which columns it has


def is_table(path: Path) -> bool:
    """Return True if the ending of a file is that of a table, compressed or not."""
    return file_format(path) in _READERS and (file_format(path) != ".parquet" or path.suffix.lower() == ".parquet")


def find_table(folder: Path, stem: str) -> Path | None:
    """Return the first table of a folder that is called ``stem``, with any ending; None if there is none."""
    endings = [f"{ending}{compression}" for compression in ("", *COMPRESSIONS) for ending in _READERS]
    files = (folder / f"{stem}{ending}" for ending in endings)
    return next((file for file in files if file.is_file() and is_table(file)), None)


def beir_corpus(folder: Path) -> list[Path]:
    """Return the ``corpus`` files of a folder in the format of BEIR; none for any other folder."""
    files = [file for file in sorted(folder.iterdir()) if is_table(file)]
    stems = {file.name.partition(".")[0] for file in files}
    if "queries" not in stems and not (folder / "qrels").is_dir():
        return []
    return [file for file in files if file.name.partition(".")[0] == "corpus"]


def read_table(path: str | Path, columns: Sequence[str] | None = None, start: int = 0) -> Iterator[Row]:
    """Yield the rows of a table. Only a JSON array is read into memory as a whole.

    Args:
        path: ``.jsonl`` (an object per line), ``.json`` (the same, or an array of objects), ``.csv``, ``.tsv`` (both with a
            header) or ``.parquet``; all but the last also compressed, as ``.csv.gz``, ``.zst``, ``.bz2`` or ``.xz``.
        columns: The columns wanted: a Parquet file is read faster without the others. Those that are missing are left out.
        start: Rows left out at the beginning. They are not decoded, so this is much faster than reading them.

    Raises:
        UserError: There is no such file, its format is another, or it is malformed; the message gives the line.
    """
    path = open_place(path)
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
        return _DECODER.decode(text)
    except UserError as error:
        raise UserError(f"{place}: {error}") from None
    except RecursionError:
        raise UserError(f"{place}: the JSON is nested too deeply; {advice}") from None
    except ValueError as error:
        raise UserError(f"{place}: malformed JSON ({first_line(error)}); {advice}") from None


def _one_value_a_name(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        ((double, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise UserError(f"the name {double!r} occurs twice in an object; delete one")
    return values


_DECODER = json.JSONDecoder(object_pairs_hook=_one_value_a_name)


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
        _check_separator(path, header, delimiter)
        _check_names(path, header, columns)
        for cells in islice(filter(None, rows), start, None):
            if len(cells) > len(header):
                message = f"{len(cells)} cells under {len(header)} columns; quote cells that hold the separator"
                raise UserError(f"{path}, line {rows.line_num}: {message}")
            yield Row(f"{path}, line {rows.line_num}", dict(zip_longest(header, cells)))
    except csv.Error as error:
        raise UserError(f"{path}, line {rows.line_num}: malformed table ({error}); check its quotes") from None


def _check_separator(path: Path, header: Sequence[str], delimiter: str) -> None:
    """Refuse a header that is one name with another separator in it: the table is not what its ending says."""
    found = next((sign for sign in _SEPARATORS if sign in header[0] and sign != delimiter), None)
    if found and len(header) == 1:
        raise UserError(
            f"{path}: the columns are separated by {_SEPARATORS[found]}; save the table with commas as .csv, or with tabs as .tsv"
        )


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
        with name_file(path), path.open("rb") as stream, pq.ParquetFile(stream) as file:
            sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
            ends = list(accumulate(sizes))
            groups = [group for group, end in enumerate(ends) if end > start]
            number = sum(sizes) - sum(sizes[group] for group in groups)
            wanted = [name for name in file.schema_arrow.names if name in (columns or [name])]
            _check_names(path, wanted, None)
            for batch in file.iter_batches(_PARQUET_BATCH, row_groups=groups, columns=wanted or None):
                skipped = min(max(start - number, 0), len(batch))
                number += skipped
                columns_read = [_shortest(column) for column in batch.slice(skipped).columns]
                for values in pa.RecordBatch.from_arrays(columns_read, names=batch.schema.names).to_pylist():
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


def _shortest(column: Any) -> Any:
    """The numbers of 16 or 32 bits in a column of Arrow as the shortest decimals: 4.1, not 4.099999904632568."""
    import numpy as np
    import pyarrow as pa

    kind = column.type
    if pa.types.is_struct(kind):
        parts = [_shortest(part) for part in column.flatten()]
        return pa.StructArray.from_arrays(parts, names=[part.name for part in kind], mask=column.is_null())
    if number := {pa.float16(): np.float16, pa.float32(): np.float32}.get(kind):
        shortest = [None if value is None else float(str(number(value))) for value in column.to_pylist()]
        return pa.array(shortest, pa.float64())
    return column


_READERS: dict[str, Callable[[Path, Sequence[str] | None, int], Iterator[Row]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
TABLE_FORMATS = f"{', '.join(_READERS)} (all but .parquet also as {', '.join(COMPRESSIONS)})"
"""The formats, for messages."""
