"""Measure what reading costs: time of alignment over time of encoding, and memory of alignment and spectrum for many texts.

    python benchmarks/reading_cost.py --data DATA --of align     # measures the memory of one process

The memory is measured with random embeddings: encoding 100,000 texts takes an hour, and real vectors have the same size.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import click
import torch
from torch import Tensor

from text2token.analysis.alignment import align
from text2token.analysis.spectrum_run import run_spectrum
from text2token.data.corpus import Corpus, open_corpus
from text2token.model.embedder import Embedder
from text2token.settings.recipe import Recipe

BACKBONE = "smollm2-135m"
PLAIN = Recipe(template="none", pooling="mean", correction="none")
TEXTS, REPEATS, MANY = 200, 3, 100_000


class RandomEmbeddings(Embedder):
    """An embedder whose embeddings are random numbers."""

    def embed(self, texts: Sequence[str], **_: Any) -> Tensor:
        """Draw N×d normal numbers."""
        return torch.randn(len(texts), self.encoder.get_embedding_dimension())


def measure(data: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure ``align_over_encoding`` (a ratio, median of three), ``align_100k_gib`` and ``spectrum_100k_gib``."""
    embedder = Embedder.open(BACKBONE, **PLAIN.embedder_settings())
    embedder.bf16 = True
    stream = iter(open_corpus(str(data / "corpus" / "wiki-sentences.txt")))
    seconds = [align(embedder, list(islice(stream, TEXTS)))["seconds"] for _ in range(REPEATS)]
    ratios = [row["reading"] / row["encoding"] for row in seconds]
    memory = {name: _apart(data, name) for name in MEASURED}
    figures = {"align_over_encoding": median(ratios)}
    figures |= {f"{name}_100k_gib": found["peak_gib"] for name, found in memory.items()}
    return figures, {"texts": TEXTS, "ratios": ratios, "seconds": seconds, "memory": memory}


def _apart(data: Path, name: str) -> Any:
    """Run :func:`main` in a process of its own, and return what it prints."""
    command = [sys.executable, __file__, "--data", str(data), "--of", name]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def _align(corpus: Corpus) -> int:
    return int(align(_random(PLAIN), list(islice(corpus, MANY)))["texts"])


def _spectrum(corpus: Corpus) -> int:
    models = _random(PLAIN), _random(Recipe(correction="none"))
    with TemporaryDirectory() as folder:
        return int(run_spectrum(models, corpus, Path(folder) / "spectrum", {}, max_texts=MANY)["texts"])


def _random(recipe: Recipe) -> RandomEmbeddings:
    plain = Embedder.open(BACKBONE, **recipe.embedder_settings())
    return RandomEmbeddings(plain.encoder, plain.head)


MEASURED = {"align": _align, "spectrum": _spectrum}


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--of", type=click.Choice(list(MEASURED)), required=True)
def main(data: Path, of: str) -> None:
    """Print the peak memory of reading many texts, as JSON."""
    texts = MEASURED[of](open_corpus(str(data / "corpus" / "wiki-sentences.txt")))
    click.echo(json.dumps({"texts": texts, "peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}))


if __name__ == "__main__":
    main()
