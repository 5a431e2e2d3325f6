"""A segment of the embedded engine: some documents with the vectors of all fields, in files that never change."""

from __future__ import annotations

import bisect
import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from text2token.search.engines import postings
from text2token.search.engines.base import Matrix
from text2token.search.engines.metadata import (
    matching_rows,
    merged_metadata,
    metadata_table,
    read_metadata,
    write_metadata,
)
from text2token.search.engines.postings import Postings
from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_folder

_COPIED = 8_192  # dense vectors copied at once
_FEW = 0.25  # share of the documents below which their dense vectors are copied together before they are scored
_ARRAYS = Postings._fields
NewRows = NDArray[np.int32]


class Ids(Sequence[str]):
    """Ids in ascending order. They are read from disk one by one, so a lookup needs no memory.

    UTF-8 has the same order as the code points, and so the same as Python's strings.
    """

    def __init__(self, folder: Path) -> None:
        self._ends = _load(folder / "ids.ends.npy")
        self._bytes = _load(folder / "ids.npy")

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, row: int) -> str:  # type: ignore[override]
        if not 0 <= row < len(self._ends):
            raise IndexError(row)
        start = self._ends[row - 1] if row else 0
        return bytes(self._bytes[start : self._ends[row]]).decode()

    def take(self, rows: NDArray[Any]) -> list[str]:
        """The ids of some rows, faster than one by one."""
        ends = self._ends[rows].tolist()
        starts = np.where(rows > 0, self._ends[rows - 1], 0).tolist()
        read = self._bytes.data
        return [str(read[start:end], "utf-8") for start, end in zip(starts, ends, strict=True)]

    def row(self, name: str) -> int | None:
        """Row of an id; None if the segment does not have it."""
        row = bisect.bisect_left(self, name)
        return row if row < len(self) and self[row] == name else None

    @staticmethod
    def write(folder: Path, names: Sequence[str]) -> None:
        """Write ids, which are already in ascending order."""
        encoded = [name.encode() for name in names]
        np.save(folder / "ids.ends.npy", np.cumsum([len(name) for name in encoded], dtype=np.int64))
        np.save(folder / "ids.npy", np.frombuffer(b"".join(encoded), np.uint8))


class Segment:
    """Documents in the order of their ids, so that equal scores keep this order. Arrays are memory-mapped.

    Args:
        folder: Folder of the segment.
        alive: N booleans, False for documents that were deleted later; None: no document was deleted.
    """

    def __init__(self, folder: Path, alive: NDArray[np.bool_] | None = None) -> None:
        self.folder = folder
        self.ids = Ids(folder)
        self.alive = alive
        self.metadata = read_metadata(folder)
        self.inverted = {
            field: Postings(*(_load(folder / f"{field}.{array}.npy") for array in _ARRAYS))
            for field in _fields(folder, ".start.npy")
        }
        self.vectors = {field: _load(folder / f"{field}.vectors.npy") for field in _fields(folder, ".vectors.npy")}

    @property
    def count(self) -> int:
        """Number of documents that were not deleted."""
        return len(self.ids) if self.alive is None else int(self.alive.sum())

    def search(
        self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = ()
    ) -> list[tuple[str, float]]:
        """Ids and scores of the ``k`` best documents that meet all filters. Equal scores are ordered by id.

        Raises:
            UserError: The files of the field are gone.
        """
        allowed = self._allowed(filters)
        if field in self.inverted:
            terms = query if isinstance(query, csr_array) else csr_array(query)
            rows, scores = self.inverted[field].scores(terms, len(self.ids))
            if allowed is not None:
                rows, scores = rows[allowed[rows]], scores[allowed[rows]]
        elif field in self.vectors:
            rows, scores = _inner_products(self.vectors[field], np.asarray(query, np.float32)[0], allowed)
        else:
            raise UserError(f"'{self.folder}' has lost its {field} vectors: restore them, or make the index again.")
        if len(rows) > k:  # keep everything that ties with the last hit: ids decide among them
            enough = np.flatnonzero(scores >= postings.kth_largest(scores, k))
            rows, scores = rows[enough], scores[enough]
        order = np.lexsort((rows, -scores))[:k]
        return list(zip(self.ids.take(rows[order]), scores[order].tolist(), strict=True))

    def _allowed(self, filters: Sequence[Filter]) -> NDArray[np.bool_] | None:
        """N booleans, True for documents that were not deleted and meet all filters; None: all of them."""
        if not filters:
            return self.alive
        if self.metadata is None:
            return np.zeros(len(self.ids), bool)
        matching = matching_rows(self.metadata, filters)
        return matching if self.alive is None else matching & self.alive


