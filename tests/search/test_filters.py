"""Filters on metadata: how they are read, what they compare, and that they come before the ranking."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import SENTENCES, done, refused
from text2token import UserError
from text2token.data.text import finite_number
from text2token.search import Document, Filter, Index, parse_filter, read_documents
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.search.engines.metadata import matching_rows, metadata_table
from text2token.search.filters import as_text, read_filters, simple_value
from text2token.settings.search import Calibration
from text2token.settings.templates import Template

SETTINGS = {
    "encoder": {"template": Template(), "pooling": "mean"},
    "calibration": Calibration(correction="centre", texts=5),
}
values = st.one_of(
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([0.5, 2.0, -1.5]),
    st.sampled_from(["a", "b", "2", "", "2021-06-01"]),
)
rows = st.lists(st.dictionaries(st.sampled_from(["x", "y", 'q"]']), values, max_size=3), min_size=1, max_size=12)
conditions = st.builds(
    Filter, st.sampled_from(["x", "y", 'q"]']), st.sampled_from(["=", "<", "<=", ">", ">="]), values.map(as_text)
)


def meets(row, condition):
    """One document and one value at a time."""
    if condition.column not in row:
        return False
    value, wanted = as_text(row[condition.column]), condition.value
    if condition.operator != "=" and finite_number(wanted) is not None:
        value, wanted = finite_number(row[condition.column]), finite_number(wanted)
        if value is None:
            return False
    return {
        "=": value == wanted,
        "<": value < wanted,
        "<=": value <= wanted,
        ">": value > wanted,
        ">=": value >= wanted,
    }[condition.operator]


@given(rows=rows, filters=st.lists(conditions, max_size=3))
def test_a_table_is_filtered_as_a_loop_would_do_it(rows, filters):
    expected = [all(meets(row, condition) for condition in filters) for row in rows]
    assert matching_rows(metadata_table(rows), filters).tolist() == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lang=en", Filter("lang", "=", "en")),
        ("year >= 2020", Filter("year", ">=", "2020")),
        ("a b<2021-06-01", Filter("a b", "<", "2021-06-01")),
        ("url=https://x.org/?a=b", Filter("url", "=", "https://x.org/?a=b")),
        ("html= <b>", Filter("html", "=", "<b>")),
    ],
)
def test_filters_are_read(text, expected):
    assert parse_filter(text) == expected


@pytest.mark.parametrize(
    "text", ["", "lang", "=en", ">3", "year>=", "year= ", "year<>2020", "year=>2020", "year==2020", "year<==2020"]
)
def test_what_is_not_a_filter_is_refused(text):
    with pytest.raises(UserError, match="is not a filter: write column=value"):
        parse_filter(text)


@settings(max_examples=20)
@given(
    history=st.lists(st.tuples(st.sampled_from(["add", "delete", "reopen", "finish"]), st.integers(0, 9)), max_size=9)
)
def test_metadata_follow_their_documents_through_any_history(tmp_path_factory, history):
    folder = tmp_path_factory.mktemp("engine")
    engine, kept = EmbeddedEngine(folder), {}
    for step, (action, number) in enumerate(history):
        names = [f"d{i}" for i in range(number, number + 3)]
        if action == "add":
            metadata = [{"step": step} if i % 3 else {} for i in range(number, number + 3)]
            engine.add(names, {"dense": np.eye(3, dtype=np.float32)}, metadata if number % 4 else None)
            kept |= dict(zip(names, metadata if number % 4 else [{}] * 3, strict=True))
        elif action == "delete":
            engine.delete(names)
            kept = {name: own for name, own in kept.items() if name not in names}
        elif action == "finish":
            engine.finish()
        else:
            engine = EmbeddedEngine(folder)
    for step in range(len(history)):
        hits = engine.search("dense", np.ones((1, 3), np.float32), 99, [Filter("step", "=", str(step))])
        assert sorted(hit.id for hit in hits) == sorted(name for name, own in kept.items() if own.get("step") == step)


@pytest.fixture(params=["embedded", "milvus", pytest.param("postgres", marks=pytest.mark.serving)])
def index(request, tmp_path, backbone):
    """400 documents, of which one in a hundred is rare."""
    uri = request.getfixturevalue("postgres").shards if request.param == "postgres" else None
    made = Index.create(tmp_path / "index", backbone("llama"), engine=request.param, uri=uri, **SETTINGS)
    documents = []
    for i in range(400):
        kind = "rare" if i % 100 == 50 else "common"
        text = f"{SENTENCES[i % 10]} Number {i}."
        documents.append(Document(str(i), "", text, {"kind": kind, "number": i, "date": f"2021-01-{i % 28 + 1:02}"}))
    made.add(documents)
    return made


def test_a_filter_comes_before_the_ranking(index):
    for mode in ("hybrid", "sparse", "dense", "bm25"):
        hits = index.search("the number of a cat", 4, mode, filters=["kind=rare"]).hits
        assert {hit.id for hit in hits} == {"50", "150", "250", "350"}
        assert {hit.metadata["kind"] for hit in hits} == {"rare"}
    hits = index.search("number", 400, "bm25", filters=["number>=100", "number<300.5", "date<2021-01-03"]).hits
    assert {hit.id for hit in hits} == {str(i) for i in range(100, 301) if i % 28 < 2}
    assert index.rank(["number"], 400, "bm25", filters=["kind=rare"])[0] == [
        hit for hit in index.rank(["number"], 400, "bm25")[0] if int(hit.id) % 100 == 50
    ]


def test_a_column_that_cannot_meet_a_filter_is_refused(index):
    with pytest.raises(UserError, match="no metadata column 'kin': its columns are date, kind, number"):
        index.search("cat", filters=["kin=rare"])
    with pytest.raises(UserError, match=r"'date' holds no numbers to compare with 2021: .*date>=2018-01-01"):
        index.rank(["cat"], filters=["date>=2021"])


def test_a_number_is_refused_until_a_document_has_one(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    index.add([Document("1", "", SENTENCES[0], {"day": "2021-06-01", "new": True})])
    for condition in ("day>=2018", Filter("day", ">=", 2018), "new>0"):
        with pytest.raises(UserError, match="holds no numbers to compare with"):
            index.search("cat", filters=[condition])
    assert index.search("cat", filters=["day>=2018-01-01", "new=true"]).hits
    index.add([Document("2", "", SENTENCES[1], {"day": "2018.5"})])
    assert [hit.id for hit in index.search("cat", filters=["day>=2018"]).hits] == ["2"]


def test_columns_of_an_earlier_version_may_hold_numbers(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    index.add([Document("1", "", SENTENCES[0], {"year": 2020, "day": "2021-06-01"})])
    index._store.set(metadata_columns=["day", "year"])
    assert index.metadata_columns == ["day", "year"]
    assert index.search("cat", filters=["year>=2020"]).hits
    assert not index.search("cat", filters=["day>=2020"]).hits
    index.add([Document("2", "", SENTENCES[1], {"ended": "2021-06-01"})])
    assert index.search("cat", filters=["year>=2020"]).hits
    with pytest.raises(UserError, match="'ended' holds no numbers"):
        index.search("cat", filters=["ended>=2020"])


def test_values_of_filters_are_cleaned_as_metadata_are(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    row = {"year": 2020, "name": "cafe\u0301", "new": True, "day": datetime.date(2021, 6, 1), "la\udcffng": "x"}
    index.add([Document("1", "", SENTENCES[0], row), Document("2", "", SENTENCES[1], {"year": 2019})])
    for condition in (
        "name=cafe\u0301",
        "name=caf\u00e9",
        "name=caf\u00e9\ud800",
        "la\udcffng=x",
        Filter("name", "=", " cafe\u0301\0"),
        Filter("year", "=", 2020),
        Filter("year", ">=", np.float32(2019.5)),
        Filter("new", "=", True),
        Filter("day", "<=", datetime.date(2021, 6, 1)),
        Filter("la\udcffng", "=", "x"),
    ):
        assert [hit.id for hit in index.search("cat", filters=[condition]).hits] == ["1"], condition
        assert [hit.id for hit in index.rank(["cat"], filters=condition)[0]] == ["1"], condition


@pytest.mark.parametrize(
    ("condition", "sentence"),
    [
        (Filter("kind", "!=", "rare"), "'!=' does not compare 'kind' with a value: use =, <, <=, > or >="),
        (Filter("kind", "=", ""), "'kind' cannot be compared with ''"),
        (Filter("kind", "=", "x" * 1001), "give a text of 1 to 1000 characters, a number, a truth value or a date"),
        (Filter("number", "<", float("nan")), "'number' cannot be compared with nan"),
        (Filter("number", "=", None), "'number' cannot be compared with None"),
        (Filter("kin", "=", "rare"), "no metadata column 'kin'"),
        (
            ("kind", "=", "rare"),
            r"\('kind', '=', 'rare'\) is not a filter: write text such as 'year>=2020', or a Filter",
        ),
    ],
)
def test_a_filter_that_no_document_can_meet_is_one_sentence(condition, sentence):
    with pytest.raises(UserError, match=sentence):
        read_filters([condition], {"kind": False, "number": True})


def test_filters_by_command(tmp_path, backbone):
    rows = [{"id": i, "text": f"{SENTENCES[i]}", "year": 2015 + i, "lang": "en" if i % 2 else "de"} for i in range(10)]
    (tmp_path / "d.jsonl").write_text("\n".join(map(json.dumps, rows)))
    done(
        "index",
        backbone("llama"),
        tmp_path / "d.jsonl",
        "-o",
        tmp_path / "i",
        "--template",
        "none",
        "--pooling",
        "mean",
    )
    command = "search", tmp_path / "i", "stars", "--mode", "bm25", "--json"
    found = json.loads(done(*command, "--filter", "year>=2020", "--filter", "lang=en"))
    assert [hit["metadata"] for hit in found] == [{"year": 2020, "lang": "en"}]
    assert "is not a filter" in refused(*command, "--filter", "year")
    assert "no metadata column 'yeer': its columns are lang, year" in refused(*command, "--filter", "yeer=1")
    (tmp_path / "q.jsonl").write_text('{"_id": 1, "text": "stars"}\n{"_id": 2, "text": ""}')
    queries = "search", tmp_path / "i", "--queries", tmp_path / "q.jsonl", "-o", tmp_path / "run", "--mode", "bm25"
    done(*queries, "--filter", "lang=en")
    assert [line.split()[:3] for line in (tmp_path / "run").read_text().splitlines()] == [["1", "Q0", "5"]]
    assert "a query without text" in refused(*queries, "--strict")


def test_an_index_without_metadata_says_so(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    index.add([Document("1", "", SENTENCES[0])])
    with pytest.raises(UserError, match="its documents have no metadata"):
        index.search("cat", filters=["a=b"])
    index.add([Document("1", "", SENTENCES[0], {"a": "b"}), Document("2", "", SENTENCES[1])])
    assert [hit.id for hit in index.search("cat", filters=["a=b"]).hits] == ["1"]


def test_metadata_from_python_are_kept_in_the_form_that_filters_compare(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    index.add([Document("1", "", SENTENCES[0], {"day": datetime.date(2021, 6, 1), "tags": ["a"], "in": {"x": 1}})])
    (hit,) = index.search("cat", filters="day>=2021-06-01").hits
    assert hit.metadata == {"day": "2021-06-01", "in.x": 1}


def test_numbers_of_numpy_are_numbers(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    values = {"year": np.int64(2020), "share": np.float32(0.5), "new": np.bool_(True), "lost": np.float32("nan")}
    index.add([Document("1", "", SENTENCES[0], values)])
    (hit,) = index.search("cat", filters=["year>=2020", "share<0.6", "new=true"]).hits
    assert hit.metadata == {"year": 2020, "share": 0.5, "new": True}


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        (pa.decimal128(20, 0), [Decimal("12345678901234567890"), Decimal("12345678901234567891")]),
        (pa.decimal128(20, 2), [Decimal("123456789012345678.90"), Decimal("123456789012345678.91")]),
        (pa.decimal128(10, 2), [Decimal("-0.25"), Decimal("2020.00")]),
        (pa.float32(), [4.1, 0.1]),
        (pa.float16(), [4.1, 0.1]),
    ],
)
def test_numbers_of_parquet_are_found_by_what_was_written(tmp_path, kind, values):
    written = pa.array([np.float16(value) for value in values] if kind == pa.float16() else values, kind)
    inside = pa.StructArray.from_arrays([written], names=["x"])
    table = {"id": ["0", "1"], "text": SENTENCES[:2], "x": written, "in": inside}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    kept = metadata_table([document.metadata for document in read_documents(tmp_path / "a.parquet")])
    for row, value in enumerate(values):
        wanted = as_text(simple_value(value))
        assert wanted == str(value).removesuffix(".00")
        for column in ("x", "in.x"):
            assert matching_rows(kept, [Filter(column, "=", wanted)]).tolist() == [row == 0, row == 1]
            assert matching_rows(kept, [Filter(column, ">=", wanted)])[row]


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (Decimal("7.00"), 7),
        (Decimal("1e30"), "1" + "0" * 30),
        (Decimal("0.1"), 0.1),
        (Decimal("NaN"), None),
        (Decimal("1e999999"), None),
        (np.float32(4.1), 4.1),
        (np.float16(4.1), 4.1),
        (np.float64(0.1), 0.1),
    ],
)
def test_numbers_keep_their_digits(value, kept):
    assert simple_value(value) == kept


def test_a_number_that_becomes_a_truth_value_is_a_change(tmp_path, backbone):
    index = Index.create(tmp_path / "index", backbone("llama"), **SETTINGS)
    assert [index.add([Document("1", "", SENTENCES[0], {"new": value})]) for value in (1, 1.0, True)] == [1, 0, 1]
    assert index.search("cat", filters="new=true").hits


def test_an_addition_reads_the_columns_of_the_first_documents(tmp_path, backbone):
    for name, text in {"a": "A galaxy.", "b": "Another galaxy."}.items():
        (tmp_path / f"{name}.csv").write_text(f"key,body\n{name},{text}\n")
    columns = "--id-column", "key", "--text-column", "body"
    done("index", backbone("llama"), tmp_path / "a.csv", "-o", tmp_path / "i", "--template", "none", *columns)
    done("index", "-o", tmp_path / "i", "--add", tmp_path / "b.csv")
    found = json.loads(done("search", tmp_path / "i", "galaxy", "--mode", "bm25", "--json"))
    assert {hit["id"] for hit in found} == {"a", "b"}
    (tmp_path / "c.csv").write_text("key,id,content\na,1,A comet.\nc,2,A comet.\n")
    done("index", "-o", tmp_path / "i", "--add", tmp_path / "c.csv", "--text-column", "content")
    found = json.loads(done("search", tmp_path / "i", "comet", "--mode", "bm25", "--json"))
    assert {hit["id"]: hit["metadata"] for hit in found} == {"a": {"id": "1"}, "c": {"id": "2"}}
