"""Vectors of texts in an SQLite file, and what encoding them has cost."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from text2token.utils.databases import select_in

Vectors = Sequence[NDArray[np.float32]]


class Cost(NamedTuple):
    """The number of texts that were encoded, and the seconds that this took."""

    texts: int = 0
    seconds: float = 0.0


class VectorStore:
    """An SQLite file of float32 vectors by key. It also counts what encoding has cost, so a restart can go on counting.

    mteb's ``CachedEmbeddingWrapper`` cannot replace it. That one uses one cache per task, takes the text alone as the key
    (not the prompt, and not whether the text is a query), and stores no sparse vectors and no costs.
    """

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")
        self._connection.execute(
            "CREATE TABLE IF NOT EXISTS costs (account BLOB PRIMARY KEY, texts INTEGER, seconds REAL) WITHOUT ROWID"
        )

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        """The keys that have no vector yet."""
        wanted = set(keys)
        return wanted - {
            key for (key,) in select_in(self._connection.execute, "SELECT key FROM vectors WHERE key IN", list(wanted))
        }

    def put(self, keys: Sequence[bytes], vectors: Vectors, *, account: bytes = b"", seconds: float = 0.0) -> None:
        """Store vectors of any lengths and add their cost to an account, both in one transaction."""
        rows = zip(keys, (vector.tobytes() for vector in vectors), strict=True)
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            self._connection.execute(
                "INSERT INTO costs VALUES (?, ?, ?) ON CONFLICT (account) DO UPDATE SET "
                "texts = texts + excluded.texts, seconds = seconds + excluded.seconds",
                (account, len(keys), seconds),
            )

    def get(self, keys: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """The vectors of ``keys``, in this order; the store must hold all of them."""
        rows = select_in(self._connection.execute, "SELECT key, vector FROM vectors WHERE key IN", list(set(keys)))
        found = {key: np.frombuffer(blob, np.float32) for key, blob in rows}
        return [found[key] for key in keys]

    def cost(self, account: bytes) -> Cost:
        """Return the total cost of an account, earlier processes included."""
        row = self._connection.execute("SELECT texts, seconds FROM costs WHERE account = ?", (account,)).fetchone()
        return Cost(*row) if row else Cost()

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def hash_key(*parts: str) -> bytes:
    """A key for the store: a hash of everything that a vector depends on."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
