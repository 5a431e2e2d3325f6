"""A user's own folders become tasks: formats, empty rows, labels and judgements."""

from __future__ import annotations

import gzip
import json
import warnings

import hypothesis
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from conftest import CORPUS, write_lines, write_search
from text2token import UserError
from text2token.evaluation import bm25_model, evaluate, read_qrels, select_tasks


def broken(folder, name, change):
    write_search(folder)
    file = folder / name
    file.write_text(change(file.read_text()))
    return folder


@pytest.mark.parametrize(
    ("name", "change", "sentence"),
    [
        ("qrels/test.tsv", lambda text: text + "q1\t1\t0.5\n", "line 26.*whole number"),
        ("qrels/test.tsv", lambda text: text + "q1\t1\n", "line 26: expected query, document and a whole number"),
        ("qrels/test.tsv", lambda text: "q1\t1\t1.5\n" + text, "line 1: expected .* a whole number"),
        ("qrels/test.tsv", lambda text: text + "q1\t\t1\n", "line 26: the id of the document is empty"),
        ("qrels/test.tsv", lambda text: text + "\0\t1\t1\n", "line 26: the id of the query is empty"),
        ("queries.jsonl", lambda text: text.replace('"_id": "q2"', '"_id": [2]'), "line 3"),
        ("qrels/test.tsv", lambda text: text.partition("\n")[0], "has no judgements"),
        ("queries.jsonl", lambda text: "", "There is no query with text in"),
        ("qrels/test.tsv", lambda text: text.replace("q", "Q"), "judgements only of queries that do not exist"),
        ("corpus.jsonl", lambda text: text + text.split("\n")[0], "line 121: the id '0' is there a second time"),
        ("corpus.jsonl", lambda text: text + '{"_id": 999, "text": [1]}', "line 121"),
        ("corpus.jsonl", lambda text: text + "{\n", "line 121: malformed JSON"),
    ],
)
def test_a_broken_search_folder_is_one_sentence(tmp_path, name, change, sentence):
    with pytest.raises(UserError, match=sentence):
        select_tasks(folders=[broken(tmp_path / "search", name, change)])


@pytest.mark.parametrize(
    ("row", "note"),
    [
        ("q1\tnowhere\t1\n", "judgements name documents that do not exist .1, for example 'nowhere'"),
        ("q99\t1\t1\n", "judgements name queries that do not exist .1, for example 'q99'"),
    ],
)
def test_judgements_of_what_does_not_exist_score_as_in_mteb(tmp_path, row, note):
    folder = broken(tmp_path / "search", "qrels/test.tsv", lambda text: text + row)
    with pytest.warns(UserWarning, match=note):
        selection = select_tasks(folders=[folder])
    score = evaluate(bm25_model(), selection, tmp_path / "r")["tasks"][0]["score"]
    other = evaluate(bm25_model(), select_tasks(folders=[write_search(tmp_path / "whole")]), tmp_path / "w")
    whole = other["tasks"][0]["score"]
    assert score < whole if "nowhere" in row else score == whole


def test_characters_that_end_lines_elsewhere_and_titles_that_are_numbers_are_taken(tmp_path):
    folder = write_search(tmp_path / "search")
    document = {"_id": "odd", "title": 1984, "text": "one\u2028line\x85still"}
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(json.dumps(document, ensure_ascii=False) + "\n")
    (task,) = select_tasks(folders=[folder]).tasks
    (data,) = (split["test"] for split in task.dataset.values())
    assert data["corpus"][len(CORPUS)] == {"id": "odd", "title": "1984", "text": "one\u2028line\x85still"}


GOOD_PAIR = {"sentence1": "a", "sentence2": "b"}


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{**GOOD_PAIR, "score": 1.0}] * 3, "numbers, and not all the same"),
        ([{**GOOD_PAIR, "score": "high"}, {**GOOD_PAIR, "score": "low"}], "numbers, and not all the same"),
        ([{**GOOD_PAIR, "score": True}, {**GOOD_PAIR, "score": None}], "line 2: the column 'score' is empty"),
        ([{**GOOD_PAIR, "score": 1}, {**GOOD_PAIR, "score": 10**400}], "must be numbers"),
        ([{**GOOD_PAIR, "label": n} for n in range(3)], "must have two different labels, found '0', '1', '2'"),
        ([{**GOOD_PAIR, "label": 0.5}] * 3, "label 0.5 .* is not a whole number or a word"),
        ([{**GOOD_PAIR, "label": {"a": 1}}] * 3, "is not a whole number or a word"),
        ([{**GOOD_PAIR, "label": [1, 2]}] * 3, "needs one label a row"),
        ([{"text": "a", "label": [1, 2]}] * 3, "Clustering needs one label per text"),
        (
            [{"text": "a", "label": "pos"}, {"text": "a", "label": " "}],
            "line 2: the column 'label' is empty: fill it in",
        ),
        ([{"text": "a", "label": [1, ""]}] * 3, "line 1: the column 'label' is empty: fill it in"),
        ([{"text": "a", "label": [1, None]}] * 3, "line 1: the column 'label' is empty: fill it in"),
        ([{"text": " ", "label": 1}] * 3, "has no rows with text"),
        ([{**GOOD_PAIR, "label": 1}] * 3, "All labels of .* are '1'"),
        ([{**GOOD_PAIR, "score": 1}, {**GOOD_PAIR, "score": float("nan")}], "column 'score' is empty|must be numbers"),
        ([{"text": "a", "label": 2}] * 9, "All labels of .* are '2'"),
    ],
)
def test_a_broken_table_is_one_sentence(tmp_path, rows, sentence):
    write_lines(tmp_path / "task" / "test.jsonl", rows)
    with pytest.raises(UserError, match=sentence):
        select_tasks(folders=[tmp_path / "task"])


