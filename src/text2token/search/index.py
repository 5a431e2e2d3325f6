"""An index: documents in, ranked hits out, each with the tokens that made it one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from transformers import AutoTokenizer

from text2token.corpus import clean
from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.progress import step, track
from text2token.recipe import Recipe
from text2token.search.documents import Document
from text2token.search.engine import Engine, Hit, Rows, Side
from text2token.search.engines import EngineName, open_engine
from text2token.search.fusion import Fusion, search
from text2token.search.index_folder import STORE, TOKENIZER, VECTORS, only_writer, prepare
from text2token.search.model import IndexModel
from text2token.search.modes import HYBRID, Mode, sides_asked
from text2token.search.parts import untruncated
from text2token.search.reasons import Found, explain
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.search.vectors import TokenSpace, TokenVectors
from text2token.search_settings import VectorSettings

_READ = 512  # documents counted at once
_ENCODED = 64  # documents encoded between two commits: what a kill can cost, and some seconds of work
_QUERIES = 64  # queries encoded at once


class Results(NamedTuple):
    """What a search gave: hits by falling score, and a sentence where the query could not be used as it is."""

    hits: list[Found]
    note: str | None


class Index:
    """A folder with the documents of a collection and, in an engine, their sparse, dense and BM25 vectors.

    Open one with :meth:`create` or :meth:`open`. One process writes at a time, others are refused; any number reads.

    Args:
        folder: Of the index.
        embedder: Its model, where it is loaded already; it is checked, and else loaded when it is needed.
        model: Where its model is now, if that has moved.
    """

    def __init__(self, folder: Path, embedder: Embedder | None = None, model: str | None = None) -> None:
        self._folder = folder
        self._store = DocumentStore(folder / STORE)
        self._model = IndexModel(folder, self._store, embedder, model)
        fact = self._store.fact
        self.sides: list[Side] = fact("sides")
        tokens = None
        if "sparse" in self.sides:
            settings = VectorSettings(**fact("settings"))
            tokenizer = AutoTokenizer.from_pretrained(folder / TOKENIZER)
            tokens = TokenVectors(
                TokenSpace(untruncated(tokenizer), fact("vocabulary"), settings.merge_forms), settings
            )
        self._vectorizer = Vectorizer(self._store, tokens, self._model.open)
        self.engine = self._open_engine()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: str,
        *,
        recipe: Recipe | None = None,
        settings: VectorSettings | None = None,
        engine: EngineName = "embedded",
        uri: str | None = None,
        embedder: Embedder | None = None,
    ) -> Index:
        """A new, empty index; or the unfinished one of the same settings that is there.

        Args:
            folder: New or empty.
            model: A folder that ``fit`` wrote, a SentenceTransformer (dense and BM25 sides only), or a backbone.
            recipe: How an untrained backbone is used (template, pooling, attention, correction, calibration texts).
            settings: Of sparse vectors.
            engine: Where vectors are kept; ``seismic`` keeps no dense ones.
            uri: Of a Milvus server, or a file for milvus-lite.
            embedder: ``model``, where it is loaded already.

        Raises:
            UserError: The model cannot be loaded, something else is in the folder, or a finished or another index, or one that
                another process is writing.
        """
        folder = Path(folder)
        embedder = prepare(folder, model, recipe or Recipe(), settings or VectorSettings(), engine, uri, embedder)
        return cls(folder, embedder)

    @classmethod
    def open(cls, folder: str | Path, embedder: Embedder | None = None, *, model: str | None = None) -> Index:
        """A finished index.

        Raises:
            UserError: There is none, its first documents have not all been indexed yet, or it is damaged or not whole.
        """
        folder = Path(folder)
        if not (folder / STORE).is_file():
            raise UserError(f"There is no index in '{folder}': make one with 'text2token index'.")
        store = DocumentStore(folder / STORE)
        finished = store.fact("finished")
        store.close()
        if not finished:
            raise UserError(f"The index in '{folder}' is not finished: repeat the command that makes it, it continues.")
        try:
            index = cls(folder, embedder, model)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, EOFError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"The index in '{folder}' is damaged, or of another version: make it anew ({first})."
            ) from error
        if not len(index) and index._store.fact("documents", 0) > index._store.waiting_count():
            raise UserError(
                f"The vectors of the index in '{folder}' are gone from its engine: bring them back, or make the index anew."
            )
        return index

    def __len__(self) -> int:
        """How many documents can be found."""
        return self.engine.count()

    @property
    def embedder(self) -> Embedder:
        """The model, with the means and the correction that the index keeps."""
        return self._vectorizer.embedder

    @property
    def waiting(self) -> int:
        """How many documents cannot be found as they are now: an addition is under way, or was stopped."""
        return self._store.waiting_count()

    def close(self) -> None:
        """Close what is open; this object is of no use then."""
        self._store.close()

    # Writing

    def add(self, documents: Iterable[Document], *, progress: bool = False) -> int:
        """Add documents, or replace those whose ids are there; the ones that have not changed are left alone.

        All documents are read, checked and counted first; then they are encoded, some at a time. Called again after a kill, it
        continues with those that wait.

        Args:
            documents: All with text. Of an id that is there twice the last counts.
            progress: Show a bar.

        Returns:
            How many have been encoded.

        Raises:
            UserError: A document cannot be used (then none of them is added), the model is not the index's, or another process
                is writing.
        """
        with self._writing():
            return self._add(documents, progress)

    def delete(self, ids: Sequence[str]) -> int:
        """Forget documents; ids that are not there are passed over.

        Returns:
            How many there were.

        Raises:
            UserError: Another process is writing.
        """
        with self._writing():
            return self._delete(ids)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Alone, and with what others have written since in sight."""
        with only_writer(self._folder):
            self.engine = self._open_engine()
            yield

    def _open_engine(self) -> Engine:
        fact = self._store.fact
        return open_engine(fact("engine"), self._folder / VECTORS, fact("uri"), fact("collection"))

    def _add(self, documents: Iterable[Document], progress: bool) -> int:
        self._model.open()  # which refuses another model before anything is written
        resumed = self._store.fact("documents", 0) > 0 and not self._store.fact("finished")
        named: set[str] = set()
        with step("Reading documents", enabled=progress), self._store.transaction():
            for batch in chunked(documents, _READ):
                self._read(batch)
                named.update(document.id for document in batch if resumed)
        if named and (gone := [name for name in self._store.ids() if name not in named]):
            self._delete(gone)  # a first build is of what it is given the last time
        if not self._store.fact("documents", 0):
            return 0
        self._vectorizer.settle_averages()
        self._model.calibrate(self._beginnings, progress=progress)
        total = self._store.waiting_count()
        starts = range(0, total, _ENCODED)
        for _ in track(starts, "Indexing", unit="documents", each=_ENCODED, enabled=progress):
            batch = self._store.waiting(_ENCODED)
            ids = [document.id for document in batch]
            vectors = self._vectorizer.documents([document.content for document in batch])
            self.engine.add(ids, {side: vectors[side] for side in self.sides})
            with self._store.transaction():
                self._store.finish(ids, vectors.get("sparse"))
        self.engine.finish()
        self._store.note(finished=True)
        return total

    def _delete(self, ids: Sequence[str]) -> int:
        there = self._store.documents(ids)
        with self._store.transaction():
            self._store.put(there.values())  # killed before the end, they wait, and the next addition mends them
        self.engine.delete(list(there))
        self.engine.finish()
        with self._store.transaction():
            self._vectorizer.count([document.content for document in there.values()], -1)
            self._store.remove(list(there))
        return len(there)

    def _beginnings(self, size: int) -> list[str]:
        """First parts of so many documents."""
        return [self._vectorizer.parts.parts(document.content)[0] for document in self._store.sample(size)]

    def search(
        self, query: str, k: int = 10, mode: Mode = "hybrid", *, model: bool = True, fusion: Fusion = HYBRID
    ) -> Results:
        """The ``k`` best documents for a query, each with what made it one.

        Args:
            query: Text of any length.
            k: At most so many.
            mode: One side, or ``hybrid``: all sides that there are.
            model: May the model see the query? Without, words find words, and what documents mean.
            fusion: Of hybrid searches.

        Raises:
            UserError: The index has no such side, or the model is not the index's.
        """
        query = clean(query)
        if not query:
            return Results([], "The query has no text.")
        vectors = self.query_vectors([query], mode, model=model, fusion=fusion)
        empty = [side for side, rows in vectors.items() if not np.any(_values(rows))]
        hits = search(self.engine, vectors, k, fusion)
        note = f"No word of the query is known to: {', '.join(empty)}." if empty else None
        return Results(explain(hits, self._store, self._vectorizer, vectors), note)

    def rank(
        self,
        queries: Sequence[str],
        k: int = 100,
        mode: Mode = "hybrid",
        *,
        model: bool = True,
        fusion: Fusion = HYBRID,
        progress: bool = False,
    ) -> list[list[Hit]]:
        """As :meth:`search` for many queries, without texts and reasons; a query without text has no hits."""
        cleaned = {row: text for row, query in enumerate(queries) if (text := clean(query))}
        ranked: list[list[Hit]] = [[] for _ in queries]
        batches = list(chunked(cleaned.items(), _QUERIES))
        for batch in track(batches, "Searching", unit="queries", each=_QUERIES, enabled=progress):
            vectors = self.query_vectors([text for _, text in batch], mode, model=model, fusion=fusion)
            for place, (row, _) in enumerate(batch):
                ranked[row] = search(self.engine, {s: rows[[place]] for s, rows in vectors.items()}, k, fusion)
        return ranked

    def query_vectors(
        self, queries: Sequence[str], mode: Mode = "hybrid", *, model: bool = True, fusion: Fusion = HYBRID
    ) -> dict[Side, Rows]:
        """Vectors of queries, none of them empty, a row each on the sides of a mode; see :meth:`search`."""
        sides = sides_asked(mode, self.sides, fusion, model=model)
        return self._vectorizer.queries(queries, sides, model=model)

    def _read(self, batch: list[Document]) -> None:
        """Keep and count documents that are new or have changed."""
        if empty := next((document for document in batch if not document.content), None):
            raise UserError(f"The document '{empty.id}' has no text: leave it out.")
        last = {document.id: document for document in batch}
        known = self._store.documents(list(last))
        new = [document for document in last.values() if known.get(document.id) != document]
        replaced = [known[document.id].content for document in new if document.id in known]
        self._vectorizer.count(replaced, -1)
        self._vectorizer.count([document.content for document in new], 1)
        self._store.put(new)


def _values(rows: Rows) -> NDArray[np.float32]:
    return rows if isinstance(rows, np.ndarray) else rows.data
