"""What reading alignment costs: time beside encoding the same texts, and memory for many texts.

    python benchmarks/align_cost.py --data DATA     # the memory alone, of a process of its own

For the memory, embeddings are drawn at random: encoding 100,000 texts takes an hour, and their vectors are of the same size.
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
from typing import Any

import click
import torch
from torch import Tensor

from text2token.alignment.align import align
from text2token.alignment.reading import open_readable
from text2token.corpus import open_corpus
from text2token.embedder import Embedder
from text2token.precision import mixed_precision
from text2token.recipe import Recipe

BACKBONE = "smollm2-135m"
PLAIN = Recipe(template="none", pooling="mean", correction="none")
TEXTS, REPEATS, MANY = 200, 3, 100_000


class RandomEmbeddings(Embedder):
    """An embedder that draws its embeddings."""

    def embed(self, texts: Sequence[str], **_: Any) -> Tensor:
        """N×d, normal."""
        return torch.randn(len(texts), self.encoder.get_embedding_dimension())


def measure(data: Path) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures ``align_over_encoding`` (a ratio, the median of three) and ``align_100k_gib``."""
    embedder = open_readable(BACKBONE, PLAIN)
    stream = iter(open_corpus(str(data / "corpus" / "wiki-sentences.txt")))
    seconds = []
    for _ in range(REPEATS):
        with mixed_precision(embedder.encoder[0].model):
            seconds.append(align(embedder, list(islice(stream, TEXTS)))["seconds"])
    ratios = [row["reading"] / row["encoding"] for row in seconds]
    printed = subprocess.run(
        [sys.executable, __file__, "--data", str(data)], check=True, capture_output=True, text=True
    ).stdout
    memory = json.loads(printed)
    figures = {"align_over_encoding": median(ratios), "align_100k_gib": memory["peak_gib"]}
    return figures, {"texts": TEXTS, "ratios": ratios, "seconds": seconds, "memory": memory}


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
def main(data: Path) -> None:
    """Print the peak memory of aligning many texts, as JSON."""
    plain = open_readable(BACKBONE, PLAIN)
    texts = list(islice(open_corpus(str(data / "corpus" / "wiki-sentences.txt")), MANY))
    result = align(RandomEmbeddings(plain.encoder, plain.head), texts)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    click.echo(json.dumps({"texts": result["texts"], "peak_gib": peak, "seconds": result["seconds"]["reading"]}))


if __name__ == "__main__":
    main()
