"""An index: documents in, ranked hits out, each with the tokens that matched."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scipy.sparse import csr_array

from text2token.data.text import clean_id
from text2token.model.names import from_anywhere
from text2token.search.documents import Columns, Document
from text2token.search.engines.addresses import full_address, stored_address
from text2token.search.engines.base import Engine, Matrix, ScoredId
from text2token.search.engines.by_name import open_engine
from text2token.search.filters import Filter
from text2token.search.format import read_settings, write_settings
from text2token.search.fusion import HYBRID, Fusion
from text2token.search.index_folder import check_readable, create_index, explain_full_disk, write_lock
from text2token.search.sampling import sample_tokens
from text2token.search.searcher import IndexSearcher, SearchResults
from text2token.search.store import STORE, VECTORS, DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.search.writer import IndexWriter
from text2token.settings.search import Calibration, EngineName, FieldName, Mode, VectorSettings
from text2token.utils.errors import UnavailableError, UserError, check_count
from text2token.utils.files import local_path

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search.shards.reader import EncodedShards


class Index:
    """A folder with documents, and an engine with their sparse, dense and BM25 vectors.

    Open an index with :meth:`create` or :meth:`open`. One process may write at a time, any number may read.

    Attributes:
        settings: Settings of the index; they never change.
        engine: Holds the vectors.
    """

    def __init__(
        self,
        folder: Path,
        embedder: Embedder | None = None,
        model: str | Path | None = None,
        *,
        uri: str | None = None,
        partial: bool = False,
        query_model: str | Path | None = None,
    ) -> None:
        self._folder = folder = folder.absolute()  # the current folder of the process may change
        self._partial = partial
        self._store = DocumentStore(folder / STORE)
        self.settings = read_settings(self._store, folder)
        place = from_anywhere(str(model)) if model else None
        self._vectorizer = Vectorizer(folder, self._store, self.settings, embedder, place, query_model)
        if uri is not None:
            stored_address(self.settings.engine, uri)  # refuses what is not an address
            uri = full_address(uri)
        self._uri = uri or self.settings.uri  # the former may hold a password, which is never kept
        self.engine = self._open_engine()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        model: str | Path,
        *,
        encoder: Mapping[str, Any] | None = None,
        calibration: Calibration | None = None,
        vectors: VectorSettings | None = None,
        columns: Columns | None = None,
        language: str = "english",
        engine: EngineName = "embedded",
        uri: str | None = None,
        embedder: Embedder | None = None,
        query_model: str | Path | None = None,
    ) -> Index:
        """Make a new, empty index, or open the unfinished one in the folder if it has the same settings.

        Args:
            folder: A new or empty folder.
            model: A folder that ``fit`` or ``distill`` wrote, a SentenceTransformer (which has no sparse field), or an untrained
                backbone.
            encoder: How an untrained backbone is used: keyword arguments of :meth:`text2token.Embedder.open`.
            calibration: What an untrained backbone learns from the documents.
            vectors: Weights of aligned tokens in sparse vectors.
            columns: Columns of the tables that documents come from. The index only keeps them for later additions.
            language: Language of the BM25 field's stemmer and stop words, a key of
                :data:`text2token.settings.search.LANGUAGES`; ``none`` neither stems nor removes words.
            engine: Where vectors are kept.
            uri: Address of the engine; see docs/scale.md. A password in it is used but not kept with the index: later it comes
                from ``PGPASSWORD`` or a pgpass file.
            embedder: The model, if it is open already.
            query_model: Folder of a student that ``distill`` wrote, which then encodes the queries; ``none``: the model encodes
                them; None: the student in ``model/student``, if there is one. The index keeps a copy: about 1.4 kB for each
                vocabulary entry, 70 MB in all for the default backbone and recipe.

        Raises:
            UserError: The model cannot be loaded, the student imitates another model, the engine's server does not answer or
                lacks something, the folder holds a finished index or something else, or another process is writing the index.
        """
        embedder = create_index(
            folder := local_path(folder),
            str(model),
            encoder=dict(encoder or {}),
            calibration=calibration or Calibration(),
            vectors=vectors or VectorSettings(),
            columns=columns or Columns(),
            language=language,
            engine=engine,
            uri=uri,
            embedder=embedder,
            query_model=query_model,
        )
        made = cls(folder, embedder, uri=uri)
        made.engine.check()
        return made

    @classmethod
    def open(
        cls,
        folder: str | Path,
        *,
        embedder: Embedder | None = None,
        model: str | Path | None = None,
        uri: str | None = None,
        partial: bool = False,
        query_model: str | Path | None = None,
    ) -> Index:
        """Open a finished index.

        Args:
            folder: Folder of the index.
            embedder: The model of the index, if it is open already; None: it is opened at first use.
            model: Where the model is now; None: where it was when the index was made.
            uri: New address of the engine, if its server has moved. The index keeps it, without a password.
            partial: Search without the shards of a database that do not answer. The note of a search names them.
            query_model: ``none`` encodes queries with the model; a folder must hold the student of the index; None: the student
                of the index if it has one, else the model.

        Raises:
            UserError: There is no index, its first build is not finished, it is damaged, or the system refuses to read it.
        """
        folder = local_path(folder)
        with check_readable(folder):
            index = cls(folder, embedder, model, uri=uri, partial=partial, query_model=query_model)
        if not partial and not len(index) and index._store.get("documents", 0) > index._store.waiting_count():
            raise UserError(
                f"The vectors of the index in '{folder}' are missing from its engine: restore them, or make the index again."
            )
        if uri is not None:
            index._keep_address(uri)
        return index

    def __len__(self) -> int:
        """Number of documents that can be found."""
        return self._followed().count([] if self._partial else None)

    @property
    def fields(self) -> list[FieldName]:
        """Fields of the index."""
        return self.settings.fields

    @property
    def embedder(self) -> Embedder:
        """The model with the corpus mean and the correction of the index."""
        return self._vectorizer.model.open()

    @property
    def has_student(self) -> bool:
        """Whether a student encodes the queries, and no model is loaded for them."""
        return self._vectorizer.student is not None

    @property
    def metadata_columns(self) -> list[str]:
        """Columns of the documents' metadata."""
        return list(self._store.metadata_columns())

    @property
    def waiting(self) -> int:
        """Number of documents that cannot be found yet, because an addition is running or was stopped."""
        return self._store.waiting_count()

    def sample(self, size: int) -> tuple[list[Document], csr_array, list[str]]:
        """Return a sample of the documents, and the tokens of each.

        Args:
            size: Maximum number of documents.

        Returns:
            N documents that can be found; their sparse vectors, N×C, or BM25 vectors if the index has no sparse field; and the
            token or word of each of the C columns.

        Raises:
            UserError: ``size`` is below 1.
        """
        check_count("size", size)
        return sample_tokens(self._store, self._vectorizer, size)

    def close(self) -> None:
        """Close the engine and the database. The index cannot be used afterwards."""
        self.engine.close()
        self._store.close()

    def add(self, documents: Iterable[Document], *, progress: bool = False) -> int:
        """Add documents, or replace those whose ids are known. Unchanged documents are not encoded again.

        All documents are read and checked first, then encoded in batches. After a kill, call this again to continue.

        Args:
            documents: Documents with text. Of an id that is given twice the last one counts.
            progress: Show a progress bar.

        Returns:
            Number of encoded documents.

        Raises:
            UserError: A document cannot be used (then none is added), ``documents`` is one document, the model is not that of
                the index, another process is writing the index, another index has taken its place, or the disk is full.
        """
        if isinstance(documents, Document):  # it is a tuple
            raise UserError("A list of documents is expected, not a Document alone: write [document].")
        with self._writing() as writer:
            return writer.add(documents, progress=progress)

    def add_encoded(self, shards: EncodedShards, *, progress: bool = False) -> int:
        """Add the documents of encoded shards as :meth:`add` does, without encoding them again.

        Args:
            shards: Shards that the model of the index has encoded; see :func:`text2token.search.encode_shards`.
            progress: Show a progress bar.

        Returns:
            Number of documents whose vectors were added.

        Raises:
            UserError: The shards are of another model or do not hold the whole corpus (then none is added), or an error of
                :meth:`add`.
        """
        shards.check_model(self.settings.fingerprint)
        with self._writing() as writer:
            return writer.add_encoded(shards, progress=progress)

    def delete(self, ids: Sequence[str]) -> int:
        """Delete documents. Unknown ids are ignored.

        Returns:
            Number of deleted documents.

        Raises:
            UserError: ``ids`` is one string instead of a list, another process is writing the index, or another index has taken
                its place.
        """
        if isinstance(ids, str):
            raise UserError("A list of ids is expected, not an id alone: write [id].")
        possible = [name for name in map(str, ids) if clean_id(name) == name.strip()]  # a database refuses the others
        with self._writing() as writer:
            return writer.delete(possible)

    @contextmanager
    def _writing(self) -> Iterator[IndexWriter]:
        """Hold the write lock. The engine knows what another process has written before."""
        self._store.check_place()
        with explain_full_disk(self._folder, self._store), write_lock(self._folder):
            if read_settings(self._store, self._folder).collection != self.settings.collection:
                raise UnavailableError(
                    f"Another process has begun the index in '{self._folder}' anew: repeat the command."
                )
            self._store.add_metadata_column()
            if self.engine.in_process:  # opened again, since it may not follow while another thread searches
                self.engine = self._open_engine()
            else:
                self.engine.follow()
            yield IndexWriter(self._store, self._vectorizer, self.engine, self.fields)

    def _keep_address(self, uri: str) -> None:
        kept = stored_address(self.settings.engine, uri)
        if kept == self.settings.uri:
            return
        self._store.check_place()
        with write_lock(self._folder):
            self.settings = self.settings.model_copy(update={"uri": kept})
            write_settings(self._store, self.settings)

    def _followed(self) -> Engine:
        """The engine, with what other processes have written, as long as the database of this process has their texts, too."""
        if self._store.follows:
            self.engine.follow()
        return self.engine

    def _open_engine(self) -> Engine:
        return open_engine(self.settings.engine, self._folder / VECTORS, self._uri, self.settings.collection)

    def search(
        self,
        query: str,
        k: int = 10,
        mode: Mode = "hybrid",
        *,
        inference_free: bool = False,
        fusion: Fusion = HYBRID,
        filters: Sequence[Filter | str] | str = (),
    ) -> SearchResults:
        """The ``k`` best documents for a query, each with the tokens that matched.

        Args:
            query: Text of any length.
            k: Largest number of hits.
            mode: One field, or ``hybrid``: all fields of the index.
            inference_free: Do not encode the query. Only its literal tokens are matched, against documents that keep their
                aligned tokens.
            fusion: How a hybrid search fuses the fields.
            filters: Conditions on the metadata that all hits meet, as ``"year>=2020"``; see
                :class:`text2token.search.filters.Filter`.

        Raises:
            UserError: The index has no such field or metadata column, a filter compares numbers in a column without numbers, the
                model is not that of the index, or ``k`` is below 1.
        """
        return self._searcher.search(query, k, mode, inference_free=inference_free, fusion=fusion, filters=filters)

    def rank(
        self,
        queries: Sequence[str],
        k: int = 100,
        mode: Mode = "hybrid",
        *,
        inference_free: bool = False,
        fusion: Fusion = HYBRID,
        filters: Sequence[Filter | str] | str = (),
        progress: bool = False,
    ) -> list[list[ScoredId]]:
        """Search many queries, without texts and matches of the hits; see :meth:`search`. A query without text has no hits."""
        return self._searcher.rank(
            queries, k, mode, inference_free=inference_free, fusion=fusion, filters=filters, progress=progress
        )

    def query_vectors(
        self, queries: Sequence[str], mode: Mode = "hybrid", *, inference_free: bool = False, fusion: Fusion = HYBRID
    ) -> dict[FieldName, Matrix]:
        """Return the vectors of queries in the fields that :meth:`search` uses, one row for each query. No query may be empty."""
        return self._searcher.vectors(queries, mode, inference_free=inference_free, fusion=fusion)

    @property
    def _searcher(self) -> IndexSearcher:
        """Searches with what the index holds now."""
        return IndexSearcher(self._store, self._vectorizer, self._followed(), self.fields, self._partial)
