"""The folder of an index: it is made, checked when it is opened, and written by one process at a time."""

from __future__ import annotations

import errno
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from text2token.model.names import from_anywhere
from text2token.search.bm25 import WordSplitter
from text2token.search.documents import Columns
from text2token.search.engines.addresses import stored_address
from text2token.search.format import IndexSettings, read_settings, write_settings
from text2token.search.store import STORE, TOKENIZER, DocumentStore
from text2token.search.student import check_teacher, find_student, keep_student
from text2token.settings.search import Calibration, EngineName, FieldName, VectorSettings
from text2token.utils.errors import UnavailableError, UserError, first_line, is_full_disk
from text2token.utils.files import atomic_write, exclusive_lock

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder

_LOCK = "write.lock"
_DAMAGE = {errno.ENOENT, errno.ENOTDIR, errno.EISDIR, None}  # a file is missing or another; Arrow gives no number
_IDENTITY = (
    "model", "encoder", "calibration", "vectors", "columns", "language", "engine", "uri", "fingerprint", "precision"
)  # fmt: skip


def write_lock(folder: Path) -> AbstractContextManager[None]:
    """Let one process write an index at a time.

    Raises:
        BusyError: Another process is writing the index.
    """
    return exclusive_lock(
        folder / _LOCK, f"Another process is writing the index in '{folder}': repeat the command when it has finished."
    )


def create_index(
    folder: Path,
    model: str,
    *,
    encoder: dict[str, Any],
    calibration: Calibration,
    vectors: VectorSettings,
    columns: Columns,
    language: str,
    engine: EngineName,
    uri: str | None,
    embedder: Embedder | None,
    query_model: str | Path | None,
) -> Embedder:
    """Make the folder of a new index, or check that an unfinished index in it has the same settings.

    Arguments and errors are those of :meth:`text2token.search.index.Index.create`.

    Returns:
        The model.
    """
    check_folder(folder)
    WordSplitter(language)  # refuses an unknown language before the model is opened
    uri = stored_address(engine, uri)
    model = from_anywhere(model)
    student = find_student(model, query_model)
    from text2token.model.embedder import Embedder  # torch, which a search may not need
    from text2token.model.fingerprint import embedder_fingerprint, taught_fingerprints
    from text2token.model.tokens import backend_of
    from text2token.search.index_model import check_indexable

    embedder = embedder or Embedder.open(model, **encoder)
    check_indexable(embedder, model)
    fingerprint = embedder_fingerprint(embedder, corrected=False)
    if student:
        check_teacher(student, taught_fingerprints(embedder, fingerprint), model)
    possible: dict[FieldName, bool] = {"sparse": embedder.head is not None, "dense": True, "bm25": True}
    settings = IndexSettings(
        model=model,
        encoder=encoder,
        calibration=calibration,
        vectors=vectors,
        columns=columns,
        language=language,
        engine=engine,
        uri=uri,
        fingerprint=fingerprint,
        collection=f"text2token_{uuid.uuid4().hex}",
        fields=[field for field, available in possible.items() if available],
        vocabulary=embedder.vocabulary_size if embedder.head is not None else 0,
        precision=embedder.precision,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with write_lock(folder):
        _check_settings(folder, settings)
        with closing(DocumentStore(folder / STORE)) as store, store.transaction():
            keep_student(folder, store, student)
            if not store.get("documents", 0):
                write_settings(store, settings)
        (folder / TOKENIZER).parent.mkdir(exist_ok=True)
        with atomic_write(folder / TOKENIZER) as part:
            backend_of(embedder.tokenizer).save(str(part))
    return embedder


def check_folder(folder: Path) -> None:
    """Check that an index can be made in a folder, before the model is opened.

    Raises:
        UserError: The folder holds a finished index or something else.
    """
    if not (folder / STORE).is_file():
        if folder.exists() and (not folder.is_dir() or any(file.name != _LOCK for file in folder.iterdir())):
            raise UserError(f"'{folder}' holds something else: choose a new folder for the index.")
        return
    with closing(DocumentStore(folder / STORE)) as store:
        if store.get("finished"):
            raise UserError(
                f"The index '{folder}' already exists: add or delete documents, or choose another folder for a new one."
            )


def _check_settings(folder: Path, settings: IndexSettings) -> None:
    check_folder(folder)
    if not (folder / STORE).is_file():
        return
    with closing(DocumentStore(folder / STORE)) as store:
        if store.get("documents", 0):
            there = read_settings(store, folder)
            for name in _IDENTITY:
                if getattr(there, name) != getattr(settings, name):
                    raise UserError(
                        f"'{folder}' holds an unfinished index with another {name}: "
                        "repeat the command that began it, or choose another folder."
                    )


@contextmanager
def rollback_on_error(folder: Path) -> Iterator[None]:
    """Restore ``folder`` if a :class:`UserError` ends the block before the index in it has documents."""
    existed = folder.exists()
    try:
        yield
    except UserError:
        if (folder / STORE).is_file():
            with suppress(UserError), write_lock(folder):  # nothing is removed while another process is writing
                if _is_empty(folder):
                    for path in folder.iterdir():
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                    if not existed:
                        folder.rmdir()
        raise


def _is_empty(folder: Path) -> bool:
    with closing(DocumentStore(folder / STORE)) as store:
        return not store.get("finished") and not store.get("documents", 0)


@contextmanager
def check_readable(folder: Path) -> Iterator[None]:
    """Check that a folder holds a finished index, which the block opens.

    Raises:
        UserError: There is no index, its first build is not finished, the system refuses to read it, or the block finds
            it damaged.
    """
    try:
        if not (folder / STORE).is_file():
            raise UserError(f"There is no index in '{folder}': make one with 'text2token index'.")
        with closing(DocumentStore(folder / STORE)) as store:
            finished = store.get("finished")
        if not finished:
            raise UserError(
                f"The index in '{folder}' is not finished: repeat the command that makes it, and it continues."
            )
        yield
    except UserError:
        raise
    except sqlite3.OperationalError:
        raise  # another process has locked the database, or the disk fails
    except (OSError, ValueError, KeyError, EOFError, sqlite3.DatabaseError) as error:
        if isinstance(error, OSError) and error.errno not in _DAMAGE:
            raise UserError(
                f"The index in '{folder}' cannot be read ({first_line(error)}): check its permissions and the limit of "
                "open files."
            ) from error
        raise UserError(f"The index in '{folder}' is damaged: make it again ({first_line(error)}).") from error


@contextmanager
def explain_full_disk(folder: Path, store: DocumentStore) -> Iterator[None]:
    """Turn a full disk in the block into an :class:`UnavailableError` that says what is left of the index."""
    try:
        yield
    except Exception as error:
        if not is_full_disk(error):
            raise
        state = "The index is intact and can be searched" if store.get("finished") else "Nothing finished is lost"
        raise UnavailableError(
            f"The disk of the index '{folder}' is full. {state}: free some space and repeat the command."
        ) from error
