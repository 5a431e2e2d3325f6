"""Vectors on disk by the text they are of: nothing is encoded twice, and a killed evaluation keeps what it had."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_KEYS_AT_ONCE = 500  # parameters of one SQL query


class VectorStore:
    """Key → float32 vector, in an SQLite file; memory does not grow with it."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(file)
        self._connection.execute("PRAGMA journal_mode = WAL")
        self._connection.execute("PRAGMA synchronous = NORMAL")
        self._connection.execute("CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, vector BLOB) WITHOUT ROWID")

    def missing(self, keys: Sequence[bytes]) -> set[bytes]:
        """Those of ``keys`` that have no vector yet."""
        wanted = set(keys)
        return wanted - {key for (key,) in self._select("key", list(wanted))}

    def put(self, keys: Sequence[bytes], vectors: Sequence[NDArray[np.float32]]) -> None:
        """Keep vectors, of any lengths; committed before it returns."""
        with self._connection:
            rows = zip(keys, (vector.tobytes() for vector in vectors), strict=True)
            self._connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def get(self, keys: Sequence[bytes]) -> list[NDArray[np.float32]]:
        """The vectors of ``keys`` in their order; all must be there."""
        found = {key: np.frombuffer(blob, np.float32) for key, blob in self._select("key, vector", list(set(keys)))}
        return [found[key] for key in keys]

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _select(self, columns: str, keys: Sequence[bytes]) -> list[tuple[bytes, ...]]:
        rows: list[tuple[bytes, ...]] = []
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = list(keys[start : start + _KEYS_AT_ONCE])
            marks = ",".join("?" * len(part))
            rows += self._connection.execute(f"SELECT {columns} FROM vectors WHERE key IN ({marks})", part)
        return rows


def text_key(*parts: str) -> bytes:
    """Key of a text and all else that its vector depends on."""
    return hashlib.blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()
