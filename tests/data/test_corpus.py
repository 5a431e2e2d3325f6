import io
import itertools
import json
import sys
import tempfile
import tracemalloc
import unicodedata
from collections import Counter
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2token.data.corpus import Corpus, open_corpus, sample
from text2token.utils.errors import UserError

WILD_TEXT = st.text(st.characters(exclude_categories=[]), max_size=20)  # with surrogates, null bytes, separators


def write(path: Path, content: str | bytes) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)


def write_parquet(path: Path, **columns) -> str:
    pq.write_table(pa.table(columns), path)
    return str(path)


def read_error(sources, **options) -> str:
    with pytest.raises(UserError) as caught:
        list(open_corpus(sources, **options))
    return str(caught.value)


# Cleaning


@pytest.mark.parametrize(
    ("raw", "clean"),
    [
        ("  a b\t\n", "a b"),
        ("a\0b", "ab"),
        ("\0 a \0", "a"),
        ("a\ud800b\udfff", "ab"),
        ("\ud83d\ude00", ""),  # two lone surrogates in Python, not an emoji
        ("😀 \u2028 é", "😀 \u2028 é"),
        ("cafe\u0301 \u1100\u1161", "caf\u00e9 \uac00"),  # composed, Hangul too
    ],
)
def test_cleaning(raw, clean):
    assert list(Corpus.from_texts([raw, "end"])) == [t for t in (clean, "end") if t]


@given(st.lists(WILD_TEXT))
def test_cleaned_texts_are_encodable_stripped_and_stable(texts):
    cleaned = list(Corpus.from_texts([*texts, "end"]))
    assert all(t and t == t.strip() and "\0" not in t and t.encode() for t in cleaned)
    assert list(Corpus.from_texts(cleaned)) == cleaned
    kept = "".join(cleaned)
    encodable = ["".join(c for c in t if c != "\0" and not "\ud800" <= c <= "\udfff") for t in [*texts, "end"]]
    visible = [c for t in encodable for c in unicodedata.normalize("NFC", t) if not c.isspace()]
    assert [c for c in kept if not c.isspace()] == visible  # nothing else is lost


# Formats


def test_txt_is_a_text_a_line_and_only_line_feeds_end_lines(tmp_path):
    path = write(tmp_path / "a.txt", "\ufeffone\r\n\r\n two \n\nx\x0by\x1cz\x85\u2028w\nlast")
    assert list(open_corpus(path)) == ["one", "two", "x\x0by\x1cz\x85\u2028w", "last"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "A.JSONL"])
def test_jsonl(tmp_path, name):
    rows = ['{"text": "one\\u2028\\ud83d\\ude00"}', "", '{"id": [1], "text": "two\\nlines"}', '{"text": null}']
    path = write(tmp_path / name, "\ufeff" + "\r\n".join(rows))
    assert list(open_corpus(path)) == ["one\u2028😀", "two\nlines"]


def test_jsonl_with_half_an_emoji_loses_only_that_half(tmp_path):
    assert list(open_corpus(write(tmp_path / "a.jsonl", '{"text": "ok \\ud83d!"}'))) == ["ok !"]


def test_csv_cells_are_texts_whatever_they_look_like(tmp_path):
    path = write(tmp_path / "a.csv", '\ufeffid,text\r\n1,"a ""b"",\nc"\r\n2,NA\r\n3,007\r\n\r\n4\r\n5,null\r\n')
    assert list(open_corpus(path)) == ['a "b",\nc', "NA", "007", "null"]


