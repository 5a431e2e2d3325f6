"""A labelled text collection that every Python environment has: the docstrings of its installed packages."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import distributions
from importlib.util import resolve_name
from itertools import pairwise
from pathlib import Path, PurePath

_MIN_SUMMARY_WORDS, _MIN_BODY_WORDS = 4, 20
_ENGLISH_ASCII_SHARE = 0.95  # lets the odd accent or symbol through, no text in another alphabet

_DOCUMENTABLE = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
_DEFINITION = re.compile(r"^(?:async def|def|class) +([A-Za-z]\w*)", re.MULTILINE)
_TRIPLE_QUOTED = re.compile(r"(\"\"\"|''').*?\1", re.DOTALL)
_DECLARED_ALL = re.compile(r"^__all__[^=\n]*= *[\[(][^\])]*", re.MULTILINE)
_QUOTED_NAME = re.compile(r"[\"']([A-Za-z]\w*)[\"']")
_SIGNATURE = re.compile(r"\A\w+\(.*(?:\n.+)*?\s*\)\s*(?:--)?[ \t]*\n\s*\n")  # a first paragraph that is only the call
_BLANK_LINE = re.compile(r"\n\s*\n")
_EXAMPLE = re.compile(r"^[ \t]*>>>.*(?:\n.*\S.*)*", re.MULTILINE)  # up to a blank line: with what it prints
_UNDERLINE = re.compile(r"^[ \t]*([-=~^*#])\1{2,}[ \t]*$", re.MULTILINE)


@dataclass(frozen=True)
class Docstring:
    """What a public function or class does, in a line (``summary``) and at length (``body``)."""

    name: str
    summary: str
    body: str


def installed_docstrings() -> list[Docstring]:
    """English docstrings of the public functions and classes of all installed packages, sorted by name.

    Sources are read, nothing is imported. A definition that a package re-exports goes by its shortest public name
    (``numpy.vstack`` lives in ``numpy._core.shape_base``). No two rows share a summary or a body: a summary, used as
    a query, has one right body.
    """
    environment = _Environment(_installed_modules())
    found = {
        f"{module.name}.{name}": docstring
        for module in environment.modules.values()
        if _is_public(module.name)  # the others are read only where a public one imports from them
        for name, docstring in environment.docstrings(module).items()
    }
    rows: list[Docstring] = []
    seen: set[str] = set()
    for name in sorted(filter(_is_public, found), key=lambda name: (name.count("."), name)):
        summary, body = _split(found[name])
        if _is_useful(summary, body) and seen.isdisjoint((summary, body)):
            seen.update((summary, body))
            rows.append(Docstring(name, summary, body))
    return sorted(rows, key=lambda row: row.name)


@dataclass(frozen=True)
class _Import:
    """``from module import name as alias``; both are "*" where all is imported."""

    module: str
    name: str
    alias: str


@dataclass(frozen=True)
class _Module:
    """The source of one installed module, read when first asked for."""

    name: str
    path: Path

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @cached_property
    def definitions(self) -> dict[str, str]:
        """Name → docstring (empty: none) of the top-level functions and classes."""
        return dict(_definitions(self._read()))

    @cached_property
    def imports(self) -> list[_Import]:
        """Of names from within the same top-level package, outside functions."""
        return list(_imports(self._read(), self.name if self.is_package else self.name.rpartition(".")[0]))

    @cached_property
    def declared(self) -> set[str]:
        """Names in a plain ``__all__``."""
        found = _DECLARED_ALL.search(self._read())
        return set(_QUOTED_NAME.findall(found[0])) if found else set()

    def _read(self) -> str:
        with suppress(OSError):  # listed by the installer, deleted since
            return self.path.read_text(encoding="utf-8", errors="replace")
        return ""


def _installed_modules() -> dict[str, _Module]:
    """Every installed module outside test folders, sorted by name."""
    modules = {}
    for distribution in distributions():
        for file in distribution.files or ():
            parts = file.with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if file.suffix == ".py" and not _is_test(file) and all(map(str.isidentifier, parts)):
                name = ".".join(parts)
                modules[name] = _Module(name, Path(str(file.locate())))
    return dict(sorted(modules.items()))


def _is_test(file: PurePath) -> bool:
    return not {"test", "tests"}.isdisjoint(file.parts) or file.stem == "conftest" or file.stem.startswith("test_")


def _is_public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


@dataclass
class _Environment:
    """Lookup of docstrings by the names that modules give to them; an empty docstring stands for none."""

    modules: Mapping[str, _Module]
    _known: dict[str, dict[str, str]] = field(default_factory=dict)

    def docstrings(self, module: _Module) -> dict[str, str]:
        """Those of what a module defines and, if it is a package, re-exports."""
        if module.name not in self._known:
            # Known before it is whole, so that packages that import each other come to an end.
            found = self._known[module.name] = dict(module.definitions)
            for imported in module.imports if module.is_package else ():
                for name, docstring in self._brought(imported).items():
                    found.setdefault(name, docstring)
        return self._known[module.name]

    def _brought(self, imported: _Import) -> dict[str, str]:
        origin = self.modules.get(imported.module)
        if origin is None:
            return {}
        if imported.alias != "*":
            return {imported.alias: self._lookup(imported.name, origin, set())}
        names = origin.declared or self.docstrings(origin)
        return {name: self._lookup(name, origin, set()) for name in names}

    def _lookup(self, name: str, module: _Module, visited: set[str]) -> str:
        known = self.docstrings(module)
        if name in known or module.is_package or module.name in visited:
            return known.get(name, "")
        for imported in module.imports:
            origin = self.modules.get(imported.module)
            if origin and imported.alias == name:
                return self._lookup(imported.name, origin, visited | {module.name})
            if origin and imported.alias == "*" and name in (origin.declared or self.docstrings(origin)):
                return self._lookup(name, origin, visited | {module.name})
        return ""


def _definitions(source: str) -> Iterator[tuple[str, str]]:
    """Name and docstring (empty: none) of each top-level function and class.

    Only the head of a definition, up to the end of its first triple-quoted string, is parsed: that is several times
    faster than whole files. Where that string is no docstring, the parser says so.
    """
    headings = list(_DEFINITION.finditer(source))
    spans = pairwise([*(heading.start() for heading in headings), len(source)])
    for heading, (start, end) in zip(headings, spans, strict=True):
        quoted = _TRIPLE_QUOTED.search(source, start, end)
        tree = _parse(source[start : quoted.end()]) if quoted else None
        node = tree.body[0] if tree else None
        docstring = ast.get_docstring(node) if isinstance(node, _DOCUMENTABLE) else None
        yield heading[1], docstring or ""


def _imports(source: str, package: str) -> Iterator[_Import]:
    tree = _parse(source)
    pending: list[ast.AST] = [tree] if tree else []
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Module | ast.If | ast.Try):
            pending += reversed([*node.body, *getattr(node, "orelse", ())])
        elif isinstance(node, ast.ImportFrom):
            with suppress(ImportError):  # more dots than parents
                module = resolve_name("." * node.level + (node.module or ""), package)
                if module.partition(".")[0] == package.partition(".")[0]:
                    yield from (_Import(module, name.name, name.asname or name.name) for name in node.names)


def _parse(source: str) -> ast.Module | None:
    with warnings.catch_warnings(), suppress(SyntaxError, ValueError):
        warnings.simplefilter("ignore")  # other people's invalid escape sequences
        return ast.parse(source)
    return None


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
