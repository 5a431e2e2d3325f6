"""Adds and deletes the documents of an index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from more_itertools import chunked

from text2token.search.batches import Batch
from text2token.search.documents import Document, as_kept, is_kept
from text2token.search.engines.base import Engine
from text2token.search.store import DocumentStore
from text2token.search.student import keep_lessons
from text2token.search.vectorizer import Vectorizer
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError
from text2token.utils.progress import progress_bar, step

if TYPE_CHECKING:
    from text2token.search.shards.reader import EncodedShards

_READ = 512  # documents counted at once
_ENCODED = 64  # documents encoded between two commits; a killed process loses at most these
_FEW_OTHERS = (
    0.1  # share of the documents that may be others when a build is repeated: they hardly change what it has learnt
)


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

        When an unfinished first build is repeated, documents that are not in the new input are removed. If many documents are
        others, all are encoded again, since what the index has learnt from its documents goes into every vector.
        """
        resumed = self.store.get("documents", 0) > 0 and not self.store.get("finished")
        read: set[str] = set()
        gone: list[str] = []
        changed = 0
        with step("Reading documents", enabled=progress), self.store.transaction():
            for batch in batches:
                if resumed and not read:
                    self.store.set(metadata_columns={})  # they are found again
                changed += self._read(batch)
                read.update(document.id for document in batch.documents if resumed)
            if read:
                gone = [name for name in self.store.ids() if name not in read]
            if resumed and changed + len(gone) > _FEW_OTHERS * len(read):
                self.vectorizer.forget()
        if gone:
            self.delete(gone)

    def _read(self, batch: Batch) -> int:
        """Store and count documents that are new or have changed; their number is returned."""
        cleaned = [as_kept(document) for document in batch.documents]
        last = {document.id: place for place, document in enumerate(cleaned)}
        _check_ids(last, self.engine.max_id_bytes)
        known = self.store.documents(list(last))
        new = [place for name, place in last.items() if not is_kept(known.get(name), cleaned[place])]
        replaced = [known[cleaned[place].id] for place in new if cleaned[place].id in known]
        self.vectorizer.count(Batch(replaced), -1)
        self.vectorizer.count(Batch(cleaned, batch.tokens).select(new), 1)
        self.store.put(cleaned[place] for place in new)
        self.store.keep_metadata_columns([cleaned[place].metadata for place in last.values()])
        return len(new)

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


def _check_ids(ids: Iterable[str], limit: int | None) -> None:
    """Check that the engine takes ids, before documents are stored that it would refuse at each addition.

    Raises:
        UserError: An id has more than ``limit`` bytes.
    """
    for name in ids:
        if limit is not None and (size := len(name.encode())) > limit:
            raise UserError(
                f"The id '{name:.40}…' has {size} bytes, and the engine of the index takes {limit}: give a shorter one."
            )
