"""The one exception a user meets."""

from collections.abc import Iterator
from contextlib import contextmanager


class UserError(ValueError):
    """Something the user can mend: one sentence that names the thing and the way out.

    The command line prints the sentence and exits with code 2; Python callers may catch it as a ``ValueError``.
    """


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what only the extra of that name installs, or say so."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"This needs the package '{error.name}': pip install 'text2token[{name}]'.") from error
