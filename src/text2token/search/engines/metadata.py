"""Metadata of the documents of a segment: an Arrow table in a file, which is memory-mapped and filtered column by column.

A column of the metadata has two columns in the table: its values as text, and as numbers where they are numbers. Functions import
pyarrow themselves, because a search in an index without metadata starts faster without it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from text2token.data.text import finite_number
from text2token.search.filters import Filter, Metadata, as_text

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = "metadata.arrow"
_ROW = "row"  # keeps the number of rows of a table without metadata
_FUNCTIONS = {"=": "equal", "<": "less", "<=": "less_equal", ">": "greater", ">=": "greater_equal"}


def metadata_table(values: Sequence[Metadata]) -> pa.Table:
    """The table of N documents."""
    import pyarrow as pa

    columns: dict[str, Any] = {_ROW: np.arange(len(values), dtype=np.int32)}
    for name in sorted({name for own in values for name in own}):
        column = [own.get(name) for own in values]
        texts = [None if value is None else as_text(value) for value in column]
        numbers = [None if value is None else finite_number(value) for value in column]
        columns |= {_text(name): pa.array(texts, pa.string()), _number(name): pa.array(numbers, pa.float64())}
    return pa.table(columns)


def write_metadata(folder: Path, table: pa.Table) -> None:
    """Write a table into the folder of a segment."""
    import pyarrow as pa

    with pa.OSFile(str(folder / _FILE), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)


def read_metadata(folder: Path) -> pa.Table | None:
    """The table of a segment; None if its documents have no metadata."""
    if not (folder / _FILE).is_file():
        return None
    import pyarrow as pa

    return pa.ipc.open_file(pa.memory_map(str(folder / _FILE))).read_all()


def merged_metadata(tables: Sequence[pa.Table | None], new_rows: Sequence[NDArray[np.int32]]) -> pa.Table:
    """One table of the documents of several segments.

    Args:
        tables: Table of each segment; None for a segment without metadata.
        new_rows: For each segment the new row of each of its documents; -1 leaves a document out.
    """
    import pyarrow as pa

    whole = [pa.table({_ROW: rows}) if table is None else table for table, rows in zip(tables, new_rows, strict=True)]
    places = np.concatenate(new_rows)
    order = np.argsort(places, kind="stable")[np.count_nonzero(places < 0) :]
    return pa.concat_tables(whole, promote_options="default").take(order)


def matching_rows(table: pa.Table, filters: Sequence[Filter]) -> NDArray[np.bool_]:
    """N booleans, True for documents that meet all filters."""
    import pyarrow.compute as pc

    matching = np.ones(len(table), bool)
    for condition in filters:
        number = condition.number
        name = _text(condition.column) if number is None else _number(condition.column)
        if name not in table.column_names:
            return np.zeros(len(table), bool)
        met = pc.call_function(
            _FUNCTIONS[condition.operator], [table[name], condition.value if number is None else number]
        )
        matching &= pc.fill_null(met, False).to_numpy(zero_copy_only=False)
    return matching


def _text(column: str) -> str:
    return f"text:{column}"


def _number(column: str) -> str:
    return f"number:{column}"
