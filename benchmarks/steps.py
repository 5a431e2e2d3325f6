"""Steps of a benchmark that can be stopped: commands of text2token, and measurements kept in files."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from text2token.utils.files import write_json


def text2token(*arguments: str) -> None:
    """Run a command of ours; a failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "text2token", *arguments], check=True)


def kept(file: Path, measure: Callable[[], Any]) -> Any:
    """A measurement, from ``file`` where an earlier sitting left it."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure())
    return json.loads(file.read_text())
