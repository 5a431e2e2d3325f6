"""The docstrings of the installed libraries as a labelled collection."""

import sys
from types import ModuleType

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2token.data import docstrings
from text2token.data.docstrings import Docstring, installed_docstrings
from text2token.training.demo import QUESTIONS

BODY = "It joins the given parts, one behind the other, into a whole; their order is kept as it was, {} or not."


def function(name, thing, module="made", docstring=None):
    def made():
        pass

    made.__doc__ = docstring or f"Join the parts into {thing}.\n\n    {BODY.format(thing)}\n    "
    made.__name__, made.__module__ = name, module
    return made


@pytest.fixture
def rows_of(monkeypatch):
    """Make a package ``made`` of modules with these members the only one that is read."""

    def read(**modules):
        for name, members in modules.items():
            module = ModuleType("made" if name == "root" else f"made.{name}")
            vars(module).update(members)
            monkeypatch.setitem(sys.modules, module.__name__, module)
        sys.modules["made"].__path__ = []
        found = [type("Found", (), {"name": name}) for name in modules if name != "root"]
        monkeypatch.setattr(docstrings, "iter_modules", lambda _: found)
        monkeypatch.setattr(docstrings, "PACKAGES", ("made", "not_installed_anywhere"))
        return installed_docstrings()

    return read


def test_public_functions_and_classes_are_found_under_their_shortest_name(rows_of):
    shared = function("shared", "a shared thing")
    rows = rows_of(
        root={"shared": shared, "_private": function("_private", "a private thing"), "number": 1},
        part={"shared": shared, "Thing": type("Thing", (), {"__doc__": function("x", "a class").__doc__, "__module__": "made"})},
        _hidden={"inner": function("inner", "an inner thing")},
        tests={"tested": function("tested", "a tested thing")},
    )  # fmt: skip
    assert [row.name for row in rows] == ["made.part.Thing", "made.shared"]
    assert rows[1] == Docstring("made.shared", "Join the parts into a shared thing.", BODY.format("a shared thing"))


def test_aliases_and_objects_of_other_packages_are_left_out(rows_of):
    alias = function("original", "an original thing")
    rows = rows_of(
        root={"alias": alias, "original": alias, "foreign": function("foreign", "a foreign thing", "elsewhere")}
    )
    assert [row.name for row in rows] == ["made.original"]


def test_a_declared_all_decides(rows_of):
    members = {name: function(name, f"the thing {name}") for name in ("told", "untold")}
    assert [row.name for row in rows_of(root={**members, "__all__": ["told", "gone"]})] == ["made.told"]


@pytest.mark.parametrize(
    ("docstring", "found"),
    [
        (f"f(x, y)\n\nJoin the parts into one.\n\n{BODY}", ("Join the parts into one.", BODY)),
        (f"Join the parts into one.\n\nNotes\n-----\n{BODY}\n\n>>> join(1)\n2\n", ("Join the parts into one.", f"Notes {BODY}")),
        (f"Join the parts.\n\n{BODY}", None),  # a summary of three words says too little
        ("Join the parts into one.\n\nToo short.", None),
        ("Соедини части в одно целое.\n\n" + "Она соединяет части одну за другой. " * 5, None),
        (None, None),
    ],
)  # fmt: skip
def test_summary_and_body(rows_of, docstring, found):
    made = function("made", "x")
    made.__doc__ = docstring
    assert [(row.summary, row.body) for row in rows_of(root={"made": made})] == ([found] if found else [])


@given(st.text())
def test_any_docstring_is_split(text):
    summary, body = docstrings._split(text)
    assert "\n" not in summary + body


def test_the_installed_libraries_hold_the_answers_to_the_questions_of_the_demo():
    rows = installed_docstrings()
    assert len(rows) >= 1_000
    assert all(
        len(set(column)) == len(rows) for column in zip(*((r.name, r.summary, r.body) for r in rows), strict=True)
    )
    assert set(QUESTIONS.values()) <= {row.name for row in rows}
