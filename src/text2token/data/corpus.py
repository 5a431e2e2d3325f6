"""Unlabelled texts from files, folders, standard input, the datasets hub or memory, read as a stream as often as needed."""

from __future__ import annotations

import glob
import hashlib
import heapq
import logging
import re
import shutil
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from text2token.data.folders import visible_files
from text2token.data.lines import file_format, read_lines
from text2token.data.rows import Row, TextCheck
from text2token.data.tables import TABLE_FORMATS, beir_corpus, is_table, read_table
from text2token.data.text import check_texts, is_stream
from text2token.utils.errors import PassingError, UserError, first_line
from text2token.utils.files import local_path

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
_COLUMN = "text"
_SETTING = "text_column"
_FORMATS = f".txt, {TABLE_FORMATS}"
_LISTED = 5  # files of a folder that a message names
_logger = logging.getLogger(__name__)


class _Source(NamedTuple):
    """One file or dataset: its label in messages, the column of its texts, and a function that starts reading its rows."""

    label: str
    column: str
    rows: Callable[[], Iterable[Row]]


@dataclass(frozen=True, eq=False)
class Corpus:
    """Texts in a fixed order. Each iteration reads them again, one in memory at a time.

    Iterating yields each text in the Unicode form NFC, without null bytes, lone surrogates and surrounding white space.
    Rows without text are skipped; the first complete iteration logs how many. It raises :class:`UserError` for a source that
    cannot be read, and at the end if there was no text at all.

    Attributes:
        name: What was opened, for messages.
        opened: The files, folders, patterns and datasets that were named. None for texts in memory.
    """

    name: str
    _sources: tuple[_Source, ...]
    _strict: bool = False
    opened: tuple[str, ...] = ()
    _reported: set[str] = field(default_factory=set)

    @classmethod
    def from_texts(cls, texts: Sequence[str], *, strict: bool = False) -> Corpus:
        """A corpus held in memory.

        Args:
            texts: In order.
            strict: Refuse an empty text instead of skipping it.

        Raises:
            UserError: An item is no string.
        """
        if not is_stream(texts):
            check_texts(texts)
        held = tuple(texts)
        check_texts(held)
        label = "texts in memory"
        rows = partial(_rows, label, held)
        return cls(f"{len(held)} texts in memory", (_Source(label, _COLUMN, rows),), strict)

    def __iter__(self) -> Iterator[str]:
        empty = True
        for source in self._sources:
            check = TextCheck("row", strict=self._strict)
            for row in source.rows():
                text = row.text(source.column, _SETTING)
                if check.has_text(row.place, text):
                    empty = False
                    yield text
            if source.label not in self._reported:
                self._reported.add(source.label)
                check.report(source.label)
        if empty:
            raise UserError(f"There is no text in {self.name}; check that this is the right corpus")

    def fingerprint(self, texts: int | None = None) -> str:
        """SHA-256 (hex) of the cleaned texts in order.

        Args:
            texts: Count only the first so many; None: all.
        """
        digest = hashlib.sha256()
        for text in islice(self, texts):
            digest.update(text.encode() + b"\0")  # no cleaned text holds the separator
        return digest.hexdigest()


def open_corpus(
    sources: Sequence[str | Path] | str | Path, *, text_column: str = _COLUMN, strict: bool = False
) -> Corpus:
    """Open one or several sources as one corpus. It checks that they exist; their content is read later.

    The files of a folder are listed in one line of the log. A folder in the format of BEIR (``corpus.jsonl`` beside
    ``queries.jsonl`` or ``qrels``) is read as its ``corpus`` file alone.

    Args:
        sources: Each is a file (``.txt``: one text per line; or a table, see :func:`text2token.data.read_table`), a folder (all
            such files in it, at any depth, sorted; hidden ones are left out), a glob pattern, ``-`` for one text per line on
            standard input, or the name of a dataset on the hub (its ``train`` split). A file that several sources name is read
            once.
        text_column: The column of the texts in a table or dataset.
        strict: Refuse a row without text instead of skipping it.

    Raises:
        UserError: A source does not exist, or has no file of a known format.
    """
    names = [str(source) for source in ([sources] if isinstance(sources, str | Path) else sources)]
    if not names:
        raise UserError("no corpus given: name at least one file, folder, pattern or dataset")
    found = {part.label: part for name in dict.fromkeys(names) for part in _open(name, text_column)}
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return Corpus(names[0] + more, tuple(found.values()), strict, tuple(names))


