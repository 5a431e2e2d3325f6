"""Measure what is beyond one process: training on two processes, and engines in databases against the embedded one.

    python benchmarks/scale.py --data DATA --model MODEL        # a folder that 'text2token fit' wrote

Every finished part stays in ``--runs``, so a stopped run continues. Times are wall times, since a database works in processes of
its own: the machine should have nothing else to do.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click

import scale_capacity
import scale_engines
import scale_shards
import scale_training
from collection import beir
from runner import DATA, data_checksums, merged, runs_option, write_results
from sparse import SETS, Model
from text2token.cli.options import quiet_libraries
from text2token.utils.resume import cached

SEED = 0


@click.command()
@DATA
@runs_option("scale")
@click.option("--model", type=click.Path(exists=True), required=True, help="folder that 'text2token fit' wrote")
@click.option("--documents", type=click.IntRange(50), help="cut each collection, to try the benchmark out")
@click.option("--largest", type=int, default=1_000_000, show_default=True, help="documents of the embedded engine")
@click.option("--drawn", type=int, default=100_000, show_default=True, help="documents that are drawn for PostgreSQL")
def main(data: Path, runs: Path, model: str, documents: int | None, largest: int, drawn: int) -> None:
    """Measure all parts and write ``results/scale.json``."""
    quiet_libraries()
    ours = Model("ours", model, runs)
    collections = [beir(data / folder, name, documents) for name, folder in SETS.items()]
    parts: dict[str, Callable[[], dict[str, Any]]] = {
        "training": scale_training.measure,
        "shards": partial(scale_shards.shard_overhead, data, runs),
        "failover": scale_engines.failover,
        "quality": partial(scale_engines.quality, ours, collections),
        "recall": partial(scale_engines.recall, ours, collections[0], drawn),
        "encoding": partial(scale_capacity.encoding, model, collections[0]),
        "embedded": partial(scale_engines.embedded, ours, collections[0], largest),
    }
    measured: dict[str, dict[str, Any]] = {}
    for name, measure in parts.items():
        click.echo(f"{name} …", err=True)
        measured[name] = cached(runs / "parts" / f"{name}-{documents or 'all'}.json", measure)
    figures, details = merged(measured)
    details["documents"] = documents
    details["capacity"] = scale_capacity.capacity(details)
    click.echo(write_results("scale", SEED, data_checksums(data, list(SETS.values())), figures, details))


if __name__ == "__main__":
    main()
