"""Indexes of earlier versions open; settings that no longer exist are refused in one sentence."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from text2token import Recipe, UserError
from text2token.search import Index
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
    assert (settings.format, settings.vectors, settings.calibration) == (1, VectorSettings(), Calibration())
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
    assert [(hit.id, pytest.approx(hit.score)) for hit in again.search("cat").hits] == before
