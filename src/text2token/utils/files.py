"""Files and folders that are written completely or not at all, and locks between processes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from text2token.utils.errors import BusyError, UserError, first_line


def local_path(name: str | Path) -> Path:
    """Return the path that a user names on this machine; ``~`` is the home folder, as in a shell.

    Public functions call this once, where they take a name. A ``~`` before what is no user stays, as in a shell.
    """
    return Path(os.path.expanduser(name))  # noqa: PTH111  # Path.expanduser raises an error if there is no such user


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``file``. It replaces ``file`` if the block succeeds, and is deleted if it fails.

    A killed process leaves the old ``file`` as it was. The data is not flushed to the disk, so a power failure can still lose it.
    A link stays, and the file that it points to is replaced.
    """
    file = file.resolve()
    part = file.with_name(file.name + ".part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside ``folder``. It replaces ``folder`` if the block succeeds.

    ``folder`` is whole or missing: a process that is killed between two renames leaves it under another name, and the next call
    finds it there. What else a killed process left behind is deleted.
    """
    part, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    if old.exists() and not folder.exists():
        old.replace(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        part.replace(folder)
    finally:
        for left in (part, old):
            shutil.rmtree(left, ignore_errors=True)


def write_text(file: Path, text: str) -> None:
    """Write a text in UTF-8, completely or not at all. A lone surrogate, which UTF-8 cannot encode, becomes its escape."""
    with atomic_write(file) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(file: Path, content: Any) -> None:
    """Write indented JSON, as :func:`write_text` does."""
    write_text(file, json.dumps(content, indent=2, ensure_ascii=False))


def read_json(file: Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: It is missing, is not JSON in UTF-8, or is nested too deeply to be read.
    """
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"Cannot read '{file}': {first_line(error)}.") from error


def file_stamps(folder: Path) -> dict[str, list[int]]:
    """Return size and time of change, in ns, of each file below a folder; empty if it is none.

    Equal stamps mean equal files, as make and Git assume too. They are read at once, where a checksum reads every byte.
    """
    found = {str(file.relative_to(folder)): file.stat() for file in sorted(folder.rglob("*")) if file.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in found.items()}


def check_writable(output: Path) -> None:
    """Check that ``output`` can be created: make and delete a temporary file in the nearest folder that exists.

    Raises:
        UserError: It cannot.
    """
    folder = next(parent for parent in output.absolute().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"Cannot write to '{folder}' ({error.strerror}): choose another folder.") from error


def check_file(file: Path) -> None:
    """Check that ``file`` can be written: nothing or a regular file is there. A device or a pipe would be replaced by a file.

    Raises:
        UserError: It cannot.
    """
    if file.exists() and not file.is_file():
        kind = "a folder" if file.is_dir() else "not a regular file"
        raise UserError(f"'{file}' is {kind}: name a file.")
    check_writable(file)


def check_folder(folder: Path) -> None:
    """Check that files can be written into ``folder``: nothing or a writable folder is there.

    Raises:
        UserError: They cannot.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{folder}' is a file: name a folder.")
    check_writable(folder / "file")


@contextmanager
def exclusive_lock(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock ``file`` during the block. Refuse at once if another process holds it.

    Args:
        file: The lock file; it is deleted at the end.
        refusal: The sentence of the error.

    Raises:
        BusyError: Another process holds the lock.
        UserError: The disk does not support locks, as some network disks.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise BusyError(refusal) from None
    except OSError as error:
        if error.filename:
            raise
        reason = error.strerror or first_line(error)
        raise UserError(
            f"The disk of '{file.parent}' has no file locks ({reason}): use a folder on a local disk."
        ) from error
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


@contextmanager
def output_lock(output: Path) -> Iterator[None]:
    """Hold the lock of an output file or folder during the block.

    Missing parent folders are created, and deleted again if they stay empty.

    Args:
        output: The lock file lies beside it and is called ``.NAME.lock``.

    Raises:
        UserError: Another process is writing the same output.
    """
    output = output.absolute()
    created = [folder for folder in output.parents if not folder.exists()]
    output.parent.mkdir(parents=True, exist_ok=True)
    lock = output.parent / f".{output.name}.lock"  # the root folder has no name, so with_name fails on it
    refusal = f"Another process is at work on '{output}': wait until it is done, or choose another name."
    try:
        with exclusive_lock(lock, refusal):
            yield
    finally:
        for folder in created:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
