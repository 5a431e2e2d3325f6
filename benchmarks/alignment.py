"""Every claim of the first paper, and the analysis of the second, on two backbones.

    python benchmarks/alignment.py --data DATA     # with corpus/wiki-sentences.txt and mteb, see docs/evaluation.md

Fits what it needs with few texts; whatever is finished is kept under --runs, so that a stopped run continues. Writes
benchmarks/results/alignment.json after every part, and the figures of docs/alignment.md and docs/spectrum.md.
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
        """Ours on both backbones, the baselines on the first."""
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
    figures: dict[str, float] = {}
    details: dict[str, Any] = {}
    for name, measure in parts.items():
        found = kept(runs / f"{name}.json", measure)
        figures |= found[0]
        details[name] = found[1]
        click.echo(write_results("alignment", 0, checksums, figures, details))


def fit(backbone: str, corpus: str, runs: Path) -> Path:
    """A fitted model of ours."""
    output = runs / "models" / backbone
    if not output.is_dir():
        text2token("fit", corpus, "--backbone", backbone, *BACKBONES[backbone], "--output", str(output))
    return output


def baseline(method: str, *options: str, corpus: str, runs: Path) -> Path:
    """A trained baseline of smollm2-135m."""
    output = runs / "models" / method
    if not output.is_dir():
        recipe = ["--recipe", f"recipes/{method}.yaml", *options]
        text2token("baseline", method, corpus, *recipe, "--output", str(output))
    return output


if __name__ == "__main__":
    main()
