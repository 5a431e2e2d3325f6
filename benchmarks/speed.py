"""Measure speed: encoding, training, the student, start-up and memory, against what users would run instead.

    python benchmarks/speed.py --data DATA --model MODEL

Every finished part stays in ``--runs``, so a stopped run continues. On a machine without bf16 the results are speed-avx2.json.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

import speed_encoding
import speed_startup
import speed_student
import speed_training
from runner import DATA, bf16, data_checksums, runs_option, write_results
from text2token.cli.options import quiet_libraries
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.utils.resume import cached

SEED = 0
FILES = sorted({speed_encoding.PARAGRAPHS, speed_encoding.SENTENCES, speed_training.CORPUS, *speed_student.FILES})


@click.command()
@DATA
@runs_option("speed")
@click.option("--model", type=click.Path(exists=True), required=True, help="folder that 'text2token fit' wrote")
@click.option(
    "--llama", type=click.Path(exists=True, path_type=Path), help="Python of an environment that has llama-cpp-python"
)
@click.option("--documents", type=click.IntRange(50), help="cut the student's collections to this number of documents")
@click.option("--part", "only", multiple=True, help="measure this part alone and write no results; may be repeated")
def main(data: Path, runs: Path, model: str, llama: Path | None, documents: int | None, only: tuple[str, ...]) -> None:
    """Measure all parts and write the results."""
    quiet_libraries()
    runs.mkdir(parents=True, exist_ok=True)
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "encoding": partial(speed_encoding.measure, data, runs / "llama", model, llama),
        "memory": partial(speed_encoding.memory, data, runs / "memory"),
        "startup": partial(speed_startup.measure, data, runs / "startup", model),
        "training": partial(speed_training.measure, data, runs / "training"),
        "student": partial(speed_student.measure, data, runs / "student", model, documents),
    }
    measured = {name: cached(runs / f"{name}.json", part) for name, part in parts.items() if not only or name in only}
    figures = {name: value for part in measured.values() for name, value in part["figures"].items()}
    if only:
        click.echo("\n".join(f"{name} {value:.4g}" for name, value in figures.items()))
        return
    details = {name: part["details"] for name, part in measured.items()}
    details["model"] = embedder_fingerprint(Embedder.open(model))
    peak = details["encoding"]["peak_gflops"]["bf16" if bf16() else "fp32"]
    figures["train_share_of_peak"] = details["training"]["fit"]["gflops"] / peak
    figures["memory_x10"] = max(figures["memory_x10_fit"], figures["memory_x10_index"])
    name = "speed" if bf16() else "speed-avx2"
    click.echo(write_results(name, SEED, data_checksums(data, FILES), figures, details))


if __name__ == "__main__":
    main()
