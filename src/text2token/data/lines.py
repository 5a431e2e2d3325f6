"""Read the lines of a UTF-8 file, compressed or not."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any

from text2token.data.streams import open_bz2, open_xz
from text2token.utils.errors import UserError, first_line

_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)


def _zstd(file: IO[bytes]) -> IO[bytes]:
    import pyarrow as pa  # a moment to import, which text files need not wait for

    return io.BufferedReader(pa.input_stream(file, compression="zstd"))


_COMPRESSIONS: dict[str, Callable[[IO[bytes]], Any]] = {
    ".gz": gzip.open,
    ".zst": _zstd,
    ".bz2": open_bz2,
    ".xz": open_xz,
}
COMPRESSIONS = tuple(_COMPRESSIONS)
"""Endings of the compressed files that are read."""


def file_format(path: Path) -> str:
    """Return the ending of a file in lower case, without that of the compression: ``.csv`` for ``A.CSV.gz``."""
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _COMPRESSIONS else suffix


@contextmanager
def open_bytes(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading, and decompress it if its ending says that it is compressed."""
    decompress = _COMPRESSIONS.get(path.suffix.lower(), nullcontext)
    with path.open("rb") as file, decompress(file) as content:
        yield content


@contextmanager
def name_file(path: Path) -> Iterator[None]:
    """Name the file that a block reads in an error of the operating system. Errors of the content, which have no number, stay."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


def read_lines(path: Path, name: str | None = None) -> Iterator[str]:
    r"""Yield the lines of a UTF-8 file, each with its line feed. Other separators (``\\x85``, ``\\u2028``) do not end a line.

    Args:
        path: The file.
        name: What messages call it; None: its path.

    Raises:
        UserError: A line is not UTF-8 (the message gives its number), or the compressed file is damaged.
        OSError: The file cannot be opened or read; the error names it.
    """
    number = 0
    try:
        with name_file(path), open_bytes(path) as file:
            for number, line in enumerate(file, start=1):
                yield line.decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        raise UserError(f"{name or path}, line {number}: not UTF-8 text; convert the file to UTF-8") from None
    except _DAMAGED as error:
        if path.suffix.lower() not in _COMPRESSIONS or (isinstance(error, OSError) and error.filename):
            raise  # an error of the disk, not of the content
        raise UserError(f"{path}: cannot be decompressed ({first_line(error)}); make the file again") from None
