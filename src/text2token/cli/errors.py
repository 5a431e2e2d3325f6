"""Turns exceptions and warnings into the lines that a user reads on standard error."""

from __future__ import annotations

import logging
import re
import sqlite3
import sys
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from text2token.utils.errors import UserError, first_line, is_full_disk, is_lack_of_memory
from text2token.utils.processes import end, is_main, local_rank

DEBUG = "text2token.debug"
"""Key of ``click.Context.meta``: show the traceback of an error."""
COMMAND = "text2token.command"
"""Key of ``click.Context.meta``: the command that runs, for the names of its options."""

_PACKAGE = Path(__file__).parents[1]
_HEAD_START_S = (
    10.0  # from the end of a process until its launcher has ended the others: a tenth of a second, more when busy
)
# `name` or `name=value`; and a bare name with an underscore, which no English word has, outside quotes and paths.
_SETTING = re.compile(
    r"`(?P<quoted>\w+)(?:=(?P<value>[^`]*))?`|(?<![\w'\"/.`-])(?P<bare>[a-z]+(?:_[a-z0-9]+)+)(?![\w'\"/`])"
)


@contextmanager
def error_border(context: click.Context) -> Iterator[None]:
    """Print an exception as one sentence and exit.

    The exit code is 2 for what the user can change, 1 for an error that nobody expected, 130 after Ctrl-C. With ``--debug`` the
    traceback stands above the sentence. A closed pipe is left to click, which ends quietly. Of several processes that meet the
    same error, only the first one prints it.
    """
    try:
        yield
    except KeyboardInterrupt:
        _let_the_first_process_speak()
        click.echo("\nStopped. Repeat the command to continue.", err=True)
        sys.exit(130)
    except (click.exceptions.Exit, click.Abort, click.exceptions.NoArgsIsHelpError, BrokenPipeError):
        raise
    except Exception as error:
        _let_the_first_process_speak()
        if context.meta.get(DEBUG) and not isinstance(error, click.UsageError):
            traceback.print_exception(error)
        expected = _expected_sentence(error, context.meta.get(COMMAND))
        said = expected or _unexpected_sentence(error)
        click.echo(f"Error: {' '.join(said.split())}".encode(errors="backslashreplace"), err=True)
        end()
        sys.exit(2 if expected else 1)


def _let_the_first_process_speak() -> None:
    """Wait so long that the launcher ends this process first, if the first process on this or another machine has failed too.

    An error that this process alone has met is printed after the wait.
    """
    if not is_main():
        time.sleep(_HEAD_START_S * (1 + local_rank()))


def _expected_sentence(error: Exception, command: click.Command | None) -> str | None:
    """A sentence with a way out, for the kinds of errors that a user can do something about; None for all others."""
    if isinstance(error, UserError):
        return settings_as_flags(str(error), command)
    if isinstance(error, click.UsageError):
        return _usage_sentence(error)
    if isinstance(error, click.ClickException):
        return error.format_message()
    if is_full_disk(error):
        return "The disk is full: free some space and repeat the command."
    if is_lack_of_memory(error):
        return "There is not enough memory: encode fewer texts at once (--batch-size) or shorter ones (--max-length)."
    if isinstance(error, sqlite3.Error):
        return _database_sentence(error)
    if isinstance(error, OSError) and error.filename:
        return f"Cannot use '{error.filename}': {error.strerror}."
    return None


def _unexpected_sentence(error: Exception) -> str:
    kind, line = type(error).__name__, first_line(error)
    said = kind if line == kind else f"{kind}: {line}"
    return f"{said.rstrip('.')}. Run the command again with --debug to see the traceback."


def _usage_sentence(error: click.UsageError) -> str:
    context = error.ctx
    path = context.command_path if context else "text2token"
    reason = error.format_message().rstrip(".")
    if isinstance(error, click.NoSuchOption) and context:
        reason += _advice_on_option(error.option_name, context)
    return f"{reason} (see '{path} --help')."


def _advice_on_option(option: str, context: click.Context) -> str:
    from text2token.settings.recipe import Recipe

    if option.strip("-").replace("-", "_") in Recipe.model_fields:
        return ": this command does not use that setting, so leave it out"
    if any(isinstance(parameter, click.Argument) for parameter in context.command.params):
        return f"; write -- before an argument that begins with a dash: '{context.command_path} … -- {option}'"
    return ""


def _database_sentence(error: sqlite3.Error) -> str:
    """SQLite's advice depends on its result code; https://www.sqlite.org/rescode.html. The low byte is the primary code."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}:
        advice = "wait until other processes are done, and keep the folder on a local disk, not on a network disk"
    elif code in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        advice = "the file is damaged, so delete its folder and make it again"
    elif code in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR}:
        advice = "check that its disk works and that you may write to its folder"
    else:
        advice = "run the command again with --debug to see where"
    return f"A database reports '{error}': {advice}."


def settings_as_flags(message: str, command: click.Command | None) -> str:
    """Replace the names of settings in a message of the library by what the user writes on the command line.

    `` `learning_rate` `` becomes ``--learning-rate``, `` `overwrite=True` `` becomes ``--overwrite``, and the name of an argument
    is written as in the usage line. A name in backticks that the command does not have loses its backticks.
    """
    names: dict[str, str] = {}
    for parameter in command.params if command else []:
        if isinstance(parameter, click.Option):
            flag = max(parameter.opts, key=len)
            names |= dict.fromkeys((parameter.name or "", flag.strip("-").replace("-", "_")), flag)
        elif parameter.name:
            names[parameter.name] = parameter.human_readable_name.removesuffix("...")

    def replace(match: re.Match[str]) -> str:
        name, value = match["quoted"] or match["bare"], match["value"]
        if name not in names:
            return match[0].strip("`")
        return names[name] if value in (None, "True") else f"{names[name]} {value}"

    return _SETTING.sub(replace, message)


class _Notes(logging.Handler):
    """Prints each message of the library once, as a line that begins with "Note:"."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._seen: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.say(record.getMessage())

    def say(self, message: str) -> None:
        line = " ".join(message.split())
        if line not in self._seen and is_main():
            self._seen.add(line)
            click.echo(f"Note: {line}".encode(errors="backslashreplace"), err=True)


@contextmanager
def library_notes() -> Iterator[None]:
    """Show what text2token logs or warns of as notes; hide the warnings that other libraries address to developers."""
    notes, logger = _Notes(), logging.getLogger("text2token")

    def show(message: Warning | str, category: type[Warning], filename: str, *_: Any, **__: Any) -> None:
        if issubclass(category, UserWarning) and Path(filename).is_relative_to(_PACKAGE):
            notes.say(str(message))

    logger.addHandler(notes)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(notes)
