"""The embedded engine: segments on disk, a manifest that lists them, and exact search in memory-mapped arrays.

Written files are never changed. New documents go into a new segment, deletions into a new file beside the segment. The manifest
names the files in use and is replaced as a whole, as in Lucene. So a process may be killed at any moment, and readers in this
process and in others are not disturbed by a writer. A reader that follows it looks whether the manifest is another one.
"""

from __future__ import annotations

import copy
import math
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from text2token.search.engines.base import Matrix, ScoredId, best
from text2token.search.engines.segment import Segment, merge_segments, write_segment
from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError, first_line
from text2token.utils.files import read_json, write_json

_MANIFEST = "segments.json"
MERGE_FACTOR = 8  # so many segments of similar size are merged; a document is then rewritten at most log₈ N times
MAX_DELETED_SHARE = 0.2  # a segment with a larger share of deleted documents is rewritten without them


class EmbeddedEngine:
    """An engine in a folder; see :class:`text2token.search.engines.base.Engine`.

    One process may write at a time, any number may read.

    Args:
        folder: Folder of the engine; it is made if it does not exist.
    """

    in_process = True
    max_id_bytes: int | None = None

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version = 0
        self._segments: dict[str, Segment] = {}  # replaced as a whole, since searches in other threads read it
        self._listed: dict[str, str | None] = {}  # segment → file that marks its deleted documents
        self._lock = threading.RLock()  # held while segments and manifest are changed or read
        folder.mkdir(parents=True, exist_ok=True)
        self._stamp: tuple[int, int] | None = None  # of the manifest that was read or written last
        self.follow()

    def check(self) -> None:
        """Nothing can be missing in a folder."""

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """See the protocol."""
        last = {name: row for row, name in enumerate(ids)}
        if not last:
            return
        rows = list(last.values())
        chosen = {field: matrix if len(rows) == len(ids) else matrix[rows] for field, matrix in vectors.items()}
        values = [metadata[row] for row in rows] if metadata else []
        with self._lock:
            new = self._written_segment(lambda folder: write_segment(folder, list(last), chosen, values))
            self._publish(self._segments_without(ids) | new)
            self._compact()

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        with self._lock:
            self._publish(self._segments_without(ids))
            self._compact()

    def search(
        self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = (), lost: list[str] | None = None
    ) -> list[ScoredId]:
        """See the protocol."""
        segments = self._segments.values()
        found = [ScoredId(*hit) for segment in segments for hit in segment.search(field, query, k, filters)]
        return found if len(segments) == 1 else best(found, k)

    def count(self, lost: list[str] | None = None) -> int:
        """See the protocol."""
        return sum(segment.count for segment in self._segments.values())

    def close(self) -> None:
        """Nothing to do: files are unmapped when nobody uses the engine any more."""

    def finish(self) -> None:
        """Merge small segments, and a larger one if that makes it at most an eighth larger.

        So a first build ends with few segments, which are fastest to search, and a small addition does not rewrite large ones.
        """
        with self._lock:
            names = sorted(self._segments, key=lambda name: len(self._segments[name].ids), reverse=True)
            sizes = [len(self._segments[name].ids) for name in names]
            for i in range(len(names) - 1):
                if MERGE_FACTOR * sum(sizes[i + 1 :]) >= sizes[i]:
                    self._merge(names[i:])
                    return

    def follow(self) -> None:
        """See the protocol. Nothing is read while another thread of this process changes or reads the manifest."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            if self._written() not in (None, self._stamp):
                self._read()
        finally:
            self._lock.release()

    def _written(self) -> tuple[int, int] | None:
        """Return inode and time of change of the manifest, which identify it; None if there is none."""
        try:
            found = (self._folder / _MANIFEST).stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_mtime_ns

    def _read(self) -> None:
        """Open the segments in the manifest. Retry if a writer replaced the manifest while they were opened."""
        stamp, manifest = self._written(), self._manifest()
        try:
            self._segments = {name: self._open(name, file) for name, file in manifest["segments"].items()}
        except FileNotFoundError:
            if self._manifest() == manifest:
                raise
        except (ValueError, EOFError) as error:  # of NumPy and Arrow: a file is cut off, or is something else
            raise UserError(f"'{self._folder}' is damaged ({first_line(error)}): make the index again.") from error
        if self._manifest() != manifest:
            self._read()
            return
        self._version, self._listed, self._stamp = manifest["version"], manifest["segments"], stamp

    def _manifest(self) -> dict[str, Any]:
        manifest: dict[str, Any] = read_json(self._folder / _MANIFEST)
        return manifest

    def _segments_without(self, ids: Sequence[str]) -> dict[str, Segment]:
        """The segments with some documents marked as deleted; searches do not see the marks yet."""
        return {name: _without(segment, ids) for name, segment in self._segments.items()}

    def _compact(self) -> None:
        """Rewrite segments with many deleted documents, and merge segments of similar size."""
        for name in [name for name, segment in self._segments.items() if _needs_compaction(segment)]:
            self._merge([name])
        while group := self._similar_segments():
            self._merge(group)

    def _similar_segments(self) -> list[str]:
        """Names of at least ``MERGE_FACTOR`` segments of similar size; empty if there are fewer."""
        tiers: dict[int, list[str]] = {}
        for name, segment in self._segments.items():
            tiers.setdefault(int(math.log(max(len(segment.ids), 1), MERGE_FACTOR)), []).append(name)
        return next((names for names in tiers.values() if len(names) >= MERGE_FACTOR), [])

    def _merge(self, names: Sequence[str]) -> None:
        parts = [self._segments[name] for name in names]
        remaining = {name: segment for name, segment in self._segments.items() if name not in names}
        if any(segment.count for segment in parts):
            remaining |= self._written_segment(lambda folder: merge_segments(folder, parts))
        self._publish(remaining)

    def _written_segment(self, write: Callable[[Path], None]) -> dict[str, Segment]:
        """Write a segment, which searches do not see yet, and return it by its name."""
        name = f"{self._version + 1:08d}"
        write(self._folder / name)
        return {name: self._open(name, None)}

    def _publish(self, segments: dict[str, Segment]) -> None:
        """Write new marks of deletion and the manifest, let searches read the segments, then remove files that are not used.

        After an error before that, as of a full disk, searches read what the old manifest lists.
        """
        version = self._version + 1
        listed = {name: self._listed.get(name) for name in segments}
        for name, segment in segments.items():
            if segment.alive is not None and segment is not self._segments[name]:
                listed[name] = file = f"{name}.{version:08d}.npy"
                np.save(self._folder / file, segment.alive)
        write_json(self._folder / _MANIFEST, {"version": version, "segments": listed})
        self._segments, self._listed, self._version, self._stamp = segments, listed, version, self._written()
        used = {_MANIFEST, *listed, *filter(None, listed.values())}
        for path in self._folder.iterdir():
            if path.name not in used:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _open(self, name: str, deletions: str | None) -> Segment:
        return Segment(self._folder / name, np.load(self._folder / deletions) if deletions else None)


def _needs_compaction(segment: Segment) -> bool:
    return segment.count < (1 - MAX_DELETED_SHARE) * len(segment.ids)


def _without(segment: Segment, ids: Sequence[str]) -> Segment:
    """A segment with some documents marked as deleted. A search may read the old one, which stays as it is."""
    rows = [row for document in ids if (row := segment.ids.row(document)) is not None]
    if not rows:
        return segment
    marked = copy.copy(segment)
    marked.alive = np.ones(len(segment.ids), bool) if segment.alive is None else segment.alive.copy()
    marked.alive[rows] = False
    return marked
