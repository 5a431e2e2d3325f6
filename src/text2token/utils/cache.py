"""The cache: where downloaded and converted models are kept, each made by one process at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import platformdirs
from filelock import FileLock
from safetensors import SafetensorError

from text2token.utils.errors import UserError


def cache_dir() -> Path:
    """Where converted models are kept: ``$TEXT2TOKEN_CACHE``, or else the user's cache folder of the platform."""
    chosen = os.environ.get("TEXT2TOKEN_CACHE")
    return Path(chosen).expanduser() if chosen else platformdirs.user_cache_path("text2token")


@contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Hold the lock for making ``folder``, a folder of the cache, against other processes.

    Raises:
        UserError: The disk is full, or the cache is not ours to write.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            yield
    except (OSError, SafetensorError) as error:  # safetensors reports a full disk as an error of its own
        raise UserError(
            f"Cannot write {folder} ({error}): make room there, or set TEXT2TOKEN_CACHE to a folder that can take it."
        ) from error
