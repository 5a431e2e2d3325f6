"""Read compressed files of one or more streams, as ``cat a.bz2 b.bz2`` and parallel compressors make them."""

from __future__ import annotations

import bz2
import io
import lzma
from collections.abc import Callable
from typing import IO, Any

_READ = 2**16  # bytes of the compressed file at once; a multiple of the groups of zeros that xz allows between streams


def open_bz2(file: IO[bytes]) -> IO[bytes]:
    """Decompress a file of bzip2."""
    return io.BufferedReader(_Streams(file, bz2.BZ2Decompressor, padding=b""))


def open_xz(file: IO[bytes]) -> IO[bytes]:
    """Decompress a file of xz."""
    return io.BufferedReader(_Streams(file, lzma.LZMADecompressor, padding=b"\0"))


class _Streams(io.RawIOBase):
    """The content of all streams. ``bz2.open`` and ``lzma.open`` end without an error where the next stream is damaged.

    Args:
        file: The compressed file.
        begin: Makes the decompressor of a stream.
        padding: The byte that may stand between streams in groups of four.

    Raises:
        OSError, lzma.LZMAError: A stream is damaged.
        EOFError: The last stream is not complete.
    """

    def __init__(self, file: IO[bytes], begin: Callable[[], Any], padding: bytes) -> None:
        self._file, self._begin, self._padding = file, begin, padding
        self._stream = begin()

    def readable(self) -> bool:
        """The file is open for reading."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer, and return the number of bytes; 0 at the end."""
        content = b""
        while not content:
            data = b""
            if self._stream.eof:
                if not (data := self._next_stream()):
                    return 0
                self._stream = self._begin()
            elif self._stream.needs_input and not (data := self._file.read(_READ)):
                raise EOFError("Compressed file ended before the end of a stream")
            content = self._stream.decompress(data, len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def _next_stream(self) -> bytes:
        """The first bytes behind the stream that has ended and its padding; none at the end of the file."""
        data = self._stream.unused_data or self._file.read(_READ)
        while data:
            zeros = len(data) - len(data.lstrip(self._padding))
            if data := data[zeros // 4 * 4 :]:
                break
            data = self._file.read(_READ)
        return data
