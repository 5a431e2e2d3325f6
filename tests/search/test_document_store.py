import contextlib

import numpy as np

from text2token.search.store import DocumentStore


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
