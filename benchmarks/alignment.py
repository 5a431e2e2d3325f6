"""Measure every claim of *A Text is Worth Several Tokens*, and the dynamics of *Text2Token*, on two backbones.

    python benchmarks/alignment.py --data DATA     # DATA has corpus/wiki-sentences.txt and mteb/, see docs/evaluation.md

It fits models with few texts. Every finished part stays in ``--runs``, so a stopped run continues. The benchmark
writes alignment.json and spectrum.json in benchmarks/results/ after every part.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

import alignment_claims
import spectrum_claims
from alignment_claims import UNTRAINED, Found, Models
from runner import DATA, SENTENCES, data_checksums, runs_option, text2token, write_results
from text2token.cli.options import quiet_libraries
from text2token.utils.resume import cached

FITTED = {"smollm2-135m": [], "gemma3-270m": ["--max-texts", "1000"]}  # the second is slower: fewer texts
BASELINES = {"LLM2Vec": ["llm2vec"], "SimCSE": ["simcse", "--max-texts", "500"]}  # a quarter of its recipe's texts


@click.command()
@DATA
@runs_option("alignment")
def main(data: Path, runs: Path) -> None:
    """Measure all claims."""
    quiet_libraries()

    def train(name: str, *command: str) -> str:
        """Train a model, unless its folder is there."""
        folder = runs / "models" / name
        if not folder.is_dir():
            text2token(*command, "--output", str(folder))
        return str(folder)

    corpus = str(data / SENTENCES)
    ours = {name: train(name, "fit", corpus, "--backbone", name, *options) for name, options in FITTED.items()}
    models: Models = {}
    for backbone, folder in ours.items():
        models |= {f"{backbone}, {way}": (backbone, recipe) for way, recipe in UNTRAINED.items()}
        models[f"{backbone}, ours"] = (folder, None)
    for name, (method, *options) in BASELINES.items():
        folder = train(method, "baseline", method, corpus, "--recipe", f"recipes/{method}.yaml", *options)
        models[f"{next(iter(FITTED))}, {name}"] = (folder, None)
    parts: dict[str, tuple[str, Callable[[], Found]]] = {
        "adapt": ("spectrum", lambda: spectrum_claims.corrections(data, runs)),
        "cost": ("alignment", lambda: alignment_claims.cost(data)),
        "spectrum": ("spectrum", lambda: spectrum_claims.shifts(data, runs, ours)),
        "dynamics": ("alignment", lambda: alignment_claims.dynamics(data, runs)),
        "study": ("alignment", lambda: alignment_claims.study(data, runs, models)),
    }
    checksums = data_checksums(data, [SENTENCES, "mteb/stsbenchmark-sts", "mteb/scifact"])
    figures: dict[str, dict[str, float]] = {"alignment": {}, "spectrum": {}}
    details: dict[str, dict[str, Any]] = {"alignment": {}, "spectrum": {}}
    for name, (page, measure) in parts.items():
        found = cached(runs / f"{name}.json", measure)
        figures[page] |= found[0]
        details[page][name] = found[1]
        click.echo(write_results(page, 0, checksums, figures[page], details[page]))


if __name__ == "__main__":
    main()
