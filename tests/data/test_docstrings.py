import sys
from importlib.metadata import PathDistribution, distribution

import pytest
from hypothesis import given
from hypothesis import strategies as st

from text2token.data import docstrings
from text2token.data.docstrings import Docstring, installed_docstrings

BODY = "It joins the given parts, one behind the other, into a whole; their order is kept as it was, {} or not."


def docstring(thing: str, quotes: str = '"""') -> str:
    return f"{quotes}Join the parts into {thing}.\n\n    {BODY.format(thing)}\n    {quotes}"


def function(name: str, thing: str) -> str:
    return f"def {name}(x):\n    {docstring(thing)}\n\n"


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Make a set of files the only installed distribution, and read its docstrings."""

    def run(files: dict[str, str | bytes]) -> list[Docstring]:
        for name, source in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source if isinstance(source, bytes) else source.encode())
        info = tmp_path / "demo-1.dist-info"
        info.mkdir()
        (info / "RECORD").write_text("".join(f"{name},,\n" for name in [*files, "deleted.py", "../../bin/run.py"]))
        monkeypatch.setattr(docstrings, "distributions", lambda: [PathDistribution(info)])
        return installed_docstrings()

    return run


def names(rows: list[Docstring]) -> list[str]:
    return [row.name for row in rows]


# What is found


def test_functions_and_classes_at_top_level(install):
    source = f"""'''Module docstrings belong to no definition.'''

@decorated(1)
def plain(x: str = "a", *rest) -> None:
    {docstring("a plain thing")}
    return None

async def awaited(
    x,  # a comment: with a colon
    y={{"b": 1}},
):
    {docstring("an awaited thing", quotes="'''")}

class Thing(Base):
    r{docstring("a class")}

    def method(self):
        {docstring("a method")}

class Bare:
    def method(self):
        {docstring("a method of a bare class")}

def without():
    return {docstring("no docstring")}

def _private():
    {docstring("a private thing")}

if True:
    def nested():
        {docstring("a nested thing")}
"""
    assert install({"demo.py": source}) == [
        Docstring("demo.Thing", "Join the parts into a class.", BODY.format("a class")),
        Docstring("demo.awaited", "Join the parts into an awaited thing.", BODY.format("an awaited thing")),
        Docstring("demo.plain", "Join the parts into a plain thing.", BODY.format("a plain thing")),
    ]


def test_private_modules_tests_and_scripts_are_left_out(install):
    paths = ["_hidden.py", "demo/_impl.py", "_demo/api.py", "demo/tests/help.py", "test/help.py", "demo/test_help.py"]
    paths += ["demo/conftest.py", "demo/data-files/x.py", "demo/testing.py", "demo/help.pyi"]
    assert names(install({path: function("f", path) for path in paths})) == ["demo.testing.f"]


def test_a_re_exported_name_goes_by_its_shortest_public_path(install):
    files = {
        "demo/__init__.py": "if SETUP:\n    pass\nelse:\n    from ._core import stack, pile as heap, Missing\n"
        "from .wide import *\n",
        "demo/wide/__init__.py": "from .far import *\n",
        "demo/wide/far/__init__.py": "from .module import *\n",
        "demo/wide/far/module.py": "__all__ = (\n    'sea',  # only\n)\n"
        + function("sea", "a sea")
        + function("bay", "a bay"),
        "demo/_core/__init__.py": "from .shape import *\nfrom ._more import pile\n",
        "demo/_core/shape.py": "__all__ = ['stack']\n" + function("stack", "a stack") + function("helper", "nothing"),
        "demo/_core/_more.py": function("pile", "a pile"),
        "demo/deep/__init__.py": "from demo.deep.module import *\nfrom .... import beyond\nfrom . import module\n",
        "demo/deep/module.py": function("dig", "a hole") + function("_dig", "a private hole"),
        "demo/api.py": "from ._core import stack\n",
        "other/__init__.py": "from demo._core._more import pile\n\ndef lazy():\n    from .x import late\n",
        "other/x.py": function("late", "a late thing"),
    }
    assert names(install(files)) == [
        "demo.deep.dig",
        "demo.heap",
        "demo.sea",
        "demo.stack",
        "demo.wide.far.module.bay",
        "other.x.late",
    ]


def test_imports_in_a_circle_end(install):
    files = {
        "demo/__init__.py": "from .a import *\nfrom .a import ghost\n",
        "demo/a.py": "from .b import *\nfrom .b import ghost\n",
        "demo/b.py": "from .a import *\nfrom .a import ghost\n" + function("real", "a real thing"),
    }
    assert names(install(files)) == ["demo.b.real"]


def test_no_two_rows_share_a_summary_or_a_body(install):
    files = {
        "demo/a.py": function("f", "a thing") + function("g", "another thing"),
        "demo/b.py": function("f", "a thing"),
        "demo/c.py": function("f", "a thing").replace("into a whole", "in another way"),
        "demo/d.py": function("f", "a thing").replace("Join the parts", "With other words, join"),
    }
    assert names(install(files)) == ["demo.a.f", "demo.a.g"]


def test_broken_sources_cost_only_themselves(install):
    files = {
        "demo/bytes.py": b"\xff\xfe\x00def f():\n    '''open",
        "demo/half.py": function("whole", "a whole thing") + 'def broken(:\n    """Never closed',
        "demo/latin.py": function("f", "café").encode("latin-1"),
        "demo/escape.py": function("f", r"a \d thing"),
        "demo/empty.py": "",
    }
    assert names(install(files)) == ["demo.escape.f", "demo.half.whole", "demo.latin.f"]


