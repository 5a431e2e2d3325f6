"""The rows of a training stage on the disk."""

from __future__ import annotations

import os
import random

import psutil
import pyarrow as pa
import pytest

from conftest import untrained
from text2token import UserError
from text2token.training.rows import Rows, text_tables, with_token_ids, write_rows

LENGTHS = [random.Random(i).randint(1, 9) for i in range(75)]
ROWS = [{"input_ids": list(range(i, i + length)), "weights": [0.5] * (i % 3)} for i, length in enumerate(LENGTHS)]
TYPES = pa.schema({"input_ids": pa.list_(pa.int32()), "weights": pa.list_(pa.float32())})


def tables(*cuts):
    """The rows in tables of different sizes."""
    for start, end in zip((0, *cuts), (*cuts, len(ROWS)), strict=True):
        yield pa.Table.from_pylist(ROWS[start:end], schema=TYPES)


@pytest.mark.parametrize("cuts", [(), (16, 32), (1, 18, 40, 41)])
def test_each_row_is_read_back_in_any_order(cuts, tmp_path):
    write_rows(tables(*cuts), tmp_path / "stage" / "rows.arrow")
    rows = Rows(tmp_path / "stage" / "rows.arrow")
    order = random.Random(0).sample(range(len(ROWS)), len(ROWS))
    assert [rows[i] for i in order] == [ROWS[i] for i in order]
    assert rows.lengths.tolist() == LENGTHS
    assert len(rows) == len(ROWS)


def test_no_page_of_the_file_is_mapped_into_memory(tmp_path):
    write_rows(tables(), tmp_path / "rows.arrow")
    rows = Rows(tmp_path / "rows.arrow")
    assert rows[70] == ROWS[70]
    assert str(tmp_path / "rows.arrow") not in {area.path for area in psutil.Process().memory_maps()}


def test_a_complete_file_is_kept_and_an_incomplete_one_does_not_appear(tmp_path):
    def broken():
        yield from tables()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_rows(broken(), tmp_path / "rows.arrow")
    assert not list(tmp_path.iterdir())
    write_rows(tables(), tmp_path / "rows.arrow")
    write_rows(broken(), tmp_path / "rows.arrow")
    assert len(Rows(tmp_path / "rows.arrow")) == len(ROWS)


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_file_is_told_with_the_way_out(tmp_path, kept):
    write_rows(tables(), tmp_path / "rows.arrow")
    os.truncate(tmp_path / "rows.arrow", kept)
    with pytest.raises(UserError, match=r"rows\.arrow' is damaged: delete it"):
        Rows(tmp_path / "rows.arrow")


def test_token_ids_take_the_place_of_the_texts(backbone):
    tokenizer = untrained(backbone("llama")).tokenizer
    texts = [f"the cat sat on mat number {i} and stayed there" for i in range(3000)]
    made = [with_token_ids(table, tokenizer, 7) for table in text_tables(texts)]
    assert {tuple(table.column_names) for table in made} == {("input_ids",)}
    expected = tokenizer(texts, truncation=True, max_length=7)["input_ids"]
    assert [ids for table in made for ids in table["input_ids"].to_pylist()] == expected
