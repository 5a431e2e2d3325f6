"""The one exception a user meets."""

from collections.abc import Iterator
from contextlib import contextmanager

_LONGEST = 200  # characters of another library's message: it is quoted, not the sentence itself


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