def test_two_tasks_of_one_name_are_refused(tmp_path):
    folders = [write_search(tmp_path / parent / "search") for parent in "ab"]
    with pytest.raises(UserError, match="Two tasks are named 'search'"):
        select_tasks(folders=folders)


def test_a_folder_cannot_have_the_name_of_a_task_of_the_benchmark(tmp_path):
    with pytest.raises(UserError, match="has the name of a task of MTEB"):
        select_tasks(folders=[write_search(tmp_path / "STSBenchmark")])


def load(folder, **options):
    (task,) = select_tasks(folders=[folder], **options).tasks
    return task


def split_of(task):
    (data,) = (split["test"] for split in task.dataset.values())
    return data


ROWS = [("q0", "7", 1), ("q0", "8", 2), ("q1", "9", -1)]
QRELS = {
    "with a header": "query-id\tcorpus-id\tscore\n" + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in ROWS),
    "without": "".join(f"{q}\t{d}\t{s}\n" for q, d, s in ROWS),
    "the first grade is negative": "".join(f"{q}\t{d}\t{s}\n" for q, d, s in ROWS[::-1]),
    "TREC": "".join(f"{q} 0 {d} {s}\n" for q, d, s in ROWS),
    "spaces": "".join(f"{q} {d}  {s}\n" for q, d, s in ROWS),
    "floats": "".join(f"{q}\t{d}\t{s}.0\n" for q, d, s in ROWS),
    "a tab at the end": "".join(f"{q}\t{d}\t{s}\t\r\n" for q, d, s in ROWS),
    "a byte order mark": "\ufeff" + "".join(f"{q}\t{d}\t{s}\n" for q, d, s in ROWS),
}


@pytest.mark.parametrize("form", QRELS)
def test_judgements_are_read_in_every_common_form(tmp_path, form):
    (tmp_path / "test.tsv").write_text(QRELS[form], encoding="utf-8")
    assert read_qrels(tmp_path / "test.tsv") == {"q0": {"7": 1, "8": 2}, "q1": {"9": -1}}


def test_judgements_in_other_tables_are_read(tmp_path):
    rows = [{"query-id": query, "corpus-id": int(document), "score": score} for query, document, score in ROWS]
    write_lines(tmp_path / "test.jsonl", rows)
    assert read_qrels(tmp_path / "test.jsonl") == {"q0": {"7": 1, "8": 2}, "q1": {"9": -1}}


def test_rows_without_text_are_skipped_and_counted_or_refused(tmp_path, caplog):
    folder = write_search(tmp_path / "search")
    with (folder / "corpus.jsonl").open("a") as file:
        file.write(
            '{"_id": "title only", "title": "A title", "text": ""}\n{"_id": "none", "title": NaN, "text": null}\n'
        )
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "silent", "title": "A title", "text": " "}\n')
    with (folder / "qrels" / "test.tsv").open("a") as file:
        file.write("silent\t1\t1\n")
    data = split_of(load(folder))
    assert [message.partition(" in ")[0] for message in caplog.messages] == [
        "Skipped 1 document without text",
        "Skipped 1 query without text",
    ]
    assert data["corpus"]["id"][-1] == "title only"
    assert "silent" not in data["queries"]["id"]
    assert "silent" not in data["relevant_docs"]
    with pytest.raises(UserError, match="without text"):
        load(folder, strict=True)


