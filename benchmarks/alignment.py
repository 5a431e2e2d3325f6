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

import adapt_corrections
import alignment_study
import dynamics_claim
import reading_claims
import reading_cost
import spectrum_claims
from runner import data_checksums, kept, text2token, write_results
from text2token.cli.options import quiet_libraries
from text2token.settings.recipe import Recipe

BACKBONES = {"smollm2-135m": [], "gemma3-270m": ["--max-texts", "1000"]}  # the second is slower: fewer texts
BASELINES = {"LLM2Vec": ["llm2vec"], "SimCSE": ["simcse", "--max-texts", "500"]}  # a quarter of its recipe's texts
Part = Callable[[], tuple[dict[str, float], dict[str, Any]]]


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/alignment"), show_default=True)
def main(data: Path, runs: Path) -> None:
    """Measure all claims."""
    quiet_libraries()
    corpus = str(data / "corpus" / "wiki-sentences.txt")
    fitted = {backbone: fit(backbone, corpus, runs) for backbone in BACKBONES}
    untrained = {
        f"{backbone}, {way}": (backbone, Recipe(correction="none", **setting))
        for backbone in BACKBONES
        for way, setting in alignment_study.UNTRAINED.items()
    }
    ours = {f"{backbone}, ours": (str(folder), None) for backbone, folder in fitted.items()}
    pairs = {backbone: (backbone, str(folder)) for backbone, folder in fitted.items()}

    def trained() -> dict[str, dict[str, Path]]:
        """Fitted models of both backbones, and the baselines of the first."""
        first, second = fitted
        baselines = {name: baseline(*method, corpus=corpus, runs=runs) for name, method in BASELINES.items()}
        return {first: {"ours": fitted[first], **baselines}, second: {"ours": fitted[second]}}

    parts: dict[str, Part] = {
        "adapt": lambda: adapt_corrections.measure(data, runs),
        "cost": lambda: reading_cost.measure(data),
        "reading": lambda: reading_claims.measure(data, untrained | ours),
        "spectrum": lambda: spectrum_claims.measure(data, runs, pairs),
        "dynamics": lambda: dynamics_claim.measure(data, runs),
        "study": lambda: alignment_study.measure(data, runs, trained()),
    }
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb/stsbenchmark-sts", "mteb/scifact"])
    figures: dict[str, dict[str, float]] = {"alignment": {}, "spectrum": {}}
    details: dict[str, dict[str, Any]] = {"alignment": {}, "spectrum": {}}
    for name, measure in parts.items():
        found = kept(runs / f"{name}.json", measure)
        page = "spectrum" if name in ("adapt", "spectrum") else "alignment"
        figures[page] |= found[0]
        details[page][name] = found[1]
        click.echo(write_results(page, 0, checksums, figures[page], details[page]))


def fit(backbone: str, corpus: str, runs: Path) -> Path:
    """Fit a backbone, unless its folder is there."""
    output = runs / "models" / backbone
    if not output.is_dir():
        text2token("fit", corpus, "--backbone", backbone, *BACKBONES[backbone], "--output", str(output))
    return output


def baseline(method: str, *options: str, corpus: str, runs: Path) -> Path:
    """Train a baseline of smollm2-135m, unless its folder is there."""
    output = runs / "models" / method
    if not output.is_dir():
        recipe = ["--recipe", f"recipes/{method}.yaml", *options]
        text2token("baseline", method, corpus, *recipe, "--output", str(output))
    return output


if __name__ == "__main__":
    main()
