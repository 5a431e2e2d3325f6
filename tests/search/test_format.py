"""Indexes of earlier versions open; settings that no longer exist are refused in one sentence."""

from __future__ import annotations

import errno
import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from conftest import SENTENCES
from text2token import Recipe, UserError
from text2token.search import Document, Index
from text2token.settings.search import Calibration, VectorSettings

SAVED = Path(__file__).parents[1] / "saved" / "format-1"


@pytest.fixture
def old(tmp_path):
    shutil.copytree(SAVED / "index", tmp_path / "index")
    return tmp_path / "index"


def change(folder, name, **values):
    with closing(sqlite3.connect(folder / "documents.sqlite")) as connection, connection:
        (stored,) = connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        changed = json.dumps({**json.loads(stored), **values})
        connection.execute("UPDATE facts SET value = ? WHERE name = ?", (changed, name))


def test_settings_of_a_recipe_that_no_longer_exist_do_not_matter(old):
    change(old, "recipe", a_setting_of_yesterday=3, learning_rate="a text")
    settings = Index.open(old).settings
    saved = Calibration(correction="centre+filter", texts=1_000)
    assert (settings.format, settings.vectors, settings.calibration) == (1, VectorSettings(), saved)
    assert settings.encoder["template"] == Recipe().text_template()


@pytest.mark.parametrize(("name", "value"), [("form", "paper"), ("merge_forms", False), ("parts", "sum")])
def test_deleted_settings_with_another_value_are_refused(old, name, value):
    change(old, "settings", **{name: value})
    with pytest.raises(UserError, match=f"was made with {name}={value!r}, a setting that no longer exists"):
        Index.open(old)


def test_an_index_of_a_later_version_is_refused(old):
    change(old, "settings", format=99)
    with pytest.raises(UserError, match="was made by a later version of text2token"):
        Index.open(old)


def test_the_calibration_of_an_index_is_that_of_a_recipe():
    recipe = Recipe()
    expected = (recipe.correction, recipe.keep_from, recipe.keep_to, recipe.calibration_texts)
    assert tuple(Calibration().model_dump().values()) == expected


def test_documents_are_added_to_an_index_of_format_1_and_deleted(old):
    index = Index.open(old, model=str(SAVED / "fit"))
    before = [(hit.id, hit.score) for hit in index.search("cat").hits]
    (document,) = index._store.documents([before[0][0]]).values()
    index.delete([document.id])
    assert document.id not in {hit.id for hit in index.search("cat").hits}
    index.add([document])
    again = Index.open(old, model=str(SAVED / "fit"))
    assert [(hit.id, pytest.approx(hit.score, abs=1e-6)) for hit in again.search("cat").hits] == before


def test_an_index_of_format_1_that_may_not_be_written_is_searched(old, monkeypatch):
    expected = Index.open(shutil.copytree(old, old.with_name("copy")), model=str(SAVED / "fit")).search("cat").hits
    monkeypatch.setattr("text2token.search.store.os.access", lambda *_: False)
    assert Index.open(old, model=str(SAVED / "fit")).search("cat").hits == expected
    assert expected


def test_a_full_disk_during_an_addition_leaves_the_index_intact(old):
    index = Index.open(old, model=str(SAVED / "fit"))
    before = index.search("cat").hits
    (pages,) = index._store._connection.execute("PRAGMA page_count").fetchone()
    index._store._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [Document(f"n{i}", "", f"{SENTENCES[i % 10]} {i}" * 20) for i in range(300)]
    with pytest.raises(
        UserError, match=r"is full\. The index is intact and can be searched: free some space and repeat"
    ):
        index.add(many)
    again = Index.open(old, model=str(SAVED / "fit"))
    assert again.search("cat").hits == before
    assert again.add(many) == 300


def test_a_full_disk_while_vectors_are_written_loses_nothing(old, monkeypatch):
    index = Index.open(old, model=str(SAVED / "fit"))
    before = index.search("cat").hits

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("text2token.search.engines.segment.np.save", full)
        with pytest.raises(UserError, match="The index is intact"):
            index.add([Document("new", "", "One more cat.")])
    again = Index.open(old, model=str(SAVED / "fit"))
    assert [hit.id for hit in again.search("cat").hits] == [hit.id for hit in before]
    assert again.add([]) == 1
