"""The exception for everything that a user can correct."""

import errno
import re
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral

_LONGEST = 200  # characters quoted from the message of another library

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# These libraries report a full disk without an error number: safetensors (which quotes the operating system), NumPy, torch.save.
_NO_SPACE_MESSAGE = re.compile(
    rf"\(os error {errno.ENOSPC}\)|^\d+ requested and \d+ written$|enforce fail at inline_container\.cc"
)
# Torch and the operating system report a lack of memory by other exceptions than MemoryError.
_NO_MEMORY_MESSAGE = re.compile(
    "out of memory|not enough memory|can(no|')t allocate memory|invalid buffer size", re.IGNORECASE
)


class UserError(ValueError):
    """An error that the user can correct. Its message is one sentence that names the cause and the way out.

    A message writes the names of settings in backticks. The command line prints it, with options in place of settings, and exits
    with code 2. Python callers may catch it as a ``ValueError``.
    """


class BusyError(UserError):
    """Another process holds the lock of what was to be written. The same call can succeed later."""


class UnavailableError(UserError):
    """An index cannot be used: its database does not answer, its disk is full, or another process has changed its folder.

    A server tells its clients to ask later. Its log has the message, which may name an address or a path.
    """


class PassingError(UserError):
    """Something is missing for now, such as a network or memory. What was finished before is kept."""


def check_count(name: str, value: object) -> None:
    """Check that a setting is a whole number from 1 up.

    Raises:
        UserError: It is not.
    """
    if not isinstance(value, Integral) or value < 1:
        raise UserError(f"`{name}` is {value!r}: give a whole number from 1 up.")


def check_choice(name: str, value: object, choices: Iterable[str]) -> None:
    """Check that a setting is one of some words.

    Raises:
        UserError: It is not.
    """
    if value not in (known := list(choices)):
        raise UserError(f"`{name}` is {value!r}: choose among {', '.join(known)}.")


def first_line(error: Exception) -> str:
    """Return the first line of an error message, to be quoted in a :class:`UserError`; the type of the error if it has none."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:_LONGEST]


@contextmanager
def requires_extra(name: str) -> Iterator[None]:
    """Turn a failed import in the block into a :class:`UserError` that names the extra to install.

    An error that names no package comes from a package that is installed, and is raised as it is.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if not error.name:
            raise
        raise UserError(f"This needs the package '{error.name}': pip install 'text2token[{name}]'.") from error


def is_full_disk(error: BaseException) -> bool:
    """Return True for an error of the operating system or a library that means a full disk, or that has such a cause."""
    return any(map(_is_full_disk, _with_causes(error)))


def _with_causes(error: BaseException) -> Iterator[BaseException]:
    """An error, its cause, the cause of this one and so on. An error of gRPC can be its own cause."""
    seen: list[BaseException] = []
    cause: BaseException | None = error
    while cause and cause not in seen:
        yield cause
        seen.append(cause)
        cause = cause.__cause__


def _is_full_disk(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return bool(_NO_SPACE_MESSAGE.search(str(error)))


def is_lack_of_memory(error: BaseException) -> bool:
    """Return True for an error that means too little memory of the machine or of its accelerator, or that has such a cause."""
    return any(isinstance(cause, MemoryError) or _NO_MEMORY_MESSAGE.search(str(cause)) for cause in _with_causes(error))