def test_parquet_of_plain_large_and_categorical_strings(tmp_path):
    values = ["one", None, " ", "two"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        path = write_parquet(tmp_path / "a.parquet", text=pa.array(values).cast(kind), n=[1, 2, 3, 4])
        assert list(open_corpus(path)) == ["one", "two"]


def test_another_column(tmp_path):
    paths = [
        write(tmp_path / "a.jsonl", '{"text": "no", "body": "json"}'),
        write(tmp_path / "b.csv", "body,text\ncsv,no\n"),
        write_parquet(tmp_path / "c.parquet", text=["no"], body=["parquet"]),
        write(tmp_path / "d.txt", "txt has no columns"),
    ]
    assert list(open_corpus(paths, text_column="body")) == ["json", "csv", "parquet", "txt has no columns"]


def test_a_text_of_100_000_words_in_every_format(tmp_path):
    text = " ".join(f"word{i}" for i in range(100_000))
    paths = [
        write(tmp_path / "a.txt", text),
        write(tmp_path / "b.jsonl", json.dumps({"text": text})),
        write(tmp_path / "c.csv", f'text\n"{text}"\n'),
        write_parquet(tmp_path / "d.parquet", text=[text]),
    ]
    assert list(open_corpus(paths)) == [text] * 4


@given(texts=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")), min_size=1))
def test_formats_agree(tmp_path_factory, texts):
    folder = tmp_path_factory.mktemp("agree")
    cells = "".join('"{}"\n'.format(text.replace('"', '""')) for text in texts)
    paths = [
        write(folder / "a.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in texts) + '{"text": "end"}'),
        write(folder / "b.csv", f"text\n{cells}end"),
        write_parquet(folder / "c.parquet", text=[*texts, "end"]),
    ]
    expected = list(Corpus.from_texts([*texts, "end"]))
    assert [list(open_corpus(path)) for path in paths] == [expected] * 3


# Sources


def test_folder_is_read_recursively_sorted_without_hidden_and_foreign_files(tmp_path):
    write(tmp_path / "b.txt", "b")
    write(tmp_path / "a" / "deep" / "x.jsonl", '{"text": "a"}')
    write(tmp_path / "c.CSV", "text\nc\n")
    write(tmp_path / ".cache" / "old.txt", "hidden")
    write(tmp_path / "notes.md", "foreign")
    assert list(open_corpus(str(tmp_path))) == ["a", "b", "c"]
    assert list(open_corpus(tmp_path)) == ["a", "b", "c"]


def test_globs_and_names_with_glob_characters(tmp_path):
    for name in ("a1.txt", "a2.txt", "b.txt", "sub/a3.txt", "a[1].txt"):
        write(tmp_path / name, name)
    assert list(open_corpus(f"{tmp_path}/a?.txt")) == ["a1.txt", "a2.txt"]
    assert list(open_corpus(f"{tmp_path}/**/a?.txt")) == ["a1.txt", "a2.txt", "sub/a3.txt"]
    assert list(open_corpus(f"{tmp_path}/a[1].txt")) == ["a[1].txt"]


def test_sources_keep_their_order_and_a_file_is_read_once(tmp_path):
    first, second = write(tmp_path / "z.txt", "z"), write(tmp_path / "a.txt", "a")
    corpus = open_corpus([first, second, str(tmp_path), first])
    assert list(corpus) == ["z", "a"]
    assert corpus.name == f"{first} and 3 more"
    assert open_corpus(first).name == first


def test_standard_input_is_read_many_times_and_its_copy_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("één\r\n\ntwee\n".encode())))
    corpus = open_corpus("-")
    assert [list(corpus), list(corpus)] == [["één", "twee"]] * 2
    assert len(list(tmp_path.iterdir())) == 1
    del corpus
    assert list(tmp_path.iterdir()) == []


def test_a_message_about_standard_input_names_it(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ncaf\xe9\n")))
    with pytest.raises(UserError, match=r"^standard input, line 2: not UTF-8"):
        list(open_corpus("-"))


def test_hub_dataset(monkeypatch):
    asked = []

    def load_dataset(*args, **options):
        asked.append((args, options))
        return datasets.Dataset.from_dict({"text": ["a", None, "b "], "n": [1, 2, 3]}).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    corpus = open_corpus("owner/name-1.0")
    assert [list(corpus), list(corpus)] == [["a", "b"]] * 2
    assert asked == [(("owner/name-1.0",), {"split": "train", "streaming": True})]
    assert "text_column" in read_error("owner/name", text_column="body")


@pytest.mark.parametrize("failure", [ConnectionError("no route"), datasets.exceptions.DatasetNotFoundError("none")])
def test_hub_out_of_reach(monkeypatch, failure):
    def load_dataset(*_, **__):
        raise failure

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert read_error("owner/name") == (
        "owner/name is neither a file here nor a dataset that can be reached; check its name"
    )


def test_hub_dataset_without_a_train_split(monkeypatch):
    def load_dataset(*_, **__):
        raise ValueError("Bad split: train. Available splits: ['test']")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert "Available splits: ['test']; save the part" in read_error("owner/name")


# Passes and memory


def test_iteration_restarts_and_passes_are_independent(tmp_path):
    corpus = open_corpus(write(tmp_path / "a.txt", "a\nb\nc"))
    one, other = iter(corpus), iter(corpus)
    assert [next(one), next(one), next(other)] == ["a", "b", "a"]
    assert list(corpus) == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", ["txt", "jsonl", "csv", "parquet"])
def test_memory_does_not_grow_with_the_corpus(tmp_path, suffix):
    path, line, count = tmp_path / f"a.{suffix}", "word " * 200, 20_000
    if suffix == "parquet":
        write_parquet(path, text=[f"{i} {line}" for i in range(count)])
    else:
        head, row = {"txt": ("", "{} {}\n"), "csv": ("text\n", "{} {}\n"), "jsonl": ("", '{{"text": "{} {}"}}\n')}[
            suffix
        ]
        write(path, head + "".join(row.format(i, line) for i in range(count)))
    corpus, arrow, before = open_corpus(path), 0, pa.total_allocated_bytes()  # which tracemalloc does not see
    tracemalloc.start()
    seen = 0
    for _ in corpus:
        seen += 1
        arrow = max(arrow, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == count
    assert peak < 2_000_000  # of 20 MB
    assert arrow < 10_000_000


def test_fingerprint_is_of_the_cleaned_texts_in_order(tmp_path):
    def of(*texts):
        return Corpus.from_texts(texts).fingerprint()

    # printf 'a\0b\0' | sha256sum
    assert of("a", "b") == "8fb20ef63ced4145fc2e983ffe597d1dcff39154c3bf21f0fa9dde6a0c50fdc9"
    assert open_corpus(write(tmp_path / "x.txt", " a\r\n\n\0b")).fingerprint() == of("a", "b")
    assert len({of("a", "b"), of("b", "a"), of("ab"), of("a b"), of("a", "b", "b")}) == 5


# Errors


def test_source_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    write(tmp_path / "notes.md", "x")
    assert read_error("gone.txt").startswith("gone.txt does not exist; give a file")
    assert read_error("no/such/place").startswith("no/such/place does not exist")
    assert read_error("*.csv").startswith("*.csv does not exist")
    assert read_error("notes.md").startswith(
        "notes.md is neither a file of a known format nor a folder with such files"
    )
    assert read_error("*.md").startswith("*.md is neither a file of a known format nor a folder with such files")
    assert read_error("empty").startswith(
        "empty is neither a file of a known format nor a folder with such files; convert it to one of .txt, .jsonl, .json"
    )
    assert read_error([]).startswith("no corpus given")


@pytest.mark.parametrize("content", ["", "\n \r\n\0\n\ufeff"[:-1], "\ufeff"])
def test_empty_corpus(tmp_path, content):
    path = write(tmp_path / "a.txt", content)
    assert read_error(path) == f"There is no text in {path}; check that this is the right corpus"


def test_an_empty_file_among_others_is_fine(tmp_path):
    for name in ("a.txt", "b.jsonl", "c.csv"):
        write(tmp_path / name, "")
    write(tmp_path / "d.txt", "text")
    assert list(open_corpus(tmp_path)) == ["text"]


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.txt", "one\ncafé\n".encode("latin-1"), "line 2: not UTF-8 text; convert the file to UTF-8"),
        ("a.txt", "one\n".encode("utf-16"), "line 1: not UTF-8 text; convert the file to UTF-8"),
        ("a.csv", "text\none\ncafé\n".encode("latin-1"), "line 3: not UTF-8 text; convert the file to UTF-8"),
        (
            "a.jsonl",
            b'{"text": "one"}\n{"text": \n',
            "line 2: malformed JSON (Expecting value: line 2 column 1 (char 10)); write one whole object per line",
        ),
        ("a.jsonl", b'["one"]', 'line 1: expected a JSON object such as {"text": …}, found list'),
        ("a.jsonl", b'\n\n{"body": 1, "n": 2}', "line 3: no column 'text' among its columns (body, n)"),
        (
            "a.jsonl",
            b'{"text": "a"}\n\n{"text": [7]}',
            "line 3: expected a text, found list in 'text'; set `text_column`",
        ),
        ("a.csv", b"title,body\n1,2\n", "no column 'text' among its columns (title, body); set `text_column`"),
        ("a.csv", b"text,n\nhello, world,1\n", "line 2: 3 cells under 2 columns; quote cells that hold the separator"),
        ("a.csv", b'text\n"never closed\nb\n', "line 3: malformed table (unexpected end of data); check its quotes"),
        ("a.parquet", b"PAR1 no more", "not a readable Parquet file (Parquet magic"),
    ],
)
def test_content_errors_name_the_place_and_the_way_out(tmp_path, name, content, expected):
    path = write(tmp_path / name, content)
    message = read_error(path)
    assert message.startswith(path)
    assert expected in message


def test_parquet_columns_of_another_name_or_type(tmp_path):
    path = write_parquet(tmp_path / "a.parquet", body=["a"], n=[True])
    assert "no column 'text' among its columns (body, n)" in read_error(path)
    assert f"{path}, row 1: expected a text, found bool in 'n'" in read_error(path, text_column="n")


@pytest.mark.parametrize("wrong", [None, 3, b"x", ["a"]])
def test_an_item_in_memory_that_is_no_string_is_named(wrong):
    with pytest.raises(UserError, match=r"^texts\[1\] is .*, not a string: give a list of strings\.$"):
        Corpus.from_texts(["a", wrong])


def test_texts_before_an_error_are_read(tmp_path):
    corpus = open_corpus(write(tmp_path / "a.jsonl", '{"text": "one"}\noops'))
    assert list(itertools.islice(corpus, 1)) == ["one"]


# Sampling

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=3))