def sample(texts: Iterable[str], size: int | None, seed: int) -> list[str]:
    """Draw a uniform sample of the distinct texts, shuffled by the seed, in one pass and O(size) memory.

    The texts with the smallest keyed hashes are kept (bottom-k sampling). Unlike a reservoir of positions, this drops
    exact duplicates without remembering every text. The sample does not depend on the order of the texts, and
    a smaller sample is the beginning of a larger one.

    Args:
        texts: Texts without lone surrogates, as a :class:`Corpus` yields them.
        size: The largest number of texts; None: all.
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


def _open(source: str, column: str) -> list[_Source]:
    if not source:
        raise UserError("The name of a corpus is empty: give a file, folder, pattern or dataset")
    if source == "-":
        return [_spool_standard_input()]
    path = local_path(source)
    if path.is_dir():
        matches = sorted(map(str, visible_files(path)))
    else:  # not Path.glob: it takes no absolute pattern, and lists hidden files too
        matches = [str(path)] if path.is_file() else sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207
    files = [file for file in map(Path, matches) if file.is_file() and _is_readable(file)]
    if path.is_dir() and files:
        files = beir_corpus(path) or files
        _list_files(path, files)
    if files:
        return [_open_file(file, column) for file in files]
    if matches or path.is_dir():
        raise UserError(
            f"{source} is neither a file of a known format nor a folder with such files; convert it to one of {_FORMATS}"
        )
    if _is_readable(path) or not _HUB_NAME.fullmatch(source):
        raise UserError(f"{source} does not exist; give a file, folder or pattern of {_FORMATS} files")
    return [_open_hub_dataset(source, column)]


def _is_readable(file: Path) -> bool:
    return is_table(file) or file_format(file) == ".txt"


def _open_file(file: Path, column: str) -> _Source:
    if is_table(file):
        return _Source(str(file), column, partial(read_table, file, [column]))
    return _Source(str(file), _COLUMN, partial(_text_lines, str(file), file))


def _list_files(folder: Path, files: Sequence[Path]) -> None:
    names = [str(file.relative_to(folder)) for file in files]
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    _logger.warning("%s: reading %s%s", folder, ", ".join(names[:_LISTED]), more)


def _rows(label: str, values: Iterable[object]) -> Iterator[Row]:
    for number, value in enumerate(values, start=1):
        yield Row(f"{label}, row {number}", {_COLUMN: value})


def _text_lines(label: str, path: Path) -> Iterator[Row]:
    """Rows of a text file; a blank line is not a row."""
    for number, line in enumerate(read_lines(path, label), start=1):
        if line.strip():
            yield Row(f"{label}, line {number}", {_COLUMN: line})


def _spool_standard_input() -> _Source:
    """Copy standard input to a temporary file, because a corpus is read several times."""
    with tempfile.NamedTemporaryFile(delete=False) as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
    path = Path(file.name)
    rows = partial(_text_lines, "standard input", path)
    weakref.finalize(rows, path.unlink, missing_ok=True)
    return _Source("standard input", _COLUMN, rows)


def _open_hub_dataset(name: str, column: str) -> _Source:
    import datasets  # takes a second to import, and most corpora are files

    try:
        dataset = datasets.load_dataset(name, split="train", streaming=True)
    except OSError:
        raise UserError(f"{name} is neither a file here nor a dataset that can be reached; check its name") from None
    except Exception as error:  # no train split, several configurations, a dataset that is a script, a broken file
        raise UserError(
            f"{name}: {first_line(error)}; save the part you want as a .parquet file and give that"
        ) from error

    def rows() -> Iterator[Row]:
        try:
            for number, values in enumerate(dataset, start=1):
                yield Row(f"{name}, row {number}", values)
        except Exception as error:
            raise PassingError(f"{name}: the stream broke off ({first_line(error)}); run the command again") from error

    return _Source(name, column, rows)
