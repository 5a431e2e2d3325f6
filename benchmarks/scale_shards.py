"""Cost of encoding two shards at the same time: two processes with one thread each, against one such process alone.

This module needs a machine with two free cores. It is run by ``scale.py``.
"""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from runner import PARAGRAPHS

_DOCUMENTS = 160  # in both shards together; about 40 seconds of encoding a shard
_REPEATS = 2


def shard_overhead(data: Path, runs: Path, model: str = "smollm2-135m") -> dict[str, Any]:
    """Encode one shard alone and two at once, each in a process of its own with one thread.

    Both shards have the same documents under other ids, so they cost the same. The time of a process includes the start of
    Python and the opening of the model.

    Args:
        data: Folder with ``corpus/wiki-paragraphs.jsonl``.
        runs: Work folder.
        model: The model that encodes.

    Returns:
        ``figures``: ``shard_overhead``, the median time of two at once over that of one alone. ``details``: all times in seconds.
    """
    documents = _twice_the_same(data / PARAGRAPHS, runs)
    alone, both = [], []
    for _ in range(_REPEATS):
        alone.append(_seconds(model, documents, runs / "shards", [0]))
        both.append(_seconds(model, documents, runs / "shards", [0, 1]))
    overhead = statistics.median(both) / statistics.median(alone)
    details = {"model": model, "documents_a_shard": _DOCUMENTS // 2, "one_s": alone, "two_at_once_s": both}
    return {"figures": {"shard_overhead": round(overhead, 3)}, "details": details}


def _twice_the_same(source: Path, runs: Path) -> Path:
    """Write the first paragraphs, and then the same ones with other ids."""
    runs.mkdir(parents=True, exist_ok=True)
    file = runs / "documents.jsonl"
    with source.open(encoding="utf-8") as lines:
        some = [line.strip() for line in islice(lines, _DOCUMENTS // 2)]
    numbered = (line[:-1] + f', "_id": "{number}"}}' for number, line in enumerate([*some, *some]))
    file.write_text("\n".join(numbered), encoding="utf-8")
    return file


def _seconds(model: str, documents: Path, folder: Path, shards: list[int]) -> float:
    """Wall time until all processes have ended. Each of them also reads the corpus once, for the record of the shards."""
    shutil.rmtree(folder, ignore_errors=True)
    command = [sys.executable, "-m", "text2token", "encode", model, str(documents), "--output", str(folder)]
    command += ["--shards", "2", "--shard"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    processes = [subprocess.Popen([*command, str(shard)], env=environment) for shard in shards]
    failed = [process.args for process in processes if process.wait()]
    if failed:
        raise RuntimeError(f"failed: {failed}")
    return round(time.perf_counter() - started, 2)
