"""An index: documents in, ranked hits out, each with the tokens that made it one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from more_itertools import chunked

from text2token.data.corpus import clean
from text2token.search.documents import Document
from text2token.search.engine import Engine, Hit, Rows
from text2token.search.engines import open_engine
from text2token.search.fusion import Fusion, search
from text2token.search.index_folder import STORE, VECTORS, check_finished, only_writer
from text2token.search.indexing import IndexWriter
from text2token.search.modes import HYBRID, sides_asked
from text2token.search.reasons import Found, explain
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.settings.recipe import Recipe
from text2token.settings.search import EngineName, Mode, Side, VectorSettings
from text2token.utils.errors import UserError, first_line
from text2token.utils.progress import track

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search.model import IndexModel

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
        embedder: The index's model if already loaded (its fingerprint is checked); None: loaded at first use.
        model: Where the index's model is now, if that has moved.
    """

    def __init__(self, folder: Path, embedder: Embedder | None = None, model: str | None = None) -> None:
        self._folder, self._given, self._model_name = folder, embedder, model
        self._store = DocumentStore(folder / STORE)
        self._vectorizer = Vectorizer(folder, self._store, lambda: self.embedder)
        self.sides: list[Side] = self._store.fact("sides")
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
        from text2token.search.creation import prepare

        folder = Path(folder)
        embedder = prepare(folder, model, recipe or Recipe(), settings or VectorSettings(), engine, uri, embedder)
        return cls(folder, embedder)

    @classmethod
    def open(cls, folder: str | Path, *, embedder: Embedder | None = None, model: str | None = None) -> Index:
        """A finished index.

        Raises:
            UserError: There is none, its first documents have not all been indexed yet, or it is damaged or not whole.
        """
        folder = Path(folder)
        check_finished(folder)
        try:
            index = cls(folder, embedder, model)
        except UserError:
            raise
        except (OSError, ValueError, KeyError, EOFError) as error:
            raise UserError(
                f"The index in '{folder}' is damaged, or of another version: make it anew ({first_line(error)})."
            ) from error
        if not len(index) and index._store.fact("documents", 0) > index._store.waiting_count():
            raise UserError(
                f"The vectors of the index in '{folder}' are gone from its engine: bring them back, or make the index anew."
            )
        return index

    def __len__(self) -> int:
        """How many documents can be found."""
        return self.engine.count()

    @cached_property
    def _model(self) -> IndexModel:
        """Imports torch, which a search with the words of a query alone does without."""
        from text2token.search.model import IndexModel

        return IndexModel(self._folder, self._store, self._given, self._model_name)

    @property
    def embedder(self) -> Embedder:
        """The model, with the means and the correction that the index keeps."""
        return self._model.open()

    @property
    def waiting(self) -> int:
        """How many documents cannot be found as they are now: an addition is under way, or was stopped."""
        return self._store.waiting_count()

    def close(self) -> None:
        """Close what is open; this object is of no use then."""
        self._store.close()

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
        with self._writing() as writer:
            return writer.add(documents, progress=progress)

    def delete(self, ids: Sequence[str]) -> int:
        """Forget documents; ids that are not there are passed over.

        Returns:
            How many there were.

        Raises:
            UserError: Another process is writing.
        """
        with self._writing() as writer:
            return writer.delete(ids)

    @contextmanager
    def _writing(self) -> Iterator[IndexWriter]:
        """Alone, and with what others have written since in sight."""
        with only_writer(self._folder):
            self.engine = self._open_engine()
            yield IndexWriter(self._store, self._model, self._vectorizer, self.engine)

    def _open_engine(self) -> Engine:
        fact = self._store.fact
        return open_engine(fact("engine"), self._folder / VECTORS, fact("uri"), fact("collection"))

    def search(
        self, query: str, k: int = 10, mode: Mode = "hybrid", *, inference_free: bool = False, fusion: Fusion = HYBRID
    ) -> Results:
        """The ``k`` best documents for a query, each with what made it one.

        Args:
            query: Text of any length.
            k: At most so many.
            mode: One side, or ``hybrid``: all sides that there are.
            inference_free: Encode no query: only its words and literal tokens are matched, against documents that keep their
                aligned tokens.
            fusion: Of hybrid searches.

        Raises:
            UserError: The index has no such side, or the model is not the index's.
        """
        query = clean(query)
        if not query:
            return Results([], "The query has no text.")
        vectors = self.query_vectors([query], mode, inference_free=inference_free, fusion=fusion)
        empty = [side for side, rows in vectors.items() if abs(rows).sum() == 0]
        hits = search(self.engine, vectors, k, fusion)
        note = f"No word of the query is known to: {', '.join(empty)}." if empty else None
        return Results(explain(hits, self._store, self._vectorizer, vectors), note)

    def rank(
        self,
        queries: Sequence[str],
        k: int = 100,
        mode: Mode = "hybrid",
        *,
        inference_free: bool = False,
        fusion: Fusion = HYBRID,
        progress: bool = False,
    ) -> list[list[Hit]]:
        """As :meth:`search` for many queries, without texts and reasons; a query without text has no hits."""
        cleaned = {row: text for row, query in enumerate(queries) if (text := clean(query))}
        ranked: list[list[Hit]] = [[] for _ in queries]
        batches = list(chunked(cleaned.items(), _QUERIES))
        for batch in track(batches, "Searching", unit="queries", each=_QUERIES, enabled=progress):
            vectors = self.query_vectors(
                [text for _, text in batch], mode, inference_free=inference_free, fusion=fusion
            )
            for place, (row, _) in enumerate(batch):
                ranked[row] = search(self.engine, {s: rows[[place]] for s, rows in vectors.items()}, k, fusion)
        return ranked

    def query_vectors(
        self, queries: Sequence[str], mode: Mode = "hybrid", *, inference_free: bool = False, fusion: Fusion = HYBRID
    ) -> dict[Side, Rows]:
        """Vectors of queries, none of them empty, a row each on the sides of a mode; see :meth:`search`."""
        sides = sides_asked(mode, self.sides, fusion, inference_free=inference_free)
        return self._vectorizer.queries(queries, sides, inference_free=inference_free)
