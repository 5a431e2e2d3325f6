"""The embedded engine: segments on disk, a list of those that count, exact search by memory-mapped arrays (of many dense vectors
approximate, by a graph; see :data:`text2token.search.segment.HNSW_FROM`).

Nothing that is written is changed again: documents come in new segments, deletions are new tombstones, and what counts is said
by one small file that is replaced as a whole (as in Lucene). A process may be killed at any moment, and no reader is disturbed.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from text2token.search.engine import Hit, Rows, best
from text2token.search.segment import Segment, merge_segments, write_segment
from text2token.settings.search import Side
from text2token.utils.files import write_json

_MANIFEST = "segments.json"
_FAN = (
    8  # segments of about one size become one: a document is written again log₈ N times, and few segments are searched
)
_MOST_DEAD = 0.2  # of a segment's documents, before it is written anew


class EmbeddedEngine:
    """A folder with an index; see :class:`text2token.search.engine.Engine`. One process writes at a time, any number reads.

    Args:
        folder: Made when it is not there.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._version = 0
        self._segments: dict[str, Segment] = {}
        self._tombs: dict[str, str] = {}  # files that say of a segment what is dead now
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / _MANIFEST).is_file():
            self._read()

    def add(self, ids: Sequence[str], vectors: Mapping[Side, Rows]) -> None:
        """Keep documents; of an id that is given twice the last counts."""
        last = {name: row for row, name in enumerate(ids)}
        if not last:
            return
        rows = list(last.values())
        chosen = {side: matrix if len(rows) == len(ids) else matrix[rows] for side, matrix in vectors.items()}
        self._bury(ids)
        self._new(lambda folder: write_segment(folder, list(last), chosen), replaced=())
        self._commit()
        self._tidy()

    def delete(self, ids: Sequence[str]) -> None:
        """Forget documents."""
        self._bury(ids)
        self._commit()
        self._tidy()

    def search(self, side: Side, query: Rows, k: int) -> list[Hit]:
        """The best documents of a side."""
        found = [Hit(*hit) for segment in self._segments.values() for hit in segment.search(side, query, k)]
        return found if len(self._segments) == 1 else best(found, k)

    def count(self) -> int:
        """How many documents there are."""
        return sum(segment.living for segment in self._segments.values())

    def finish(self) -> None:
        """Merge small segments, and larger ones as long as that makes them an eighth larger.

        So a first build ends with few segments, the fastest to search, and a small addition leaves the large ones alone.
        """
        names = sorted(self._segments, key=lambda name: len(self._segments[name].ids), reverse=True)
        sizes = [len(self._segments[name].ids) for name in names]
        for i in range(len(names) - 1):
            if _FAN * sum(sizes[i + 1 :]) >= sizes[i]:
                self._merge(names[i:])
                return

    def _read(self) -> None:
        """Open what counts; once more where it is not what counts any longer, for a writer clears the rest away."""
        listed = self._listed()
        try:
            self._segments = {name: self._open(name, tombs) for name, tombs in listed["segments"].items()}
        except FileNotFoundError:
            if self._listed() == listed:
                raise
        if self._listed() != listed:
            self._read()
            return
        self._version = listed["version"]
        self._tombs = {name: tombs for name, tombs in listed["segments"].items() if tombs}

    def _listed(self) -> dict[str, Any]:
        listed: dict[str, Any] = json.loads((self._folder / _MANIFEST).read_text())
        return listed

    def _bury(self, ids: Sequence[str]) -> None:
        """Mark documents as dead, in memory."""
        for place, segment in self._segments.items():
            rows = [row for name in ids if (row := segment.ids.row(name)) is not None]
            if rows:
                alive = np.ones(len(segment.ids), bool) if segment.alive is None else segment.alive.copy()
                alive[rows] = False
                segment.alive = alive
                self._tombs.pop(place, None)

    def _tidy(self) -> None:
        """Write worn segments anew, and make many of one size one."""
        worn = [
            name for name, segment in self._segments.items() if segment.living < (1 - _MOST_DEAD) * len(segment.ids)
        ]
        for name in worn:
            self._merge([name])
        while group := self._mergeable():
            self._merge(group)

    def _mergeable(self) -> list[str]:
        """Names of ``_FAN`` segments of about one size; none when there are not so many."""
        tiers: dict[int, list[str]] = {}
        for name, segment in self._segments.items():
            tiers.setdefault(int(math.log(max(len(segment.ids), 1), _FAN)), []).append(name)
        return next((names for names in tiers.values() if len(names) >= _FAN), [])

    def _merge(self, names: Sequence[str]) -> None:
        parts = [self._segments[name] for name in names]
        if any(segment.living for segment in parts):
            self._new(lambda folder: merge_segments(folder, parts), replaced=names)
        else:
            self._segments = {name: segment for name, segment in self._segments.items() if name not in names}
        self._commit()

    def _new(self, write: Callable[[Path], None], replaced: Sequence[str]) -> None:
        name = f"{self._version + 1:08d}"
        write(self._folder / name)
        staying = {old: segment for old, segment in self._segments.items() if old not in replaced}
        self._segments = {**staying, name: self._open(name, None)}

    def _commit(self) -> None:
        """Say what counts from now on, then clear away what does not."""
        self._version += 1
        tombs: dict[str, str | None] = {}
        for name, segment in self._segments.items():
            if segment.alive is not None and name not in self._tombs:
                self._tombs[name] = f"{name}.{self._version:08d}.npy"
                np.save(self._folder / self._tombs[name], segment.alive)
            tombs[name] = self._tombs.get(name)
        write_json(self._folder / _MANIFEST, {"version": self._version, "segments": tombs})
        used = {_MANIFEST, *tombs, *filter(None, tombs.values())}
        for path in self._folder.iterdir():
            if path.name not in used:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _open(self, name: str, tombs: str | None) -> Segment:
        return Segment(self._folder / name, np.load(self._folder / tombs) if tombs else None)
