"""Files and folders that are written whole or not at all, locks between processes, and cached arrays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from filelock import FileLock, Timeout

from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


@contextmanager
def atomic_write(file: Path) -> Iterator[Path]:
    """A path beside ``file`` to write to; it takes the place of ``file`` when all went well and is removed when not."""
    part = file.with_name(file.name + ".part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: Path) -> Iterator[Path]:
    """The same for a folder: an empty one beside it to write to; what a killed process left there is cleared away."""
    part = folder.with_name(folder.name + ".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def write_json(file: Path, content: Any) -> None:
    """Write JSON, readable by people."""
    with atomic_write(file) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8", errors="backslashreplace")


@contextmanager
def exclusive_lock(file: Path, refusal: str) -> Iterator[None]:
    """Hold the lock ``file``, which is gone afterwards, or do not wait for who holds it.

    Raises:
        UserError: Another process does; its sentence is ``refusal``.
    """
    lock = FileLock(file)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        raise UserError(refusal) from None
    try:
        yield
    finally:
        file.unlink(missing_ok=True)
        lock.release()


def cached_vectors(folder: Path, name: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of ``compute``, kept as ``name.npy`` in ``folder``, so that a stopped run does not compute it again."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part, part.open("wb") as stream:
            np.save(stream, compute().numpy())
    import torch  # a second to import, and not all who write files need it

    return torch.from_numpy(np.load(file))