# What a row says


def row_of(install, text: str) -> Docstring | None:
    rows = install({"demo.py": f"def f():\n    r'''{text}'''\n"})
    return rows[0] if rows else None


def test_markup_is_stripped(install):
    row = row_of(
        install,
        """Join the parts
        into one.

        Parameters
        ----------
        x : the parts, which may be of
            any   kind

        Examples
        ========
        >>> f(1,
        ...   2)
        array([1, 2])

        This joins the parts into one. Join the parts into one. More words follow so that the body is long enough.
        """,
    )
    assert row == Docstring(
        "demo.f",
        "Join the parts into one.",
        "Parameters x : the parts, which may be of any kind Examples "
        "This joins the parts into one. More words follow so that the body is long enough.",
    )


@pytest.mark.parametrize("call", ["f(a, b=1)", "f(\n        a,\n        b=(1, 2),\n    )\n    --"])
def test_a_first_paragraph_that_only_repeats_the_call_is_no_summary(install, call):
    assert row_of(install, f"{call}\n\n    Join the parts.\n    Now.\n\n    {BODY}").summary == "Join the parts. Now."


@pytest.mark.parametrize(
    "text",
    [
        f"Join three parts.\n\n{BODY}",  # summary of 3 words
        "Join all the parts.\n\n" + "word " * 19,
        "Join all the parts.\n\n" + "word " * 16 + "Join all the parts.",  # 20 words but for the repeat
        "Join all the parts. " + "word " * 30,  # no body
        "Соединить все данные части.\n\n" + "слово " * 30,
        "",
    ],
)
def test_short_or_foreign_docstrings_are_left_out(install, text):
    assert row_of(install, text) is None


def test_limits_are_inclusive_and_an_accent_is_english(install):
    assert row_of(install, "Join the naïve parts.\n\n" + "word " * 20).body == ("word " * 20).strip()


@given(st.text(max_size=200))
def test_any_docstring_splits_into_two_single_lines(text):
    summary, body = docstrings._split(text)
    assert summary == " ".join(summary.split())
    assert body == " ".join(body.split())


# This environment


def test_real_packages_are_read_and_not_imported(monkeypatch):
    packages = [distribution(name) for name in ("numpy", "scipy", "torch", "networkx")]
    monkeypatch.setattr(docstrings, "distributions", lambda: packages)
    loaded = set(sys.modules)
    rows = installed_docstrings()
    assert set(sys.modules) == loaded
    by_name = {row.name: row for row in rows}
    assert len(rows) > 3000
    assert list(by_name) == sorted(by_name)
    assert by_name["numpy.vstack"].summary == "Stack arrays in sequence vertically (row wise)."
    assert {"numpy.linalg.norm", "torch.nn.Linear", "scipy.sparse.csr_matrix", "networkx.pagerank"} <= set(by_name)
    assert len({row.summary for row in rows}) == len({row.body for row in rows}) == len(rows)
    assert not any(part.startswith("_") for name in by_name for part in name.split("."))
