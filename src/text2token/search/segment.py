"""A segment of the embedded index: some documents, all sides of them, in files that never change."""

from __future__ import annotations

import bisect
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, issparse

from text2token.search import postings
from text2token.search.engine import Rows
from text2token.search.postings import Postings
from text2token.settings.search import Side
from text2token.utils.files import atomic_folder

HNSW_FROM = (
    200_000  # documents; flat search then takes some 30 ms at 500 dimensions, and the graph is worth its building
)
_LINKS, _BREADTH = 32, 128  # of the graph: neighbours per document, candidates while building and searching
_COPIED = 8_192  # dense rows copied at once
_FIELDS = Postings._fields
_faiss: Any = faiss  # whose types are those of C++
Places = NDArray[np.int32]


class Ids(Sequence[str]):
    """Ids in ascending order, read from disk one by one; so that finding one takes no memory.

    UTF-8 keeps the order of code points, which is that of Python's strings.
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

    def row(self, name: str) -> int | None:
        """Where an id stands; None: nowhere."""
        row = bisect.bisect_left(self, name)
        return row if row < len(self) and self[row] == name else None

    @staticmethod
    def write(folder: Path, names: Sequence[str]) -> None:
        """Write ascending ids."""
        encoded = [name.encode() for name in names]
        np.save(folder / "ids.ends.npy", np.cumsum([len(name) for name in encoded], dtype=np.int64))
        np.save(folder / "ids.npy", np.frombuffer(b"".join(encoded), np.uint8))


class Segment:
    """Documents in the order of their ids, so that equal scores are in it too; arrays are mapped, not read.

    Args:
        folder: Where it is.
        alive: N booleans, which documents have not been deleted since; None: all.
    """

    def __init__(self, folder: Path, alive: NDArray[np.bool_] | None = None) -> None:
        self.folder = folder
        self.ids = Ids(folder)
        self.alive = alive
        self.inverted = {
            side: Postings(*(_load(folder / f"{side}.{field}.npy") for field in _FIELDS))
            for side in _sides(folder, ".start.npy")
        }
        self.vectors = {side: _load(folder / f"{side}.vectors.npy") for side in _sides(folder, ".vectors.npy")}
        self.graphs: dict[str, Any] = {
            side: faiss.read_index(str(folder / f"{side}.hnsw"), faiss.IO_FLAG_MMAP_IFC)
            for side in _sides(folder, ".hnsw")
        }

    @property
    def living(self) -> int:
        """How many documents have not been deleted."""
        return len(self.ids) if self.alive is None else int(self.alive.sum())

    def search(self, side: Side, query: Rows, k: int) -> list[tuple[str, float]]:
        """The ``k`` best living documents and their scores; of equal ones those with the smaller ids."""
        if side in self.inverted:
            rows, scores = self.inverted[side].scores(csr_array(query), len(self.ids))
            if self.alive is not None:
                living = self.alive[rows]
                rows, scores = rows[living], scores[living]
        elif side in self.vectors and self.living:
            rows, scores = self._nearest(side, np.asarray(query, np.float32), k)
        else:
            return []
        if len(rows) > k:  # all that tie with the last one stay, for their ids decide
            enough = scores >= np.partition(scores, -k)[-k]
            rows, scores = rows[enough], scores[enough]
        best = np.lexsort((rows, -scores))[:k]
        return [(self.ids[int(rows[i])], float(scores[i])) for i in best]

    def _nearest(self, side: Side, query: NDArray[np.float32], k: int) -> tuple[NDArray[Any], NDArray[np.float32]]:
        """Rows and scores of at least the ``k`` living documents of the largest inner products, and of all ties with the last."""
        selector = None if self.alive is None else _faiss.IDSelectorBitmap(np.packbits(self.alive, bitorder="little"))
        wanted = min(self.living, k + 1)
        while True:
            if side in self.graphs:
                options = _faiss.SearchParametersHNSW(sel=selector, efSearch=max(_BREADTH, 2 * wanted))
                found, values = (row[0] for row in self.graphs[side].search(query, wanted, params=options)[::-1])
                return found[found >= 0], values[found >= 0]
            found, values = _flat(query, self.vectors[side], wanted, selector)
            if wanted == self.living or values[-1] < values[k - 1]:
                return found, values
            wanted = min(self.living, 2 * wanted)


def _flat(
    query: NDArray[np.float32], vectors: NDArray[np.float32], k: int, selector: Any
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """As ``faiss.knn``, which takes no selector: rows and inner products of the nearest vectors."""
    query, vectors = np.ascontiguousarray(query), np.ascontiguousarray(vectors)
    values, rows = np.empty(k, np.float32), np.empty(k, np.int64)
    pointers = [faiss.swig_ptr(array) for array in (query, vectors, values, rows)]
    _faiss.knn_inner_product(*pointers[:2], vectors.shape[1], 1, len(vectors), k, *pointers[2:], selector)
    return rows, values


def write_segment(folder: Path, ids: Sequence[str], sides: Mapping[Side, Rows]) -> None:
    """Write documents, no id twice, as a new segment."""
    order = np.array(sorted(range(len(ids)), key=ids.__getitem__), dtype=np.int64)
    with atomic_folder(folder) as part:
        Ids.write(part, [ids[row] for row in order])
        for side, rows in sides.items():
            if issparse(rows):
                _save_postings(part, side, Postings.of(csr_array(rows)[order]))
            else:
                np.save(part / f"{side}.vectors.npy", np.ascontiguousarray(np.asarray(rows)[order], np.float32))
                _save_graph(part, side)


def merge_segments(folder: Path, segments: Sequence[Segment]) -> None:
    """Write the living documents of several segments as one; memory holds their ids and a term's places, not their vectors."""
    living = [
        (segment.ids[row], number, row)
        for number, segment in enumerate(segments)
        for row in range(len(segment.ids))
        if segment.alive is None or segment.alive[row]
    ]
    living.sort()
    places = [np.full(len(segment.ids), -1, np.int32) for segment in segments]
    for new, (_, number, row) in enumerate(living):
        places[number][row] = new
    with atomic_folder(folder) as part:
        Ids.write(part, [name for name, _, _ in living])
        for side in sorted({side for segment in segments for side in segment.inverted}):
            having = [(s.inverted[side], p) for s, p in zip(segments, places, strict=True) if side in s.inverted]
            _merge_postings(part, side, *zip(*having, strict=True))
        for side in sorted({side for segment in segments for side in segment.vectors}):
            _merge_vectors(part, side, segments, places, len(living))