def test_compressed_files_are_read(tmp_path):
    folder = write_search(tmp_path / "search")
    plain = split_of(load(folder))
    for name in ("corpus.jsonl", "queries.jsonl", "qrels/test.tsv"):
        file = folder / name
        file.with_name(f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
        file.unlink()
    found = split_of(load(folder))
    assert found["relevant_docs"] == plain["relevant_docs"]
    assert found["corpus"]["text"] == plain["corpus"]["text"]


def test_words_that_mean_missing_elsewhere_are_words(tmp_path):
    words = ["None", "NA", "null", "nan", "007"]
    for suffix in ("csv", "jsonl"):
        folder = tmp_path / suffix
        folder.mkdir()
        for split in ("train", "test"):
            if suffix == "csv":
                rows = "".join(f"{word},{word}\n" for word in words)
                (folder / f"{split}.csv").write_text("text,label\n" + rows)
            else:
                write_lines(folder / f"{split}.jsonl", [{"text": word, "label": word} for word in words])
        task = load(folder)
        assert task.dataset["test"]["text"] == words
        assert len(set(task.dataset["test"]["label"])) == len(words)


@pytest.mark.parametrize(
    ("labels", "codes"),
    [
        (["pos", "neg", "pos"], [1, 0, 1]),
        (["1", "0", "1"], [1, 0, 1]),
        ([3, 2, 3], [1, 0, 1]),
        ([7.0, 10, 7], [0, 1, 0]),
        ([True, False, True], [1, 0, 1]),
        (["7.0", "007", "7"], [0, 1, 0]),
        (["pos ", "neg", "pos"], [1, 0, 1]),
        (["caf\u00e9", "b", "cafe\u0301"], [1, 0, 1]),
        ([10, 9, "word"], [1, 0, 2]),
    ],
)
def test_labels_become_their_places_in_sorted_order(tmp_path, labels, codes):
    rows = [{"text": f"text {place}", "label": label} for place, label in enumerate(labels)]
    for split in ("train", "test"):
        write_lines(tmp_path / "task" / f"{split}.jsonl", rows)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        task = load(tmp_path / "task")
    assert task.dataset["train"]["label"] == task.dataset["test"]["label"] == codes
    said = [str(note.message) for note in notes]
    plain = set(codes) != {0, 1} or set(map(str, labels)) <= {"0", "1", "True", "False"}
    assert len(said) == (0 if plain else 1)
    assert all("counts as 0" in sentence for sentence in said)


def test_train_and_test_share_the_places_of_labels(tmp_path):
    write_lines(tmp_path / "task" / "train.jsonl", [{"text": t, "label": t} for t in "abc"])
    write_lines(tmp_path / "task" / "test.jsonl", [{"text": t, "label": t} for t in "bc"])
    task = load(tmp_path / "task")
    assert task.dataset["train"]["label"] == [0, 1, 2]
    assert task.dataset["test"]["label"] == [1, 2]


@pytest.mark.parametrize("shared", ["text", "number"])
def test_a_query_that_is_a_document_does_not_find_itself(tmp_path, shared):
    """As in ArguAna. Where ids are numbers that collide, documents are found as ever."""
    folder = write_search(tmp_path / "search")
    texts = CORPUS[:12] if shared == "text" else CORPUS[1:13]
    write_lines(folder / "queries.jsonl", [{"_id": str(i), "text": text} for i, text in enumerate(texts)])
    (folder / "qrels" / "test.tsv").write_text("".join(f"{i}\t{i + 1}\t1\n" for i in range(12)))
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        task = load(folder)
    assert task.ignore_identical_ids == (shared == "text")
    assert any("own document is left out" in str(note.message) for note in notes) == (shared == "text")
    evaluate(bm25_model(), select_tasks(folders=[folder]), tmp_path / "r")  # mteb's score and ours agree, or it fails


def test_queries_without_judgements_are_left_out(tmp_path):
    folder = write_search(tmp_path / "search")
    with (folder / "queries.jsonl").open("a") as file:
        file.write('{"_id": "unjudged", "text": "words"}\n')
    assert "unjudged" not in split_of(load(folder))["queries"]["id"]


def test_lists_of_labels_are_multi_label_classification(tmp_path):
    rows = [{"text": text, "label": [i % 3, "x"] if i % 2 else [i % 3]} for i, text in enumerate(CORPUS)]
    for split in ("train", "test"):
        write_lines(tmp_path / "many" / f"{split}.jsonl", rows)
    task = load(tmp_path / "many")
    assert task.metadata.type == "MultilabelClassification"
    assert task.dataset["test"]["label"][:2] == [[0], [1, 3]]


WILD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.lists(st.integers(), max_size=2)
)


@given(
    st.lists(
        st.fixed_dictionaries({}, optional=dict.fromkeys(("sentence1", "sentence2", "text", "score", "label"), WILD))
    )
)
@hypothesis.settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_wild_rows_make_a_task_or_one_sentence(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("wild") / "task"
    for split in ("train", "test"):
        write_lines(folder / f"{split}.jsonl", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load(folder)
        except UserError as error:
            said = str(error)
        else:
            said = ""
    assert "\n" not in said
