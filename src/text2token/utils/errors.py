"""The one exception a user meets."""

import errno
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 200  # characters of another library's message: it is quoted, not the sentence itself

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
# These libraries report a full disk without an error number: safetensors (which quotes the operating system), NumPy, torch.save.
_NO_SPACE_MESSAGE = re.compile(
    rf"\(os error {errno.ENOSPC}\)|^\d+ requested and \d+ written$|enforce fail at inline_container\.cc"
)


class UserError(ValueError):
    """Something the user can mend: one sentence that names the thing and the way out.

    The command line prints the sentence and exits with code 2; Python callers may catch it as a ``ValueError``.
    """


def first_line(error: Exception) -> str:
    """What an error of a library says first, for the sentence of a :class:`UserError`; its kind where it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:_LONGEST]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what only the extra of that name installs, or say so."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"This needs the package '{error.name}': pip install 'text2token[{name}]'.") from error


def is_full_disk(error: BaseException) -> bool:
    """Return True for an error of the operating system or a library that means a full disk."""
    if isinstance(error, OSError) and error.errno in _NO_SPACE:
        return True
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    return bool(_NO_SPACE_MESSAGE.search(str(error)))
