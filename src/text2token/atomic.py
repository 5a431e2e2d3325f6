"""Write whole files and folders, or none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def replacing(file: Path) -> Iterator[Path]:
    """A path beside ``file`` to write to; it takes the place of ``file`` when all went well and is removed when not."""
    part = file.with_name(file.name + ".part")
    try:
        yield part
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


@contextmanager
def replacing_folder(folder: Path) -> Iterator[Path]:
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
    with replacing(file) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8", errors="backslashreplace")
