"""A labelled text collection that every installation has: the docstrings of the libraries that text2token needs."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pkgutil import iter_modules
from types import ModuleType

PACKAGES = ("numpy", "pandas", "scipy", "sklearn", "sklearn.metrics", "torch")
"""Each is read together with the public modules directly in it."""
_HIDDEN = {
    "tests", "testing", "conftest", "matlib", "distutils", "f2py",
    "externals", "utils", "onnx", "distributed", "compiler",
}  # fmt: skip
_MIN_SUMMARY_WORDS, _MIN_BODY_WORDS = 4, 20
_ENGLISH_ASCII_SHARE = 0.95  # accepts a few accents and symbols, but no text in another alphabet
_SIGNATURE = re.compile(
    r"\A\w+\(.*(?:\n.+)*?\s*\)\s*(?:--|->.*)?[ \t]*\n\s*\n"
)  # a first paragraph that is only the call
_BLANK_LINE = re.compile(r"\n\s*\n")
_EXAMPLE = re.compile(r"^[ \t]*>>>.*(?:\n.*\S.*)*", re.MULTILINE)  # up to a blank line: with what it prints
_UNDERLINE = re.compile(r"^[ \t]*([-=~^*#])\1{2,}[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """The docstring of a public function or class: its first sentence (``summary``) and the rest (``body``)."""

    name: str
    summary: str
    body: str


def installed_docstrings() -> list[Docstring]:
    """Return the English docstrings of the public functions and classes of :data:`PACKAGES`, sorted by name.

    An object that several modules export is called by its shortest name (``numpy.vstack``). No two rows share a summary or a
    body, so that a summary, used as a query, has exactly one right body.
    """
    found = {name: text for package in PACKAGES for module in _modules(package) for name, text in _docstrings(module)}
    rows: list[Docstring] = []
    seen: set[str] = set()
    for name in sorted(found, key=lambda name: (name.count("."), len(name), name)):
        summary, body = _split(found[name])
        if _is_useful(summary, body) and seen.isdisjoint((summary, body)):
            seen.update((summary, body))
            rows.append(Docstring(name, summary, body))
    return sorted(rows, key=lambda row: row.name)


def _modules(package: str) -> Iterator[ModuleType]:
    """A package and the public modules directly in it; nothing if it is not installed."""
    with suppress(ImportError):
        found = iter_modules(importlib.import_module(package).__path__)
        public = [each.name for each in found if not each.name.startswith("_") and each.name not in _HIDDEN]
        for name in (package, *(f"{package}.{name}" for name in public)):
            with suppress(Exception):  # a module may need a package that is not installed, or a device
                yield importlib.import_module(name)


def _docstrings(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Full name and docstring of the functions and classes that a module exports from its own package, without aliases."""
    package = module.__name__.partition(".")[0]
    for name in getattr(module, "__all__", None) or vars(module):
        value = vars(module).get(name)
        is_own = str(getattr(value, "__module__", package)).partition(".")[0] == package
        is_alias = getattr(value, "__name__", name) != name
        if callable(value) and is_own and not is_alias and not name.startswith("_"):
            yield f"{module.__name__}.{name}", inspect.cleandoc(str(value.__doc__ or ""))


def _split(docstring: str) -> tuple[str, str]:
    """Summary and body of a docstring, each in one line, without examples, underlines and repeats of the summary."""
    first, *rest = _BLANK_LINE.split(_SIGNATURE.sub("", docstring), maxsplit=1)
    summary = " ".join(first.split())
    prose = _UNDERLINE.sub("", _EXAMPLE.sub("", "".join(rest)))
    return summary, " ".join(" ".join(prose.split()).replace(summary, "").split())


def _is_useful(summary: str, body: str) -> bool:
    text = summary + body
    return (
        len(summary.split()) >= _MIN_SUMMARY_WORDS
        and len(body.split()) >= _MIN_BODY_WORDS
        and sum(map(str.isascii, text)) >= _ENGLISH_ASCII_SHARE * len(text)
    )
