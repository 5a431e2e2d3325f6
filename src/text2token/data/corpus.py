"""Unlabelled text from files, folders, standard input, a datasets hub or memory, streamed as often as asked for."""

from __future__ import annotations

import glob
import hashlib
import heapq
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from text2token.data.tables import TABLES, Row, pick, read_lines, read_table
from text2token.utils.errors import UserError

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


class _Part(NamedTuple):
    """One source: its label in messages, and a function that starts reading its rows (None: no text there)."""

    label: str
    rows: Callable[[], Iterable[object]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts in a fixed order, read again at each iteration, one in memory at a time.

    Iterating yields each text without null bytes, lone surrogates and surrounding white space; blank ones are skipped.
    It raises :class:`UserError` where a source cannot be read, and at the end if there was no text at all.

    Attributes:
        name: What was opened, for people.
    """

    name: str
    _parts: tuple[_Part, ...]

    @classmethod
    def from_texts(cls, texts: Sequence[str]) -> Corpus:
        """A corpus held in memory."""
        return cls(f"{len(texts)} texts in memory", (_Part("texts in memory", partial(iter, tuple(texts))),))

    def __iter__(self) -> Iterator[str]:
        empty = True
        for label, rows in self._parts:
            for number, value in enumerate(rows(), start=1):
                if value is None:
                    continue
                if not isinstance(value, str):
                    kind = type(value).__name__
                    raise UserError(f"{label}, row {number}: expected a text, found {kind}; set text_column to another")
                if text := clean(value):
                    empty = False
                    yield text
        if empty:
            raise UserError(f"no text in {self.name}: every line is blank; check that this is the right corpus")

    def fingerprint(self, texts: int | None = None) -> str:
        """SHA-256 (hex) of the cleaned texts in order, of the first so many or, with None, of the whole corpus."""
        digest = hashlib.sha256()
        for text in islice(self, texts):
            digest.update(text.encode() + b"\0")  # no cleaned text holds the separator
        return digest.hexdigest()


def open_corpus(sources: Sequence[str | Path] | str | Path, *, text_column: str = "text") -> Corpus:
    """Open one or several sources as one corpus. Files are checked for being there; their content is read later.

    Args:
        sources: Each a file (``.txt``: one text per line; ``.jsonl`` or ``.json``: one object per line; ``.csv`` with a
            header; ``.parquet``), a folder (all such files in it, at any depth, sorted, hidden ones left out), a glob
            pattern, ``-`` for one text per line on standard input, or the name of a hub dataset (its ``train`` split).
            A file that several sources name is read once.
        text_column: Where the texts are, for all formats but ``.txt``.

    Raises:
        UserError: A source that is not there, of an unknown format, or without any file of a known one.
    """
    names = [str(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not names:
        raise UserError("no corpus given: name at least one file, folder, pattern or dataset")
    found = {part.label: part for name in dict.fromkeys(names) for part in _open(name, text_column)}
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return Corpus(names[0] + more, tuple(found.values()))


def sample(texts: Iterable[str], size: int | None, seed: int) -> list[str]:
    """Uniform sample of the distinct texts, in an order shuffled by the seed, in one pass and O(size) memory.

    The texts with the smallest keyed hashes are kept (bottom-k sampling): unlike a reservoir of positions, this drops
    exact duplicates without remembering all that went by. The outcome does not depend on the order of the texts, and
    a smaller sample is the beginning of a larger one.

    Args:
        texts: Without lone surrogates, as a :class:`Corpus` yields them.
        size: How many at most; None keeps all.
        seed: Any 64-bit integer.
    """
    salt = seed.to_bytes(16, "little", signed=True)
    kept: dict[int, str] = {}
    worst_first: list[int] = []  # heap of the negated hashes
    for text in texts:
        key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=16, salt=salt).digest())
        if key in kept:
            continue
        kept[key] = text
        heapq.heappush(worst_first, -key)
        if size is not None and len(kept) > size:
            del kept[-heapq.heappop(worst_first)]
    return [kept[key] for key in sorted(kept)]


def clean(text: str) -> str:
    """Without null bytes, lone surrogates and surrounding white space."""
    return text.replace("\0", "").encode(errors="ignore").decode().strip()


def _open(source: str, column: str) -> list[_Part]:
    if source == "-":
        return [_spool_standard_input()]
    path = Path(source)
    # Not Path.glob: that takes no absolute pattern, and lists hidden files too.
    pattern = f"{glob.escape(source)}/**" if path.is_dir() else source
    matches = [source] if path.is_file() else sorted(glob.glob(pattern, recursive=True))  # noqa: PTH207
    files = [file for file in map(Path, matches) if file.is_file() and file.suffix.lower() in _READERS]
    if files:
        return [_Part(str(file), partial(_READERS[file.suffix.lower()], file, column)) for file in files]
    if matches:
        raise UserError(f"{source} is no file of a known format and holds none; convert it to one of {_FORMATS}")
    if path.suffix.lower() in _READERS or not _HUB_NAME.fullmatch(source):
        raise UserError(f"{source} does not exist; give a file, folder or pattern of {_FORMATS} files")
    return [_open_hub_dataset(source, column)]


def _spool_standard_input() -> _Part:
    """Copy standard input to a temporary file, since a corpus is read several times."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    path = Path(file.name)
    rows = partial(read_lines, path)
    weakref.finalize(rows, path.unlink, missing_ok=True)
    return _Part("standard input", rows)


def _open_hub_dataset(name: str, column: str) -> _Part:
    import datasets  # a second to import, and most corpora are files

    try:
        dataset = datasets.load_dataset(name, split="train", streaming=True)
    except OSError:
        raise UserError(f"{name} is neither a file here nor a dataset that can be reached; check its name") from None
    except ValueError as error:  # no train split, or several configurations
        raise UserError(f"{name}: {error}; save the part you want as a .parquet file and give that") from None
    return _Part(name, lambda: (pick(Row(name, row), column) for row in dataset))


def _read_column(path: Path, column: str) -> Iterator[Any]:
    for row in read_table(path, [column]):
        yield None if row.values is None else pick(row, column)


_READERS: dict[str, Callable[[Path, str], Iterator[Any]]] = {
    ".txt": lambda file, _: read_lines(file),
    **dict.fromkeys(TABLES, _read_column),
}
_FORMATS = ", ".join(_READERS)
