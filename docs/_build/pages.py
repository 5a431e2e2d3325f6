"""A hook of mkdocs that writes the pages which have their text elsewhere.

The front page is the README. Contributing and changelog are files of the repository. The command line comes from click, and the
Python reference lists the names that each room exports.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

import text2token
from text2token.cli import main

_WIDTH = 100


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages to those that are on disk."""
    root = Path(config.config_file_path).parent
    pages = {
        "index.md": _from_root((root / "README.md").read_text(encoding="utf-8")),
        "contributing.md": _from_root((root / "CONTRIBUTING.md").read_text(encoding="utf-8")),
        "changelog.md": _from_root((root / "CHANGELOG.md").read_text(encoding="utf-8")),
        "commands.md": "\n".join(_commands()),
        "python.md": "\n".join(_python()),
    }
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_content(html: str, **_: object) -> str:
    """Docstrings name other objects with Sphinx roles; the site shows the name alone."""
    return re.sub(r":(?:attr|class|data|func|meth|mod):(?=<code>)", "", html)


def _from_root(text: str) -> str:
    """Make links of a file in the root of the repository relative to the folder of the documentation."""
    text = text.replace("](docs/", "](").replace('src="docs/', 'src="')
    return text.replace("](CONTRIBUTING.md", "](contributing.md").replace("](CHANGELOG.md", "](changelog.md")


def _commands() -> Iterator[str]:
    """The help of every command."""
    yield "# Command line\n\nEach section is the output of `text2token COMMAND --help`.\n"
    top = click.Context(main, info_name="text2token", terminal_width=_WIDTH, max_content_width=_WIDTH)
    yield f"```text\n{main.get_help(top)}\n```\n"
    for name in main.list_commands(top):
        command = main.get_command(top, name)
        assert command is not None
        context = click.Context(command, parent=top, info_name=name, terminal_width=_WIDTH, max_content_width=_WIDTH)
        yield f"## {name}\n\n```text\n{command.get_help(context)}\n```\n"


def _python() -> Iterator[str]:
    """The names that the package and its rooms export; a name appears once, in the first place that has it."""
    yield "# Python\n\nEvery name is imported from the module above it: `from text2token.search import Index`.\n"
    rooms = [module.name for module in pkgutil.iter_modules(text2token.__path__) if module.ispkg]
    seen: set[object] = set()
    for module in ("text2token", *(f"text2token.{room}" for room in rooms if room != "cli")):
        package = importlib.import_module(module)
        new = [name for name in getattr(package, "__all__", []) if id(getattr(package, name)) not in seen]
        seen |= {id(getattr(package, name)) for name in new}
        if new:
            yield f"## {module}\n\n{(package.__doc__ or '').splitlines()[0]}\n"
            yield from (f"::: {module}.{name}\n" for name in new)
