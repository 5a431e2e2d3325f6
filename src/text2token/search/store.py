"""The database of an index: texts of the documents, frequencies of words and tokens, and settings."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.search.documents import Document
from text2token.search.filters import Metadata, number_values
from text2token.utils.databases import select_in
from text2token.utils.errors import UnavailableError

STORE, TOKENIZER, VECTORS = "documents.sqlite", "tokenizer/tokenizer.json", "vectors"
"""Files and folders in the folder of an index."""
CALIBRATION = "calibration.safetensors"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS documents (
    id TEXT PRIMARY KEY, title TEXT, text TEXT, columns BLOB, weights BLOB, metadata TEXT
);
CREATE INDEX IF NOT EXISTS waiting ON documents (id) WHERE columns IS NULL;
CREATE TABLE IF NOT EXISTS replaced (
    id TEXT PRIMARY KEY, title TEXT, text TEXT, columns BLOB, weights BLOB, metadata TEXT
);
CREATE TABLE IF NOT EXISTS lessons (id TEXT PRIMARY KEY, vector BLOB);
CREATE TABLE IF NOT EXISTS frequencies (side TEXT PRIMARY KEY, counts BLOB);
CREATE TABLE IF NOT EXISTS words (number INTEGER PRIMARY KEY, word TEXT UNIQUE, frequency INTEGER);
"""


class Word(NamedTuple):
    """Column of a word in the BM25 field, and the number of documents that contain the word."""

    number: int
    frequency: int


class Totals(NamedTuple):
    """Counts over all documents, which every query needs.

    Attributes:
        documents: Number of documents.
        words: Width of the BM25 field, one more than the largest number of a word.
        columns: Number of documents that contain each column of the sparse field as a literal token, C.
    """

    documents: int
    words: int
    columns: NDArray[np.int64]