def _merge_postings(folder: Path, side: str, parts: Sequence[Postings], places: Sequence[Places]) -> None:
    start = postings.kept(parts, places)
    np.save(folder / f"{side}.start.npy", start)
    sizes = {"documents": np.int32, "weights": np.float32}
    out = [_create(folder / f"{side}.{field}.npy", (int(start[-1]),), kind) for field, kind in sizes.items()]
    postings.merge(parts, places, Postings(start, *out))


def _merge_vectors(
    folder: Path, side: str, segments: Sequence[Segment], places: Sequence[Places], documents: int
) -> None:
    dimension = next(segment.vectors[side].shape[1] for segment in segments if side in segment.vectors)
    out = _create(folder / f"{side}.vectors.npy", (documents, dimension), np.float32)
    for segment, place in zip(segments, places, strict=True):
        for start in range(0, len(place), _COPIED):
            new = place[start : start + _COPIED]
            out[new[new >= 0]] = segment.vectors[side][start : start + _COPIED][new >= 0]
    _save_graph(folder, side)


def _save_postings(folder: Path, side: str, rows: Postings) -> None:
    for field, values in zip(_FIELDS, rows, strict=True):
        np.save(folder / f"{side}.{field}.npy", np.asarray(values))


def _save_graph(folder: Path, side: str) -> None:
    vectors = _load(folder / f"{side}.vectors.npy")
    if len(vectors) < HNSW_FROM:
        return
    graph = faiss.IndexHNSWFlat(vectors.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    graph.hnsw.efConstruction = _BREADTH
    graph.add(vectors)
    faiss.write_index(graph, str(folder / f"{side}.hnsw"))


def _create(file: Path, shape: tuple[int, ...], kind: type) -> NDArray[Any]:
    if 0 in shape:  # nothing can be mapped
        np.save(file, np.empty(shape, kind))
        return np.empty(shape, kind)
    mapped = np.lib.format.open_memmap(file, mode="w+", dtype=kind, shape=shape)
    if hasattr(os, "posix_fallocate"):  # a full disk is an error here, and a crash in the middle of a mapped file
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)
    return mapped


def _sides(folder: Path, ending: str) -> list[str]:
    return sorted(file.name.removesuffix(ending) for file in folder.glob(f"*{ending}"))


def _load(file: Path) -> NDArray[Any]:
    return np.asarray(np.load(file, mmap_mode="r")) if file.stat().st_size > 128 else np.load(file)
