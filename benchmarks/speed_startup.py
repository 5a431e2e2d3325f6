"""Start-up in the benchmark of speed: processor time of whole commands on a single short text."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

from runner import PARAGRAPHS, text2token, usage
from text2token.data.tables import read_table

DOCUMENTS = 50
TEXT = "The cat sat on the mat."
REPEATS = 3


def measure(data: Path, runs: Path, model: str) -> dict[str, Any]:
    """Return ``figures``, medians over a few runs of each verb, and ``details``, all runs. A first run warms the disk's cache.

    Args:
        data: Folder with corpus/.
        runs: Keeps a small index.
        model: A folder that ``fit`` wrote.
    """
    runs.mkdir(parents=True, exist_ok=True)
    index, text = runs / "index", runs / "text.txt"
    text.write_text(TEXT + "\n", encoding="utf-8")
    if not index.is_dir():
        documents = runs / "documents"
        documents.mkdir(exist_ok=True)
        for number, row in enumerate(islice(read_table(data / PARAGRAPHS), DOCUMENTS)):
            (documents / f"{number}.txt").write_text(row.text("text"), encoding="utf-8")
        text2token("index", model, str(documents), "--output", str(index), "--query-model", "none")
    commands = {
        "explain_cpu_s": ["explain", model, TEXT],
        "encode_cpu_s": ["encode", model, str(text), "--output", str(runs / "vectors.npy"), "--overwrite"],
        "search_cpu_s": ["search", str(index), TEXT],
        "search_no_model_cpu_s": ["search", str(index), TEXT, "--no-model"],
    }
    taken = {name: [cpu_seconds(*command) for _ in range(REPEATS + 1)][1:] for name, command in commands.items()}
    return {"figures": {name: median(values) for name, values in taken.items()}, "details": taken}


def cpu_seconds(*arguments: str) -> float:
    """Measure the processor time of a command of text2token, user and system, all threads."""
    used = usage(*arguments)
    return used.ru_utime + used.ru_stime
