"""Write whole files or none."""

from __future__ import annotations

import json
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


def write_json(file: Path, content: Any) -> None:
    """Write JSON, readable by people."""
    with replacing(file) as part:
        part.write_text(json.dumps(content, indent=2, ensure_ascii=False), encoding="utf-8", errors="backslashreplace")