@given(texts=TEXTS, size=st.none() | st.integers(0, 20), seed=st.integers(-(2**63), 2**63 - 1), random=st.randoms())
def test_sample_has_its_size_holds_no_duplicate_and_is_repeatable(texts, size, seed, random):
    drawn = sample(texts, size, seed)
    distinct = set(texts)
    assert len(drawn) == (len(distinct) if size is None else min(size, len(distinct)))
    assert len(set(drawn)) == len(drawn)
    assert set(drawn) <= distinct
    assert drawn == sample(iter(texts), None, seed)[: len(drawn)]  # a smaller one begins a larger one
    random.shuffle(texts)
    assert drawn == sample(texts + texts, size, seed)


def test_sample_is_uniform_over_distinct_texts_and_places():
    texts = [*"aaaaabcdef"]
    draws = [sample(texts, 2, seed) for seed in range(3000)]
    for place in (0, 1):
        counts = Counter(draw[place] for draw in draws)
        assert set(counts) == set("abcdef")
        assert all(abs(count - 500) < 100 for count in counts.values())  # 5 standard deviations


def test_sample_memory_is_bounded_by_its_size():
    tracemalloc.start()
    drawn = sample((f"text {i} " * 20 for i in range(20_000)), 10, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(drawn) == 10
    assert peak < 100_000
