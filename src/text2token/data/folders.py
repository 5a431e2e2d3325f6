"""The files of a folder, as corpora and documents read them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from text2token.utils.places import is_local


def visible_files(folder: Path) -> list[Path]:
    """Return the files of a folder at any depth, sorted by path, without hidden ones.

    Links are followed. A folder that several paths lead to is read once: under its own path, or else under that of a link.

    Raises:
        OSError: A folder cannot be read.
    """
    paths = _local_paths(folder) if is_local(folder) else folder.rglob("*")
    files = (path for path in sorted(paths) if path.is_file())
    return [file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts)]


def _local_paths(folder: Path) -> Iterator[Path]:
    tops, seen = [folder], set()
    for top in tops:  # the loop appends the links that it comes to
        for here, folders, names in os.walk(top, onerror=_fail):
            status = os.stat(here)  # noqa: PTH116  # os.walk gives a string
            identity = status.st_dev, status.st_ino
            if identity in seen:
                folders.clear()
                continue
            seen.add(identity)
            yield from (Path(here, name) for name in names)
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            tops += (path for name in folders if (path := Path(here, name)).is_symlink())


def _fail(error: OSError) -> NoReturn:
    raise error
