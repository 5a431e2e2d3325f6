"""What the name of a model means: one rule that tells a packaged model from a path, wherever a name is read."""

from __future__ import annotations

from pathlib import Path

from text2token.model.packaged import PACKAGED, REFERENCES, cached_path
from text2token.utils.files import local_path


def is_packaged(name: str) -> bool:
    """Return whether a name is that of a packaged model. It never means a folder of this name; ``./NAME`` does."""
    return name in PACKAGED or name in REFERENCES


def locate(name: str) -> Path:
    """Return the path where a model is, or would be: a packaged one that was not fetched yet and a hub id have nothing there."""
    return cached_path(name) if is_packaged(name) else local_path(name)


def from_anywhere(name: str) -> str:
    """Return the name of a model as a record needs it: a local path becomes absolute, so that it holds in any folder."""
    path = local_path(name)
    return str(path.resolve()) if not is_packaged(name) and path.exists() else name
