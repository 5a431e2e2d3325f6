import contextlib

import numpy as np
import pytest
from scipy.sparse import csr_array

from text2token.search import Document
from text2token.search.store import DocumentStore
from text2token.utils.errors import UnavailableError


def test_totals_follow_changes_of_any_connection_and_forget_what_was_rolled_back(tmp_path):
    one, other = DocumentStore(tmp_path / "a.sqlite"), DocumentStore(tmp_path / "a.sqlite")
    assert one.totals(2).documents == 0
    other.set(documents=3)
    other.count_words({"cat": 1, "dog": 1})
    other.count_columns(np.array([2, 1]))
    documents, words, columns = one.totals(2)
    assert (documents, words, columns.tolist()) == (3, 3, [2, 1])
    one.set(documents=4)
    assert one.totals(2).documents == 4
    with contextlib.suppress(KeyError), one.transaction():
        one.set(documents=9)
        assert one.totals(2).documents == 9
        raise KeyError
    assert one.totals(2).documents == 4
    assert one.totals(2).columns is one.totals(2).columns


def test_an_index_of_an_earlier_version_that_may_not_be_written_has_its_documents(tmp_path, monkeypatch):
    store = DocumentStore(tmp_path / "a.sqlite")
    store.put([Document("1", "", "A cat.")])
    store.mark_encoded(["1"], csr_array([[0.0, 0.5]], dtype=np.float32))
    store._connection.execute("DROP TABLE replaced")
    store.close()
    monkeypatch.setattr("text2token.search.store.os.access", lambda *_: False)
    store = DocumentStore(tmp_path / "a.sqlite")
    assert store.found(["1"])["1"].text == "A cat."
    assert store.vector("1") == {1: 0.5}


def test_a_file_that_another_process_writes_under_a_reader_of_a_read_only_folder(tmp_path, monkeypatch):
    documents = [Document(str(i), "", f"A cat and {i} dogs. " * 20) for i in range(4_000)]
    writer = DocumentStore(tmp_path / "a.sqlite")
    writer.put(documents)
    writer.close()
    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.store.os.access", lambda *_: False)
        reader, lone = DocumentStore(tmp_path / "a.sqlite"), DocumentStore(tmp_path / "a.sqlite")
    assert reader.documents(["7"]) == {"7": documents[7]}
    writer = DocumentStore(tmp_path / "a.sqlite")
    writer.put(Document(document.id, "", "A zebra. " * 60) for document in documents)
    writer.close()
    for read in (
        lambda: reader.documents(["7"]),
        lambda: reader.sample(3),
        lambda: reader.words(["cat"]),
        lambda: reader.vector("7"),
        lambda: reader.totals(2),
        lambda: lone.documents([document.id for document in documents]),
    ):
        with pytest.raises(UnavailableError, match=r"Another process has changed the index in '.*': open it again"):
            read()


def test_the_vector_of_an_old_text_is_no_lesson_for_the_new_one(tmp_path):
    store = DocumentStore(tmp_path / "a.sqlite")
    store.put([Document("1", "", "A cat.")])
    store.keep_lessons(["1"], np.ones((1, 2), np.float32))
    assert store.lessons()[0] == ["A cat."]
    store.put([Document("1", "", "A dog.")])
    assert store.lessons()[0] == []
