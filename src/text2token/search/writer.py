"""Makes an index, and adds and deletes its documents."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from more_itertools import chunked

from text2token.search.batches import Batch
from text2token.search.bm25 import WordSplitter
from text2token.search.documents import Columns, Document, as_kept, is_kept
from text2token.search.engines.addresses import stored_address
from text2token.search.engines.base import Engine
from text2token.search.format import IndexSettings, read_settings, write_settings
from text2token.search.store import STORE, TOKENIZER, DocumentStore
from text2token.search.student import check_teacher, find_student, keep_lessons, keep_student
from text2token.search.vectorizer import Vectorizer
from text2token.settings.search import Calibration, EngineName, FieldName, VectorSettings
from text2token.utils.errors import UserError
from text2token.utils.files import exclusive_lock
from text2token.utils.progress import progress_bar, step

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search.shards.reader import EncodedShards

_LOCK = "write.lock"
_READ = 512  # documents counted at once
_ENCODED = 64  # documents encoded between two commits; a killed process loses at most these
_IDENTITY = ("model", "encoder", "calibration", "vectors", "columns", "language", "engine", "uri", "fingerprint")


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
    query_model: str | None,
) -> Embedder:
    """Make the folder of a new index, or check that an unfinished index in it has the same settings.

    Arguments and errors are those of :meth:`text2token.search.index.Index.create`.

    Returns:
        The model.
    """
    check_folder(folder)
    WordSplitter(language)  # refuses an unknown language before the model is opened
    uri = stored_address(engine, uri)
    model = str(Path(model).resolve()) if Path(model).exists() else model
    student = find_student(model, query_model)
    from text2token.model.embedder import Embedder  # torch, which a search may not need
    from text2token.model.fingerprint import comparable, embedder_fingerprint
    from text2token.search.index_model import check_indexable

    embedder = embedder or Embedder.open(model, **encoder)
    check_indexable(embedder, model)
    fingerprint = embedder_fingerprint(comparable(embedder))
    if student:
        check_teacher(student, fingerprint, model)
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
        embedder.tokenizer.save_pretrained(folder / TOKENIZER)
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


@dataclass(frozen=True)
class IndexWriter:
    """Adds and deletes documents. The caller holds the write lock.

    Attributes:
        store: Database of the index.
        vectorizer: Makes the vectors of the index.
        engine: Holds the vectors; opened after the lock was taken.
        fields: Fields of the index.
    """

    store: DocumentStore
    vectorizer: Vectorizer
    engine: Engine
    fields: Sequence[FieldName]

    def add(self, documents: Iterable[Document], *, progress: bool) -> int:
        """See :meth:`text2token.search.index.Index.add`."""
        return self._add((Batch(read) for read in chunked(documents, _READ)), self._waiting, progress)

    def add_encoded(self, shards: EncodedShards, *, progress: bool) -> int:
        """See :meth:`text2token.search.index.Index.add_encoded`."""
        return self._add(shards.documents(_READ), lambda: self._waiting_in(shards), progress)

    def _add(self, read: Iterable[Batch], waiting: Callable[[], Iterable[Batch]], progress: bool) -> int:
        """Count all documents, fix what depends on all of them, then index those that wait; their number is returned."""
        self.vectorizer.model.open()  # refuses another model before anything is written
        self._count(read, progress)
        if not self.store.get("documents", 0):
            return 0
        self.vectorizer.fix_averages()
        self.vectorizer.calibrate(self._sample, progress=progress)
        total = self.store.waiting_count()
        with progress_bar(enabled=progress) as bar:
            task = bar.add_task("Indexing", total=total, unit="documents", note="")
            for batch in waiting():
                self._index(batch)
                bar.advance(task, len(batch.documents))
        self.engine.finish()
        self.vectorizer.teach(progress=progress)
        self.store.set(finished=True)
        return total

    def delete(self, ids: Sequence[str]) -> int:
        """See :meth:`text2token.search.index.Index.delete`."""
        known = self.store.documents(ids)
        with self.store.transaction():
            self.store.put(
                known.values()
            )  # if the process is killed before the end, the next addition encodes them again
        self.engine.delete(list(known))
        with self.store.transaction():
            self.vectorizer.count(Batch(list(known.values())), -1)
            self.store.remove(list(known))
        return len(known)

    def _sample(self, size: int) -> list[str]:
        return [document.content for document in self.store.sample(size)]

    def _count(self, batches: Iterable[Batch], progress: bool) -> None:
        """Read and check all documents in one transaction.

        When an unfinished first build is repeated, documents that are not in the new input are removed.
        """
        resumed = self.store.get("documents", 0) > 0 and not self.store.get("finished")
        read: set[str] = set()
        with step("Reading documents", enabled=progress), self.store.transaction():
            for batch in batches:
                self._read(batch)
                read.update(document.id for document in batch.documents if resumed)
        if read and (gone := [name for name in self.store.ids() if name not in read]):
            self.delete(gone)

    def _read(self, batch: Batch) -> None:
        """Store and count documents that are new or have changed."""
        cleaned = [as_kept(document) for document in batch.documents]
        last = {document.id: place for place, document in enumerate(cleaned)}
        known = self.store.documents(list(last))
        new = [place for name, place in last.items() if not is_kept(known.get(name), cleaned[place])]
        replaced = [known[cleaned[place].id] for place in new if cleaned[place].id in known]
        self.vectorizer.count(Batch(replaced), -1)
        self.vectorizer.count(Batch(cleaned, batch.tokens).select(new), 1)
        self.store.put(cleaned[place] for place in new)
        columns = {name for place in new for name in cleaned[place].metadata}
        if columns - set(known_columns := self.store.get("metadata_columns", [])):
            self.store.set(metadata_columns=sorted(columns.union(known_columns)))

    def _waiting(self) -> Iterator[Batch]:
        """Documents that wait to be encoded, until there are none."""
        while documents := self.store.waiting(_ENCODED):
            yield Batch(documents)

    def _waiting_in(self, shards: EncodedShards) -> Iterator[Batch]:
        """Documents of encoded shards that wait for their vectors."""
        for batch in shards.batches(_ENCODED):
            waiting = set(self.store.still_waiting([document.id for document in batch.documents]))
            places = [place for place, document in enumerate(batch.documents) if document.id in waiting]
            if places:
                yield batch.select(places)
        yield from self._waiting()  # of an addition that was killed before

    def _index(self, batch: Batch) -> None:
        """Give the engine the vectors of documents."""
        vectors = self.vectorizer.documents(batch)
        ids = [document.id for document in batch.documents]
        metadata = [document.metadata for document in batch.documents]
        self.engine.add(ids, {field: vectors[field] for field in self.fields}, metadata)
        with self.store.transaction():
            self.store.mark_encoded(ids, vectors.get("sparse"))
            if self.vectorizer.student is not None and not self.store.get("finished"):
                keep_lessons(self.store, ids, np.asarray(vectors["dense"]))
