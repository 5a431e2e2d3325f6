"""Files on this machine and on object stores (``s3://``, ``gs://`` and whatever else fsspec reads), as paths."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar, cast
from uuid import uuid4

from text2token.utils.errors import UserError, first_line
from text2token.utils.files import check_writable, local_path

Item = TypeVar("Item")
_PACKAGES = {"s3fs": "text2token[s3]", "upath": "text2token[search]"}  # what to install for a missing package


def open_place(name: str | Path) -> Path:
    """Return the path of a file or folder. The path of a URL has the methods of :class:`pathlib.Path`.

    Args:
        name: A local path, or a URL such as ``s3://bucket/folder``. Credentials and the address of the store come from the
            environment, as the packages of the stores read them. The path of a URL is returned as it is.

    Raises:
        UserError: The kind of URL is unknown, or its package is not installed.
    """
    if not isinstance(name, str) and not is_local(name):
        return name
    if "://" not in str(name):
        return local_path(name)
    try:
        from upath import UPath  # a moment to import, which local paths need not wait for

        path = UPath(name)
        if path.protocol in ("", "file", "local"):
            return Path(path.path)
        _file_system(path)  # imports the package of the store
    except (ImportError, ValueError) as error:
        package = next((package for package in _PACKAGES if package in str(error)), None)
        advice = f"pip install '{_PACKAGES[package]}'" if package else "check the first part of the address"
        raise UserError(f"'{name}' cannot be opened ({first_line(error).rstrip('.')}): {advice}.") from error
    return cast(Path, path)


def absolute_place(name: str | Path) -> Path:
    """Return what :func:`open_place` returns, in full, so that it holds in any folder and for other processes."""
    place = open_place(name)
    return place.absolute() if is_local(place) else place


def check_outside(output: Path, *sources: str | Path) -> None:
    """Check that ``output`` is not in a folder that is read: the next run would read it too.

    Args:
        output: Where a run writes.
        sources: What it reads; only local folders matter.

    Raises:
        UserError: It is.
    """
    places = [local_path(source) for source in sources if isinstance(source, str) or is_local(source)]
    for folder in places if is_local(output) else []:
        if folder.is_dir() and output.resolve().is_relative_to(folder.resolve()):
            raise UserError(
                f"The output '{output}' is in the folder '{folder}', which is read: name a place outside of it."
            )


def write_whole(file: Path, content: bytes | memoryview) -> None:
    """Write a file that other processes see complete or not at all, also when several of them write it.

    A local file is written under a temporary name and renamed. An object store gets the whole file in one request.
    """
    if not is_local(file):
        _file_system(file).pipe_file(cast(Any, file).path, bytes(content))
        return
    part = file.with_name(f".{file.name}.{uuid4().hex}.part")  # its own name: no lock keeps other writers away
    try:
        part.write_bytes(content)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def check_folder_writable(folder: Path) -> None:
    """Check that files can be written to a folder here or on an object store.

    Raises:
        UserError: They cannot: the bucket is not there, or the login is wrong.
    """
    if is_local(folder):
        check_writable(folder / "file")
        return
    probe = folder / f".{uuid4().hex}"
    with explain_unreachable(folder):
        write_whole(probe, b"")
        probe.unlink()


@contextmanager
def explain_unreachable(place: Path) -> Iterator[None]:
    """Turn the errors of an object store into a :class:`UserError`; those of local files stay as they are.

    Args:
        place: The file or folder that the block uses.
    """
    try:
        yield
    except Exception as error:
        # Each store has its own exceptions: s3fs alone raises those of the operating system, of botocore and of aiohttp.
        if isinstance(error, UserError) or is_local(place):
            raise
        reason = first_line(error).rstrip(".")
        raise UserError(
            f"'{place}' cannot be reached ({reason}): check its name, the address of the store and your login."
        ) from error


def reached(place: Path, items: Iterable[Item]) -> Iterator[Item]:
    """Yield items that are read from a place; an error while one is read is that of :func:`explain_unreachable`."""
    several = iter(items)
    while True:
        with explain_unreachable(place):
            try:
                item = next(several)
            except StopIteration:
                return
        yield item


def is_local(place: Path) -> bool:
    """Return True for a path on this machine."""
    return isinstance(place, Path)


def _file_system(place: Any) -> Any:
    return place.fs
