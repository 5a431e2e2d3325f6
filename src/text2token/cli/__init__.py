"""The command line: one small file per verb."""

from __future__ import annotations

import errno
import importlib
import os
import re
import sqlite3
import sys
from collections.abc import Iterator
from typing import Any

import click

from text2token.utils.errors import UserError

_VERBS = {
    "backbones": "List the packaged language models.",
    "targets": "Build the token targets of a corpus and look at them.",
    "fit": "Turn a language model and unlabelled texts into an embedder.",
    "encode": "Dense or sparse vectors of the texts in a file.",
    "explain": "Read the vector of a text as weighted tokens.",
    "align": "Do embeddings decode to the tokens of their texts?",
    "spectrum": "What training changed, in the principal components of a backbone.",
    "dynamics": "Did both spaces of an embedder improve together along its training?",
    "adapt": "Correct the vectors of a language model without training, and save it as fit does.",
    "index": "Make documents searchable: sparse, dense and BM25 vectors.",
    "search": "Find documents, and see which tokens found them.",
    "evaluate": "Score a model on MTEB(eng, v2), or on data of your own.",
    "baseline": "Train SimCSE, LLM2Vec's recipe or TSDAE, to compare with.",
    "compare": "Results side by side, with intervals, tables and a picture.",
    "demo": "The whole of it on the docstrings of this Python environment.",
}

# In the words of the operating system and safetensors, of SQLite, of NumPy, and of torch.save.
_DISK_FULL = re.compile(
    rf"{os.strerror(errno.ENOSPC)}|database or disk is full|\d+ requested and \d+ written|inline_container\.cc"
)


class _Verbs(click.Group):
    """Loads a verb's file only when it is called, and turns what a user can mend into one sentence and exit code 2."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_VERBS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _VERBS:
            return None
        command: click.Command = getattr(importlib.import_module(f"text2token.cli.{name}"), name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_VERBS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            click.echo("\nStopped. Repeat the command to continue.", err=True)
            sys.exit(130)
        except Exception as error:
            sentence = _sentence(error)
            if sentence is None:
                raise
            click.echo(f"Error: {' '.join(sentence.split())}", err=True)
            sys.exit(2)


def _sentence(error: Exception) -> str | None:
    """What a user can mend, in a sentence; None for anything else, whose traceback is worth more."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "text2token"
        return f"{error.format_message().rstrip('.')} (see '{command} --help')."
    if any(_DISK_FULL.search(str(link)) for link in _chain(error)):
        return "The disk is full: free some space and repeat the command."
    if isinstance(error, sqlite3.Error):
        return f"A database cannot be used ({error}): wait until other processes have done, or make its folder anew."
    if isinstance(error, OSError) and error.filename:
        return f"Cannot use '{error.filename}': {error.strerror}."
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """The error and its causes: datasets wraps those of the disk into its own."""
    while error:
        yield error
        error = error.__cause__


@click.group(cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="text2token")
def main() -> None:
    """Raw text in, a readable embedder out.

    \b
    Example:
      text2token fit notes.txt --output model
      text2token explain model "The cat sat on the mat."
    """
