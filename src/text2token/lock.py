"""One process at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from text2token.errors import UserError


@contextmanager
def alone(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock ``file``, which is gone afterwards, or do not wait for who holds it.

    Raises:
        UserError: Another process does; its sentence is ``refusal``.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()
