"""Helpers that every benchmark shares: run a command, keep a finished measurement, write a results file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from cut import cut
from text2token.utils import provenance
from text2token.utils.files import atomic_write, write_json

RESULTS = Path(__file__).parent / "results"


def text2token(*arguments: str) -> None:
    """Run a text2token command in a process of its own. A failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "text2token", *arguments], check=True)


def kept(file: Path, measure: Callable[[], Any]) -> Any:
    """Return the measurement in ``file``, or measure now and write the file."""
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, measure())
    return json.loads(file.read_text(encoding="utf-8"))


def data_checksums(root: Path, names: list[str]) -> dict[str, str]:
    """SHA-256 of each named file or folder below ``root``."""
    return {name: provenance.data_checksum(root / name) for name in names}


def write_results(name: str, seed: int, data: Mapping[str, str], figures: Mapping[str, float], details: Any) -> Path:
    """Write ``results/NAME.json``: figures, the details that the pages need, and where both come from."""
    record = _record()
    origin = {key: record[key] for key in ("git", "created", "machine", "versions")}
    command = f"python benchmarks/{record['command']}"
    result = {"name": name, "command": command, "seed": seed, **origin, "data": data, "figures": figures}
    return write_compact(result | {"details": details})


def write_compact(result: Mapping[str, Any]) -> Path:
    """Write a cut results file with one line per innermost list or object."""
    file = RESULTS / f"{result['name']}.json"
    file.parent.mkdir(exist_ok=True)
    content = {**result, "details": cut(result["name"], result["details"])}
    text = json.dumps(content, indent=1, ensure_ascii=False)
    with atomic_write(file) as part:
        part.write_text(re.sub(r"[\[{][^\[\]{}]*[\]}]", _one_line, text) + "\n", encoding="utf-8")
    return file


def read_results(name: str) -> dict[str, Any]:
    """Read ``results/NAME.json``. A file that is not there reads as an empty object."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _one_line(match: re.Match[str]) -> str:
    return re.sub(r"\n *", " ", match[0])


@cache
def _record() -> dict[str, Any]:
    """Describe this process before it writes its first result, because a new file marks the checkout as changed."""
    return provenance.record()