class DocumentStore:
    """An SQLite file.

    Args:
        file: Database file; it is made if it does not exist.

    Raises:
        UnavailableError: By every method that reads: the folder may only be read, and another process has changed the file.
    """

    def __init__(self, file: Path) -> None:
        self._file, self._frozen = file, False
        options: Any = {"isolation_level": None, "check_same_thread": False}  # SQLite serialises threads itself
        if file.is_file() and not os.access(file.parent, os.W_OK):  # SQLite writes files beside it even to read
            log = file.with_name(f"{file.name}-wal").is_file()  # of a process that has it open, or was killed
            self._frozen = not log
            how = "immutable=1" if self._frozen else "mode=ro"
            self._connection = sqlite3.connect(f"{file.resolve().as_uri()}?{how}", uri=True, **options)
        else:
            self._connection = sqlite3.connect(file, **options)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_SCHEMA)
        self._opened = self._found_at_path()  # while the file is open, no other file gets its number
        self._columns = f"id, title, text, {'metadata' if self._has_metadata() else 'NULL'}"
        known = self._select("SELECT 1 FROM sqlite_master WHERE name = 'replaced'")
        # an index of an earlier version that may not be written has no such table
        nothing = "(SELECT id, title, text, columns, weights, NULL AS metadata FROM documents WHERE false)"
        self._replaced = "replaced" if known else nothing
        self._kept: tuple[tuple[int, int], Totals] | None = None

    @property
    def follows(self) -> bool:
        """Whether this process sees changes: not in a folder that may only be read, or if another file has taken the place."""
        return not self._frozen and self._is_at_path()

    def check_place(self) -> None:
        """Check that the file at the path is the one that was opened.

        Raises:
            UnavailableError: Another file has taken its place, or it is gone.
        """
        if not self._is_at_path():
            raise UnavailableError(
                f"Another index has taken the place of the one in '{self._file.parent}': open it again."
            )

    def _is_at_path(self) -> bool:
        found = self._found_at_path()
        return found is not None and self._opened is not None and os.path.samestat(found, self._opened)

    def _found_at_path(self) -> os.stat_result | None:
        """What the system says of the file at the path; None if there is none."""
        try:
            return self._file.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _select(self, statement: str, values: Sequence[Any] | dict[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of a query.

        Raises:
            UnavailableError: The folder may only be read, and another process has changed the file. SQLite then may have read one
                part before and the other part after the change.
        """
        try:
            return self._connection.execute(statement, values).fetchall()
        finally:
            if self._frozen:
                self._check_unchanged()

    def _check_unchanged(self) -> None:
        now, opened = self._found_at_path(), self._opened
        if now and opened and os.path.samestat(now, opened) and now.st_mtime_ns != opened.st_mtime_ns:
            raise UnavailableError(f"Another process has changed the index in '{self._file.parent}': open it again.")

    def _has_metadata(self) -> bool:
        return any(name == "metadata" for _, name, *_ in self._select("PRAGMA table_info(documents)"))

    def add_metadata_column(self) -> None:
        """Let an index of format 1 keep metadata. Nothing changes in an index that can do so already."""
        if not self._has_metadata():
            self._connection.execute("ALTER TABLE documents ADD COLUMN metadata TEXT")
        self._columns = "id, title, text, metadata"

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Write everything inside the block, or nothing."""
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself rolls back on a full disk
                self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")

    def get(self, name: str, default: Any = None) -> Any:
        """A setting or number by name."""
        rows = self._select("SELECT value FROM facts WHERE name = ?", (name,))
        return json.loads(rows[0][0]) if rows else default

    def set(self, **values: Any) -> None:
        """Store settings or numbers by name."""
        rows = [(name, json.dumps(value)) for name, value in values.items()]
        self._connection.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", rows)

    def metadata_columns(self) -> dict[str, bool]:
        """Columns of the metadata, and whether each holds a number. Those of an index of an earlier version may hold one."""
        kept = self.get("metadata_columns", {})
        return dict.fromkeys(kept, True) if isinstance(kept, list) else kept

    def keep_metadata_columns(self, metadata: Sequence[Metadata]) -> None:
        """Add the columns of new documents to :meth:`metadata_columns`."""
        known = self.metadata_columns()
        names = {name for values in metadata for name in values}
        numbers = {name for values in metadata for name in number_values(values)}
        columns = {name: name in numbers or known.get(name, False) for name in sorted(names.union(known))}
        if columns != known:
            self.set(metadata_columns=columns)

    def documents(self, ids: Sequence[str]) -> dict[str, Document]:
        """Documents by id. Unknown ids are left out."""
        found = select_in(self._select, f"SELECT {self._columns} FROM documents WHERE id IN", ids)
        return {row[0]: _document(*row) for row in found}

    def found(self, ids: Sequence[str]) -> dict[str, Document]:
        """Documents by id, as the engine has them: a document that waits to be encoded is still the one that it replaces."""
        select = f"SELECT id, title, text, metadata FROM {self._replaced} WHERE id IN"
        rows = select_in(self._select, select, ids)
        return self.documents(ids) | {row[0]: _document(*row) for row in rows}

    def ids(self) -> list[str]:
        """All ids."""
        return [name for (name,) in self._select("SELECT id FROM documents")]

    def put(self, documents: Iterable[Document]) -> None:
        """Store documents. They then wait to be encoded, and until then :meth:`found` and :meth:`vector` return the old ones."""
        rows = [
            (document.id, document.title, document.text, json.dumps(dict(document.metadata), ensure_ascii=False))
            for document in documents
        ]
        keep = (
            "INSERT OR IGNORE INTO replaced SELECT id, title, text, columns, weights, metadata FROM documents "
            "WHERE id = ? AND columns IS NOT NULL"
        )
        self._connection.executemany(keep, [row[:1] for row in rows])
        self._connection.executemany("DELETE FROM lessons WHERE id = ?", [row[:1] for row in rows])
        insert = "INSERT OR REPLACE INTO documents (id, title, text, metadata) VALUES (?, ?, ?, ?)"
        self._connection.executemany(insert, rows)

    def remove(self, ids: Sequence[str]) -> None:
        """Remove documents."""
        for table in ("documents", "replaced"):
            self._connection.executemany(f"DELETE FROM {table} WHERE id = ?", [(name,) for name in ids])

    def waiting(self, limit: int) -> list[Document]:
        """At most ``limit`` documents that wait to be encoded."""
        query = f"SELECT {self._columns} FROM documents WHERE columns IS NULL ORDER BY id LIMIT ?"
        return [_document(*row) for row in self._select(query, (limit,))]

    def waiting_count(self) -> int:
        """Number of documents that wait to be encoded."""
        return int(self._select("SELECT count(*) FROM documents WHERE columns IS NULL")[0][0])

    def still_waiting(self, ids: Sequence[str]) -> list[str]:
        """Those of some documents that wait to be encoded."""
        select = "SELECT id FROM documents WHERE columns IS NULL AND id IN"
        return [name for (name,) in select_in(self._select, select, ids)]

    def sample(self, size: int, *, encoded: bool = False) -> list[Document]:
        """Documents from all over the store, the same at each call.

        Args:
            size: Maximum number of documents.
            encoded: Leave out those that wait to be encoded.
        """
        chosen = "WHERE columns IS NOT NULL" if encoded else ""
        query = f"SELECT {self._columns} FROM documents {chosen} ORDER BY rowid * 2654435761 % 4294967296 LIMIT ?"
        return [_document(*row) for row in self._select(query, (size,))]

    def mark_encoded(self, ids: Sequence[str], rows: csr_array | None) -> None:
        """Note that documents are encoded, and store their sparse vectors.

        Args:
            ids: N documents.
            rows: Sparse vectors, N×C; None if the index has no sparse field.
        """
        rows = csr_array((len(ids), 1), dtype=np.float32) if rows is None else rows
        cuts = rows.indptr[1:-1]
        parts = zip(ids, np.split(rows.indices, cuts), np.split(rows.data, cuts), strict=True)
        values = [(c.astype(np.int32).tobytes(), w.astype(np.float32).tobytes(), name) for name, c, w in parts]
        self._connection.executemany("UPDATE documents SET columns = ?, weights = ? WHERE id = ?", values)
        self._connection.executemany("DELETE FROM replaced WHERE id = ?", [(name,) for name in ids])

    def keep_lessons(self, ids: Sequence[str], vectors: NDArray[np.float32]) -> None:
        """Store dense vectors that the student of an unfinished index will learn, in half precision.

        Args:
            ids: N documents.
            vectors: Their dense vectors, N×k.
        """
        rows = [(name, vector.astype(np.float16).tobytes()) for name, vector in zip(ids, vectors, strict=True)]
        self._connection.executemany("INSERT OR REPLACE INTO lessons VALUES (?, ?)", rows)

    def lessons(self) -> tuple[list[str], NDArray[np.float32]]:
        """Texts and dense vectors of the documents that the student of an unfinished index will learn, N and N×k."""
        select = "SELECT title, text, vector FROM lessons JOIN documents USING (id) ORDER BY lessons.id"
        rows = self._select(select)
        vectors = [np.frombuffer(vector, np.float16) for _, _, vector in rows]
        return [Document("", title, text).content for title, text, _ in rows], np.array(vectors, np.float32)

    def forget_vectors(self) -> None:
        """Remove all vectors and the average lengths that they depend on. All documents then wait to be encoded."""
        self._connection.execute("UPDATE documents SET columns = NULL, weights = NULL")
        self._connection.execute("DELETE FROM facts WHERE name LIKE 'average!_%' ESCAPE '!'")
        for table in ("replaced", "lessons"):
            self._connection.execute(f"DELETE FROM {table}")

    def forget_lessons(self) -> None:
        """Remove what :meth:`keep_lessons` stored."""
        self._connection.execute("DELETE FROM lessons")

    def vector(self, name: str, wanted: NDArray[Any] | None = None) -> dict[int, float]:
        """Sparse vector of a document that can be found, weight by column, or its wanted columns; empty if there is none."""
        tables = (self._replaced, "documents")
        query = " UNION ALL ".join(f"SELECT columns, weights FROM {table} WHERE id = :id" for table in tables)
        columns, weights = next(iter(self._select(query, {"id": name})), (None, None))
        own, values = np.frombuffer(columns or b"", np.int32), np.frombuffer(weights or b"", np.float32)
        if wanted is not None:
            found = np.isin(own, wanted)
            own, values = own[found], values[found]
        return dict(zip(own.tolist(), values.tolist(), strict=True))

    def count_words(self, changes: Mapping[str, int]) -> None:
        """Change the document frequencies of words. New words get a number."""
        upsert = "ON CONFLICT (word) DO UPDATE SET frequency = frequency + excluded.frequency"
        statement = f"INSERT INTO words (word, frequency) VALUES (?, ?) {upsert}"
        self._connection.executemany(statement, changes.items())

    def words(self, words: Iterable[str]) -> dict[str, Word]:
        """Number and frequency of words. Unknown words are left out."""
        select = "SELECT word, number, frequency FROM words WHERE word IN"
        found = select_in(self._select, select, list(words))
        return {word: Word(number, frequency) for word, number, frequency in found}

    def words_of(self, numbers: Sequence[int]) -> dict[str, Word]:
        """The words with some numbers. Unknown numbers are left out."""
        select = "SELECT word, number, frequency FROM words WHERE number IN"
        return {word: Word(number, frequency) for word, number, frequency in select_in(self._select, select, numbers)}

    def word_count(self) -> int:
        """One more than the largest number of a word."""
        return 1 + int(self._select("SELECT coalesce(max(number), 0) FROM words")[0][0])

    def count_columns(self, changes: NDArray[np.int64]) -> None:
        """Change the document frequencies of the sparse field's columns, C."""
        value = (self.column_frequencies(len(changes)) + changes).tobytes()
        self._connection.execute("INSERT OR REPLACE INTO frequencies VALUES ('sparse', ?)", (value,))

    def column_frequencies(self, width: int) -> NDArray[np.int64]:
        """Number of documents that contain each column of the sparse field as a literal token, C."""
        rows = self._select("SELECT counts FROM frequencies WHERE side = 'sparse'")
        return np.frombuffer(rows[0][0], np.int64) if rows else np.zeros(width, np.int64)

    def totals(self, width: int) -> Totals:
        """The counts of now; they are kept in memory until this or another process changes the database.

        Args:
            width: C, number of columns of the sparse field.
        """
        if self._connection.in_transaction:  # what another thread writes now may be rolled back
            return self._read_totals(width)
        ((others,),) = self._select("PRAGMA data_version")
        state = (others, self._connection.total_changes)
        kept = self._kept
        if kept is None or kept[0] != state:
            self._kept = kept = state, self._read_totals(width)
        return kept[1]

    def _read_totals(self, width: int) -> Totals:
        return Totals(self.get("documents", 0), self.word_count(), self.column_frequencies(width))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def _document(name: str, title: str, text: str, metadata: str | None) -> Document:
    return Document(name, title, text, json.loads(metadata) if metadata else {})
