"""Helpers that all benchmarks share: options, commands of text2token, and the results file."""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import click
from click.decorators import FC

from text2token.cli.options import as_flag
from text2token.utils import provenance
from text2token.utils.files import write_text

RESULTS = Path(__file__).parent / "results"
SENTENCES, PARAGRAPHS = "corpus/wiki-sentences.txt", "corpus/wiki-paragraphs.jsonl"
"""Texts of Wikipedia in the folder of the data."""
DATA = click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="folder with corpus/, mteb/ and extra/"
)


def runs_option(name: str) -> Callable[[FC], FC]:
    """Make the option for the folder that keeps every finished part, so that a stopped run continues."""
    folder = Path("runs") / name
    return click.option(
        "--runs", type=click.Path(path_type=Path), default=folder, show_default=True, help="work folder"
    )


def text2token(*arguments: str) -> None:
    """Run a text2token command in a process of its own. A failure ends the benchmark."""
    subprocess.run([sys.executable, "-m", "text2token", *arguments], check=True)


def usage(*arguments: str) -> resource.struct_rusage:
    """Run a text2token command in a process of its own, and return what it used. A failure ends the benchmark."""
    command = [sys.executable, "-m", "text2token", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    return used


def as_options(settings: Mapping[str, Any]) -> list[str]:
    """Write settings as options of a text2token command."""
    return [part for name, value in settings.items() for part in (as_flag(name), str(value))]


def write_texts(texts: Iterable[str], file: Path) -> Path:
    """Write a corpus of these texts, and return its file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(json.dumps({"text": text}) + "\n" for text in texts))
    return file


def ratios(ours: Sequence[float], base: Sequence[float]) -> list[float]:
    """Return the ratio of two rates for each turn."""
    return [rate / reference for rate, reference in zip(ours, base, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return the smallest, the median and the largest value."""
    return {"min": min(values), "median": median(values), "max": max(values)}


def merged(parts: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Put the figures of all parts of a benchmark together, and the details of each part under its name."""
    figures = {name: value for part in parts.values() for name, value in part["figures"].items()}
    return figures, {name: part["details"] for name, part in parts.items()}


def bf16() -> bool:
    """Tell whether the hardware multiplies bfloat16. All contenders are encoded in the same precision."""
    import torch  # importing it takes seconds, and the results pages do without

    from text2token.model.precision import has_bf16

    return has_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def data_checksums(root: Path, names: list[str]) -> dict[str, str]:
    """Return the SHA-256 of each named file or folder below ``root``."""
    return {name: provenance.data_checksum(root / name) for name in names}


def write_results(name: str, seed: int, data: Mapping[str, str], figures: Mapping[str, float], details: Any) -> Path:
    """Write ``results/NAME.json``: figures, the details that the pages need, and where both come from."""
    described = record()
    origin = {key: described[key] for key in ("git", "created", "machine", "versions")}
    command = f"python benchmarks/{described['command']}"
    result = {"name": name, "command": command, "seed": seed, **origin, "data": data, "figures": figures}
    return write_compact(result | {"details": details})


def write_compact(result: Mapping[str, Any]) -> Path:
    """Write a results file with one line per innermost list or object."""
    file = RESULTS / f"{result['name']}.json"
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(result, indent=1, ensure_ascii=False)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda innermost: re.sub(r"\n *", " ", innermost[0]), text)
    write_text(file, text + "\n")
    return file


def read_results(name: str) -> dict[str, Any]:
    """Read ``results/NAME.json``. A file that is not there reads as an empty object."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


@cache
def record() -> dict[str, Any]:
    """Describe this process, as it is before it writes its first result, because a new file marks the checkout as changed."""
    return provenance.record()