def _inner_products(
    vectors: NDArray[np.float32], query: NDArray[np.float32], allowed: NDArray[np.bool_] | None
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Rows of the allowed vectors and their inner products with a query.

    ``np.vecdot`` reads the vectors once. For one query it takes half the time of ``vectors @ query``.
    """
    if allowed is None:
        return np.arange(len(vectors)), np.vecdot(vectors, query)
    rows = np.flatnonzero(allowed)
    if len(rows) >= _FEW * len(vectors):
        return rows, np.vecdot(vectors, query)[rows]
    scores = [np.vecdot(vectors[part], query) for part in chunked(rows, _COPIED)]
    return rows, np.concatenate([np.empty(0, np.float32), *scores])


def write_segment(
    folder: Path, ids: Sequence[str], fields: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] = ()
) -> None:
    """Write documents as a new segment. No id may occur twice."""
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    with atomic_folder(folder) as part:
        Ids.write(part, [ids[row] for row in order])
        if any(metadata):
            write_metadata(part, metadata_table([metadata[row] for row in order]))
        for field, rows in fields.items():
            if issparse(rows):
                for array, values in zip(_ARRAYS, Postings.of(csr_array(rows)[order]), strict=True):
                    np.save(part / f"{field}.{array}.npy", np.asarray(values))
            else:
                np.save(part / f"{field}.vectors.npy", np.ascontiguousarray(np.asarray(rows)[order], np.float32))


def merge_segments(folder: Path, segments: Sequence[Segment]) -> None:
    """Write the documents of several segments as one, without the deleted ones.

    Memory holds ids and metadata of all documents, but not their vectors.
    """
    documents = [
        (segment.ids[row], number, row)
        for number, segment in enumerate(segments)
        for row in range(len(segment.ids))
        if segment.alive is None or segment.alive[row]
    ]
    documents.sort()
    new_rows = [np.full(len(segment.ids), -1, np.int32) for segment in segments]
    for new, (_, number, row) in enumerate(documents):
        new_rows[number][row] = new
    with atomic_folder(folder) as part:
        Ids.write(part, [name for name, _, _ in documents])
        if any(segment.metadata is not None for segment in segments):
            write_metadata(part, merged_metadata([segment.metadata for segment in segments], new_rows))
        for field in sorted({field for segment in segments for field in segment.inverted}):
            having = [
                (s.inverted[field], rows) for s, rows in zip(segments, new_rows, strict=True) if field in s.inverted
            ]
            _merge_postings(part, field, *zip(*having, strict=True))
        for field in sorted({field for segment in segments for field in segment.vectors}):
            _merge_vectors(part, field, segments, new_rows, len(documents))


def _merge_postings(folder: Path, field: str, parts: Sequence[Postings], new_rows: Sequence[NewRows]) -> None:
    read = [array for part in parts for array in part]
    start = np.zeros(max(len(part.start) for part in parts), np.int64)
    for _ in postings.merged_start(parts, new_rows, start):
        _release(*read)
    np.save(folder / f"{field}.start.npy", start)
    types = {"documents": np.int32, "weights": np.float32}
    out = [_create(folder / f"{field}.{array}.npy", (int(start[-1]),), kind) for array, kind in types.items()]
    for _ in postings.merge(parts, new_rows, Postings(start, *out)):
        _release(*read, *out)


def _merge_vectors(
    folder: Path, field: str, segments: Sequence[Segment], new_rows: Sequence[NewRows], documents: int
) -> None:
    dimension = next(segment.vectors[field].shape[1] for segment in segments if field in segment.vectors)
    out = _create(folder / f"{field}.vectors.npy", (documents, dimension), np.float32)
    for segment, rows in zip(segments, new_rows, strict=True):
        for start in range(0, len(rows), _COPIED):
            new = rows[start : start + _COPIED]
            out[new[new >= 0]] = segment.vectors[field][start : start + _COPIED][new >= 0]
            _release(out, segment.vectors[field])


def _create(file: Path, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    """A new memory-mapped array."""
    if 0 in shape:  # an empty file cannot be mapped
        np.save(file, np.empty(shape, kind))
        return np.empty(shape, kind)
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):  # so that a full disk raises an error here and does not crash the process later
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return mapped


def _release(*arrays: NDArray[Any]) -> None:
    """Free the memory of memory-mapped arrays; their content stays in the file. Else a merge would hold all of its segments."""
    if not hasattr(mmap, "MADV_DONTNEED"):  # Windows frees it by itself
        return
    for array in arrays:
        owner: Any = array
        while isinstance(owner, np.ndarray):
            owner = owner.base
        if isinstance(owner, mmap.mmap):
            owner.madvise(mmap.MADV_DONTNEED)


def _fields(folder: Path, ending: str) -> list[str]:
    return sorted(file.name.removesuffix(ending) for file in folder.glob(f"*{ending}"))


def _load(file: Path) -> NDArray[Any]:
    """A memory-mapped array; an empty one, which cannot be mapped, is read."""
    return np.asarray(np.load(file, mmap_mode="r")) if file.stat().st_size > 128 else np.load(file)
