"""The folder of an index: what is in it, and that one process writes at a time."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path

from text2token.search.store import DocumentStore
from text2token.utils.errors import UserError
from text2token.utils.files import exclusive_lock

STORE, TOKENIZER, VECTORS = "documents.sqlite", "tokenizer", "vectors"
LOCK = "write.lock"


def check_finished(folder: Path) -> None:
    """Is there an index that can be opened?

    Raises:
        UserError: There is none, or its first documents have not all been indexed yet.
    """
    if not (folder / STORE).is_file():
        raise UserError(f"There is no index in '{folder}': make one with 'text2token index'.")
    with closing(DocumentStore(folder / STORE)) as store:
        if not store.fact("finished"):
            raise UserError(f"The index in '{folder}' is not finished: repeat the command that makes it, it continues.")


def only_writer(folder: Path) -> AbstractContextManager[None]:
    """Write alone.

    Raises:
        UserError: Another process is writing.
    """
    refusal = f"Another process is writing the index in '{folder}': repeat the command when it is done."
    return exclusive_lock(folder / LOCK, refusal)


@contextmanager
def rollback_on_error(folder: Path) -> Iterator[None]:
    """Where a :class:`UserError` ends the block before the index in ``folder`` has documents, ``folder`` is as it was again."""
    there = folder.exists()
    try:
        yield
    except UserError:
        if (folder / STORE).is_file():
            with suppress(UserError), only_writer(folder):  # unless another process is writing
                if _is_empty(folder):
                    for path in folder.iterdir():
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                    if not there:
                        folder.rmdir()
        raise


def _is_empty(folder: Path) -> bool:
    with closing(DocumentStore(folder / STORE)) as store:
        return not store.fact("finished") and not store.fact("documents", 0)
