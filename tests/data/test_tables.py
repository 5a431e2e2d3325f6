"""The table reader: the same rows from every format, one rule for texts and ids, and a sentence for whatever is malformed."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import logging
import lzma
import math
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from text2token.data import Corpus, open_corpus
from text2token.data.rows import ID_COLUMNS, Row, TextCheck
from text2token.data.tables import is_table, read_table
from text2token.search import read_documents
from text2token.utils.errors import UserError

FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # each example writes its own file again
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), max_size=8)
WORDS = [
    "None",
    "NA",
    "null",
    "nan",
    "NaN",
    "007",
    "1.0",
    "1e5",
    "true",
    "-",
    "",
    " ",
    '"',
    "a\tb",
    "a\nb",
    "a,b",
    "ﬁ",
    "é",
]


def compressed(path, data):
    kinds = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(str(path), "zstd") as stream:
            stream.write(data)
    else:
        path.write_bytes(kinds.get(path.suffix, bytes)(data))
    return path


def written(folder, name, rows):
    """Rows of text cells in the format that the name says."""
    path = folder / name
    kind = next(part for part in path.suffixes if part in {".jsonl", ".json", ".csv", ".tsv", ".parquet"})
    if kind == ".parquet":
        columns = {column: pa.array([row[column] for row in rows], pa.string()) for column in rows[0]}
        pq.write_table(pa.table(columns), path)
        return path
    if kind == ".jsonl":
        content = "".join(json.dumps(row) + "\n" for row in rows)
    elif kind == ".json":
        content = json.dumps(rows, indent=1)
    else:
        stream = io.StringIO()
        table = csv.DictWriter(stream, list(rows[0]), delimiter="\t" if kind == ".tsv" else ",", quoting=csv.QUOTE_ALL)
        table.writeheader()
        table.writerows(rows)
        content = stream.getvalue()
    return compressed(path, ("\ufeff" + content).encode())


NAMES = [
    "a.jsonl",
    "A.JSON",
    "a.csv",
    "a.tsv",
    "a.parquet",
    *(f"a.{x}" for x in ("jsonl.gz", "json.zst", "csv.bz2", "tsv.xz")),
]


@pytest.mark.parametrize("name", [name.lower() for name in NAMES])
@FOLDER
@given(rows=st.lists(st.fixed_dictionaries(dict.fromkeys(("_id", "text"), CELLS | st.sampled_from(WORDS))), min_size=1))
def test_every_format_gives_the_rows_that_were_written(tmp_path, name, rows):
    """Cells are text whatever they look like; there is no guessing of types or of missing values."""
    assert [row.values for row in read_table(written(tmp_path, name, rows))] == rows


@pytest.mark.parametrize("name", [name.lower() for name in NAMES])
def test_texts_and_ids_are_the_same_in_every_format_and_through_a_corpus(tmp_path, name):
    rows = [
        {"id": f" {number} ", "text": f" {word} "}
        for number, word in enumerate(["None", "NA", "e\u0301", "\u00e9", " "])
    ]
    path = written(tmp_path, name, rows)
    read = list(read_table(path, ["id", "text"]))
    assert [row.id() for row in read] == ["0", "1", "2", "3", "4"]
    assert [row.text("text") for row in read] == ["None", "NA", "\u00e9", "\u00e9", ""]
    assert list(open_corpus(path)) == ["None", "NA", "\u00e9", "\u00e9"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (7, "7"),
        (7.0, "7"),
        (1.5, "1.5"),
        ("007", "007"),
        ("1.0", "1.0"),
        (None, ""),
        (math.nan, ""),
        (math.inf, ""),
        (10**20, "1" + "0" * 20),
    ],
)
def test_numbers_and_nulls_as_texts(value, text):
    assert Row("here", {"text": value}).text("text") == text


@pytest.mark.parametrize("value", [True, [1], {"a": 1}, b"bytes"])
def test_what_is_no_text_is_refused(value):
    with pytest.raises(
        UserError, match=rf"^here: expected a text, found {type(value).__name__} in 'title'; set `title_column`"
    ):
        Row("here", {"title": value}).text("title", "title_column")


@pytest.mark.parametrize(
    ("value", "name"),
    [(1, "1"), (1.0, "1"), ("1", "1"), ("1.0", "1.0"), ("007", "007"), ("e\u0301", "e\u0301"), (" a ", "a")],
)
@pytest.mark.parametrize("column", ID_COLUMNS)
def test_ids(column, value, name):
    assert Row("here", {column: value}).id() == name


@pytest.mark.parametrize("value", [None, math.nan, math.inf, 1.5, True, [1], {}, "", " ", "\0"])
def test_what_is_no_id(value):
    with pytest.raises(UserError, match=r"^here: .* is not an id; give each row a string or a whole number"):
        Row("here", {"_id": value, "id": "second"}).id()


def test_nan_and_null_are_missing_in_json_and_parquet(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"_id": 1, "title": NaN, "text": null}\n')
    table = pa.table({"_id": pa.array([1.0]), "title": pa.array([math.nan]), "text": pa.array([None], pa.string())})
    pq.write_table(table, tmp_path / "b.parquet")
    for file in (path, tmp_path / "b.parquet"):
        (row,) = read_table(file)
        assert (row.id(), row.values["title"], row.text("title"), row.text("text")) == ("1", None, "", "")


def test_blank_lines_before_a_header_and_spaces_in_it_do_not_count(tmp_path):
    (tmp_path / "a.csv").write_text("\n\nid, text\n1, a cat\n")
    assert [(row.id(), row.text("text")) for row in read_table(tmp_path / "a.csv")] == [("1", "a cat")]


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path):
    pq.write_table(pa.table([["1"], ["a"], ["b"]], names=["id", "text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: two columns are called 'text'; rename one$"):
        list(read_table(tmp_path / "a.parquet"))
    assert [row.id() for row in read_table(tmp_path / "a.parquet", ["id"])] == ["1"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.jsonl", b"[" * 100_000, "line 1: the JSON is nested too deeply; write one whole object per line"),
        ("a.json", b"[" * 100_000, "the JSON is nested too deeply"),
        ("a.json", b'[{"a": 1}, 2]', "row 2: expected a JSON object such as {\"text\": …}, found int"),
        ("a.jsonl", b'{"a": 1}\n{"a": 1, "b": 1, "a": 2}', "line 2: the name 'a' occurs twice in an object; delete one"),
        ("a.json", b'[{"b": {"a": 1, "a": 1}}]', "the name 'a' occurs twice in an object; delete one"),
        ("a.json", b'{\n"a": 1}', "line 1: malformed JSON"),
        ("a.json", b'[{"a": 1},]', "malformed JSON"),
        ("a.jsonl", b'{"a": ' + b"9" * 5_000 + b"}", "line 1: malformed JSON"),
        ("a.tsv", b"a\tb\n1\t2\t3\n", "line 2: 3 cells under 2 columns"),
        ("a.csv", b"a,b,a\n1,2,3\n", "two columns are called 'a'; rename one"),
        ("a.csv", "a\né\n".encode("cp1252"), "line 2: not UTF-8 text; convert the file to UTF-8"),
        ("a.jsonl.gz", b'{"a": 1}\n', "cannot be decompressed (Not a gzipped file"),
        ("a.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-9], "cannot be decompressed (Compressed file ended"),
        ("a.csv.zst", b"a\n1\n", "cannot be decompressed"),
        ("a.csv.xz", b"a\n1\n", "cannot be decompressed"),
        ("a.txt", b"a", "is not a table; give one of .jsonl, .json, .csv, .tsv, .parquet (all but .parquet also as .gz"),
        ("a.parquet.gz", b"a", "is not a table"),
    ],
)  # fmt: skip
def test_errors_name_the_place_and_the_way_out(tmp_path, name, content, expected):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as caught:
        list(read_table(path))
    assert str(caught.value).startswith(str(path))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


KEYS = st.sampled_from(["_id", "id", "title", "text"]) | st.text()
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=[])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=8,
)
WILD = st.binary(max_size=60) | st.lists(ANY_JSON.map(json.dumps), max_size=4).map(
    lambda lines: "\n".join(lines).encode()
)


def only_rows_or_a_sentence(path):
    """Everything that a verb does with a table."""
    try:
        for row in read_table(path, [*ID_COLUMNS, "title", "text"]):
            row.id()
            text = row.text("text")
            text.encode()
            assert text == text.strip()
        list(open_corpus(path))
    except UserError as error:
        assert str(path) in str(error)  # noqa: PT017
        assert "\n" not in str(error)  # noqa: PT017


@pytest.mark.parametrize("name", [*NAMES, "a.txt"])
def test_an_error_of_the_disk_names_the_file(tmp_path, name):
    path = tmp_path / name
    path.symlink_to("/proc/self/mem")  # it opens, and the first byte cannot be read
    with pytest.raises(OSError, match=r"^\[Errno ") as caught:
        list(read_documents(tmp_path) if name == "a.txt" else read_table(path))
    assert caught.value.filename == str(path)


@pytest.mark.parametrize("name", [name.lower() for name in NAMES if "parquet" not in name])
@FOLDER
@given(content=WILD, whole=st.booleans())
def test_wild_files_give_rows_or_a_sentence(tmp_path, name, content, whole):
    path = tmp_path / name
    compressed(path, content) if whole else path.write_bytes(content)
    only_rows_or_a_sentence(path)


@FOLDER
@given(values=st.lists(ANY_JSON, min_size=1, max_size=4))
def test_wild_json_arrays_give_rows_or_a_sentence(tmp_path, values):
    path = tmp_path / "a.json"
    path.write_text(
        json.dumps([value if isinstance(value, dict) else {"_id": value, "text": value} for value in values])
    )
    only_rows_or_a_sentence(path)


@FOLDER
@given(cut=st.integers(0, 400), place=st.integers(0, 400), byte=st.integers(0, 255))
def test_damaged_parquet_files_give_rows_or_a_sentence(tmp_path, cut, place, byte):
    path = written(tmp_path, "a.parquet", [{"_id": "1", "text": "one"}, {"_id": "2", "text": "two"}])
    data = bytearray(path.read_bytes())
    data[place % len(data)] = byte
    path.write_bytes(data[: len(data) - cut % 40])
    only_rows_or_a_sentence(path)


# Rows without text


def test_rows_without_text_are_counted_and_told_once(tmp_path, caplog):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "one"}\n\n{"text": null}\n{"text": " "}\n{"text": NaN}\n{"text": "two"}\n')
    corpus = open_corpus(path)
    with caplog.at_level(logging.WARNING):
        assert [list(corpus), list(corpus)] == [["one", "two"]] * 2
    assert caplog.messages == [f"Skipped 3 rows without text in {path}"]
    with pytest.raises(UserError, match="line 3: a row without text; remove it, or leave `strict` out"):
        list(open_corpus(path, strict=True))
    assert list(open_corpus([path], strict=False)) == ["one", "two"]


def test_blank_lines_are_no_rows(tmp_path, caplog):
    (tmp_path / "a.txt").write_text("one\n\n \ntwo\n")
    (tmp_path / "b.csv").write_text("text\none\n\ntwo\n")
    assert list(open_corpus(tmp_path / "a.txt", strict=True)) == ["one", "two"]
    assert list(open_corpus(tmp_path / "b.csv", strict=True)) == ["one", "two"]
    assert not caplog.messages
    with pytest.raises(UserError, match="texts in memory, row 2"):
        list(Corpus.from_texts(["one", " "], strict=True))


@pytest.mark.parametrize(("noun", "plural"), [("query", "2 queries"), ("document", "2 documents")])
def test_the_sentence_of_a_check(noun, plural, caplog):
    check = TextCheck(noun)
    assert check.has_text("here", "", "text")
    check.report("file")
    assert not caplog.messages
    assert not check.has_text("here", "", "")
    assert not check.has_text("there", "")
    check.report("file")
    assert caplog.messages == [f"Skipped {plural} without text in file"]


# Compressed files


@pytest.mark.parametrize("ending", [".gz", ".zst", ".bz2", ".xz"])
def test_a_file_of_several_streams_is_read_whole_or_refused(tmp_path, ending):
    streams = []
    for stream in range(5):
        lines = "".join(f"text {stream} {line}\n" for line in range(100))
        streams.append(compressed(tmp_path / f"part{ending}", lines.encode()).read_bytes())
    path = tmp_path / f"a.txt{ending}"
    path.write_bytes(b"".join(streams))
    assert len(list(open_corpus(path))) == 500
    for damaged in (bytes([streams[1][0] ^ 1]) + streams[1][1:], streams[1][:-3]):
        path.write_bytes(b"".join([streams[0], damaged, *streams[2:]]))
        with pytest.raises(UserError, match=r"cannot be decompressed \(.*\); make the file again$"):
            list(open_corpus(path))
    path.write_bytes(b"".join(streams)[:-1])
    with pytest.raises(UserError, match="cannot be decompressed"):
        list(open_corpus(path))


@pytest.mark.parametrize("zeros", [4, 3, 2**16, 2**16 + 4, 2**16 + 2])
@pytest.mark.parametrize("then", [b"", lzma.compress(b"second\n")], ids=["end", "stream"])
def test_groups_of_four_zeros_may_stand_between_streams_of_xz(tmp_path, zeros, then):
    path = tmp_path / "a.txt.xz"
    path.write_bytes(lzma.compress(b"first\n") + bytes(zeros) + then)
    if zeros % 4 == 0:
        assert list(open_corpus(path)) == ["first", "second"][: 2 if then else 1]
        return
    with pytest.raises(UserError, match="cannot be decompressed"):
        list(open_corpus(path))


# Folders


def test_a_folder_lists_what_it_reads(tmp_path, caplog):
    for name in ("LICENSE.txt", "a.jsonl.gz", "b.tsv", "c.txt.zst", "README.md", *(f"deep/{i}.txt" for i in range(3))):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        head = "text\n" if name == "b.tsv" else ""
        compressed(path, json.dumps({"text": name}).encode() if "json" in name else f"{head}{name}".encode())
    corpus = open_corpus(tmp_path)
    assert caplog.messages == [f"{tmp_path}: reading LICENSE.txt, a.jsonl.gz, b.tsv, c.txt.zst, deep/0.txt and 2 more"]
    assert len(list(corpus)) == 7


@pytest.mark.parametrize("beside", ["queries.jsonl", "qrels/test.tsv"])
@pytest.mark.parametrize("name", ["corpus.jsonl", "corpus.parquet", "corpus.jsonl.gz"])
def test_of_a_beir_folder_the_corpus_alone_is_read(tmp_path, beside, name, caplog):
    written(tmp_path, name, [{"_id": "1", "text": "a document"}])
    for other in (beside, "LICENSE.txt"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text('{"_id": "q", "text": "a query"}\n')
    assert list(open_corpus(tmp_path)) == ["a document"]
    assert caplog.messages == [f"{tmp_path}: reading {name}"]


def test_what_counts_as_a_table():
    assert all(is_table(Path(name)) for name in NAMES)
    assert not any(is_table(Path(name)) for name in ("a.txt", "a.txt.gz", "a.parquet.gz", "gz", ".gz", "jsonl", "a.md"))


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
def test_a_key_that_other_rows_have_is_null(tmp_path, name):
    """Spark and many serialisers leave out a key whose value is null."""
    rows = [{"_id": "1", "title": "T"}, {"_id": "2", "text": "a"}, {"_id": "3"}]
    path = written(tmp_path, name, rows)
    found = [(row.id(), row.text("title"), row.text("text")) for row in read_table(path)]
    assert found == [("1", "T", ""), ("2", "", "a"), ("3", "", "")]
    with pytest.raises(UserError, match=r"no column 'body' among its columns \(_id, title, text\)"):
        next(iter(read_table(path))).text("body")


def test_rows_may_differ_in_the_name_of_their_id(tmp_path):
    path = written(tmp_path, "a.jsonl", [{"_id": 1, "text": "a"}, {"id": 2.0, "text": "b"}])
    assert [row.id() for row in read_table(path)] == ["1", "2"]


def test_rows_without_text_in_a_corpus_may_lack_the_key(tmp_path, caplog):
    path = written(tmp_path, "a.jsonl", [{"text": "a"}, {"other": 1}])
    assert list(open_corpus(path)) == ["a"]
    assert caplog.messages == [f"Skipped 1 row without text in {path}"]
    with pytest.raises(UserError, match="line 2: a row without text"):
        list(open_corpus(path, strict=True))


@pytest.mark.parametrize("ending", [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".csv.zst"])
def test_rows_left_out_at_the_beginning_change_no_other_row(tmp_path, ending):
    values = [{"id": str(i), "text": f"text {i}"} for i in range(150)]
    file = tmp_path / f"table{ending}"
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(values), file, row_group_size=40)
    elif ending == ".json":
        file.write_text(json.dumps(values))
    else:
        separator = "\t" if "tsv" in ending else ","
        lines = [json.dumps(row) if "json" in ending else separator.join(row.values()) for row in values]
        header = "" if "json" in ending else f"id{separator}text\n"
        content = (header + "\n\n".join(lines)).encode()  # blank lines are no rows
        if ending.endswith(".gz"):
            content = gzip.compress(content)
        if ending.endswith(".zst"):
            content = pa.Codec("zstd").compress(content, asbytes=True)
        file.write_bytes(content)
    rows = list(read_table(file))
    assert len(rows) == 150
    for start in (0, 1, 39, 40, 41, 100, 149, 150, 200):
        assert list(read_table(file, start=start)) == rows[start:]


@pytest.mark.parametrize(
    ("name", "content", "separator"),
    [
        ("a.csv", "text;id\nA;1\n", "';'"),
        ("a.csv", "id;title;text\n1;A;hello, world\n", "';'"),
        ("a.csv", "id\ttext\n1\tA\n", "a tab"),
        ("a.csv", "id|text\n1|A\n", r"'\|'"),
        ("a.tsv", "id,text\n1,A\n", "','"),
    ],
)
def test_another_separator_is_refused_by_its_name(tmp_path, name, content, separator):
    (tmp_path / name).write_text(content)
    sentence = f"{name}: the columns are separated by {separator}; save the table with commas as .csv"
    with pytest.raises(UserError, match=sentence):
        list(read_table(tmp_path / name))
    with pytest.raises(UserError, match=sentence):
        list(open_corpus(tmp_path / name, text_column="text;id"))


def test_a_quoted_name_may_hold_the_separator(tmp_path):
    (tmp_path / "a.csv").write_text('"text, clean"\nA\n')
    assert [row.values for row in read_table(tmp_path / "a.csv")] == [{"text, clean": "A"}]
