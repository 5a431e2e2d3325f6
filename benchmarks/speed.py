"""Measure speed: encoding, training, the student, start-up and memory, against what users would run instead.

    python benchmarks/speed.py --data DATA

The model is one that ``fit`` makes with its defaults. Every finished part stays in ``--runs``, with the revision that it was
measured at, so a stopped run continues. The results hold the parts that are finished; those of a machine without bf16 are
speed-avx2.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import click

import speed_encoding
import speed_startup
import speed_student
import speed_training
from contenders import OURS
from runner import DATA, PARAGRAPHS, SENTENCES, bf16, data_checksums, merged, record, runs_option, write_results
from text2token.cli.options import quiet_libraries
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.utils.files import read_json
from text2token.utils.resume import cached
from trained import train

SEED = 0
FILES = sorted({SENTENCES, PARAGRAPHS, *speed_student.FILES})


@click.command()
@DATA
@runs_option("speed")
@click.option(
    "--llama", type=click.Path(exists=True, path_type=Path), help="Python of an environment that has llama-cpp-python"
)
@click.option("--documents", type=click.IntRange(50), help="cut the student's collections to this number of documents")
@click.option("--part", "only", multiple=True, help="measure this part alone; may be repeated")
def main(data: Path, runs: Path, llama: Path | None, documents: int | None, only: tuple[str, ...]) -> None:
    """Measure the parts, and write the results of all that are finished."""
    quiet_libraries()
    runs.mkdir(parents=True, exist_ok=True)
    model = str(train(runs / "model", str(data / SENTENCES), OURS))
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "encoding": partial(speed_encoding.measure, data, runs / "llama", model, llama),
        "startup": partial(speed_startup.measure, data, runs / "startup", model),
        "fit": partial(speed_training.default_fit, model),
        "training": partial(speed_training.beside_others, data, runs / "training"),
        "student": partial(speed_student.measure, data, runs / "student", model, documents),
        "memory_fit": partial(speed_training.memory, data, runs / "memory"),
        "memory_index": partial(speed_encoding.memory, data, runs / "memory"),
    }
    if unknown := set(only).difference(parts):
        raise click.UsageError(f"There is no part '{min(unknown)}': choose among {', '.join(parts)}.")
    for name, part in parts.items():
        if not only or name in only:
            cached(runs / f"{name}.json", partial(with_revision, part))
    found = {name: read_json(file) for name in parts if (file := runs / f"{name}.json").is_file()}
    figures, details = merged(found)
    details["revisions"] = {name: part["git"] for name, part in found.items()}
    details["model"] = embedder_fingerprint(Embedder.open(model))
    name = "speed" if bf16() else "speed-avx2"
    click.echo(write_results(name, SEED, data_checksums(data, FILES), figures | derived(figures, details), details))


def with_revision(part: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Measure a part, and name the revision of this source."""
    return {**part(), "git": record()["git"]}


def derived(figures: Mapping[str, float], details: Mapping[str, Any]) -> dict[str, float]:
    """Compute the figures that need two parts, where both are finished."""
    found = {}
    if {"encoding", "fit"} <= details.keys():
        peak = details["encoding"]["peak_gflops"]["bf16" if bf16() else "fp32"]
        found["train_share_of_peak"] = details["fit"]["gflops"] / peak
    if {"memory_fit", "memory_index"} <= details.keys():
        found["memory_x10"] = max(figures["memory_x10_fit"], figures["memory_x10_index"])
    return found


if __name__ == "__main__":
    main()
