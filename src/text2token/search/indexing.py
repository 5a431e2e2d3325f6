"""How documents come into an index and leave it: they are counted first, then encoded some at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from more_itertools import chunked

from text2token.search.documents import Document
from text2token.search.engine import Engine
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.utils.errors import UserError
from text2token.utils.progress import step, track

if TYPE_CHECKING:
    from text2token.search.model import IndexModel

_READ = 512  # documents counted at once
_ENCODED = 64  # documents encoded between two commits: what a kill can cost, and some seconds of work


@dataclass(frozen=True)
class IndexWriter:
    """Writes an index, as long as no other process does.

    Attributes:
        store: Of the index.
        model: Of the index.
        vectorizer: Of the index.
        engine: Of the index, opened since others can no longer write.
    """

    store: DocumentStore
    model: IndexModel
    vectorizer: Vectorizer
    engine: Engine

    def add(self, documents: Iterable[Document], *, progress: bool) -> int:
        """Add or replace documents; see :meth:`text2token.search.index.Index.add`."""
        self.model.open()  # which refuses another model before anything is written
        self._count(documents, progress)
        if not self.store.fact("documents", 0):
            return 0
        self.vectorizer.settle_averages()
        self.model.calibrate(self._beginnings, progress=progress)
        encoded = self._encode(progress)
        self.engine.finish()
        self.store.note(finished=True)
        return encoded

    def delete(self, ids: Sequence[str]) -> int:
        """Forget documents; see :meth:`text2token.search.index.Index.delete`."""
        there = self.store.documents(ids)
        with self.store.transaction():
            self.store.put(there.values())  # killed before the end, they wait, and the next addition mends them
        self.engine.delete(list(there))
        with self.store.transaction():
            self.vectorizer.count([document.content for document in there.values()], -1)
            self.store.remove(list(there))
        return len(there)

    def _count(self, documents: Iterable[Document], progress: bool) -> None:
        """Read all documents, or none of them; a first build is of what it is given the last time."""
        resumed = self.store.fact("documents", 0) > 0 and not self.store.fact("finished")
        named: set[str] = set()
        with step("Reading documents", enabled=progress), self.store.transaction():
            for batch in chunked(documents, _READ):
                self._read(batch)
                named.update(document.id for document in batch if resumed)
        if named and (gone := [name for name in self.store.ids() if name not in named]):
            self.delete(gone)

    def _read(self, batch: list[Document]) -> None:
        """Keep and count documents that are new or have changed."""
        if empty := next((document for document in batch if not document.content), None):
            raise UserError(f"The document '{empty.id}' has no text: leave it out.")
        last = {document.id: document for document in batch}
        known = self.store.documents(list(last))
        new = [document for document in last.values() if known.get(document.id) != document]
        replaced = [known[document.id].content for document in new if document.id in known]
        self.vectorizer.count(replaced, -1)
        self.vectorizer.count([document.content for document in new], 1)
        self.store.put(new)

    def _beginnings(self, size: int) -> list[str]:
        """First parts of so many documents."""
        return [self.vectorizer.parts.parts(document.content)[0] for document in self.store.sample(size)]

    def _encode(self, progress: bool) -> int:
        """Give the engine the vectors of all documents that wait for it, and tell how many those are."""
        sides, total = self.store.fact("sides"), self.store.waiting_count()
        starts = range(0, total, _ENCODED)
        for _ in track(starts, "Indexing", unit="documents", each=_ENCODED, enabled=progress):
            batch = self.store.waiting(_ENCODED)
            ids = [document.id for document in batch]
            vectors = self.vectorizer.documents([document.content for document in batch])
            self.engine.add(ids, {side: vectors[side] for side in sides})
            with self.store.transaction():
                self.store.finish(ids, vectors.get("sparse"))
        return total
