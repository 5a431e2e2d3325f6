"""The first table: every contender on the local tasks, same backbone, same texts, same number of tokens.

    python benchmarks/quality.py --data DATA     # with corpus/wiki-sentences.txt, mteb and extra, see docs/evaluation.md

Each step is a command of text2token and keeps what it has finished in runs/quality, so that a stopped run continues, over as many
sittings as it takes. Writes benchmarks/results/quality.json after every contender, and runs/quality/comparison.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch

from results_file import data_checksums, write_results
from steps import text2token
from text2token.cli.options import quiet_libraries
from text2token.evaluation import contender, judge
from text2token.evaluation.compare import compare
from text2token.evaluation.comparison_page import write_comparison
from text2token.evaluation.results import SUMMARY
from text2token.evaluation.tasks import select_tasks
from text2token.precision import has_bf16

RATES = ("3e-5", "1e-4", "3e-4")  # one small grid for every method
SEEDS = {"text2token": 3, "llm2vec": 3, "simcse": 1, "tsdae": 1}
SETTINGS = {
    "plain mean": ["--template", "none", "--pooling", "mean"],
    "PromptEOL": ["--template", "eol"],
    "Echo": ["--template", "echo", "--pooling", "mean"],
    "keywords prompt": [],
    "weighted mean": ["--template", "none", "--pooling", "weighted-mean"],
    "last token": ["--template", "none"],
}
CORRECTIONS = {"": "none", ", filtered": "centre+filter", ", centred": "centre", ", first removed": "first-component"}
MINILM = {  # published, test splits
    "STSBenchmark": 82.03, "STS12": 72.37, "STS14": 75.60, "BIOSSES": 81.64, "Banking77Classification": 80.04,
    "TweetSentimentExtractionClassification": 54.04, "AmazonCounterfactualClassification": 63.60,
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """Where the data is, where results go, and what all commands share."""

    data: Path
    runs: Path
    backbone: str
    training: tuple[str, ...] = ()
    looking: tuple[str, ...] = ()

    @property
    def corpus(self) -> str:
        """What every contender learns from."""
        return str(self.data / "corpus" / "wiki-sentences.txt")

    def evaluate(self, name: str, *model: str) -> Path:
        """Score a model on the tasks of the mirror and the extra sets; finished tasks are not run again."""
        output = self.runs / "results" / name
        tasks = [task.metadata.name for task in select_tasks(data_root=self.data / "mteb").tasks] + ["SciFact"]
        folders = [part for folder in sorted((self.data / "extra").iterdir()) for part in ("--data", str(folder))]
        data = ["--data-root", str(self.data / "mteb"), "--tasks", ",".join(tasks), *folders]
        text2token("evaluate", *model, *data, *self.looking, "--output", str(output))
        return output

    def train(self, method: str, rate: str, seed: int) -> Path:
        """A trained contender; one that is there is kept."""
        output = self.runs / "models" / f"{method}-{rate}-{seed}"
        options = ["--backbone", self.backbone, "--learning-rate", rate, "--seed", str(seed), *self.training]
        if not output.is_dir():
            recipe = "default" if method == "text2token" else method
            verb = ["fit"] if method == "text2token" else ["baseline", method]
            options += ["--recipe", f"recipes/{recipe}.yaml", "--output", str(output)]
            text2token(*verb, self.corpus, *options)
        return output

    def validation(self, model: Path) -> float:
        """STSBenchmark validation, in points: what learning rates are chosen on."""
        selection = select_tasks(data_root=self.data / "mteb", names=["STSBenchmark"])
        for task in selection.tasks:
            task.filter_eval_splits(["validation"])
        output = self.runs / "validation" / model.name
        summary = judge.evaluate(contender.saved(str(model), bf16=bf16()), selection, output)
        return 100 * float(summary["tasks"][0]["score"])


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/quality"), show_default=True)
@click.option("--backbone", default="smollm2-135m", show_default=True)
@click.option("--quick", is_flag=True, help="few texts and documents: does everything run?")
def main(data: Path, runs: Path, backbone: str, quick: bool) -> None:
    """Train, judge and compare."""
    quiet_libraries()
    looking = ("--bf16",) if bf16() else ()
    bench = Bench(data, runs, backbone, looking=looking)
    if quick:
        small = ("--max-texts", "64", "--held-out", "8", "--calibration-texts", "32", "--prior-texts", "16")
        bench = Bench(data, runs, backbone, small, (*looking, "--max-docs", "60"))
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb", "extra"])
    grid: dict[str, dict[str, float]] = {}
    folders: dict[str, Path] = {}
    for name, folder in contenders(bench, grid):
        folders[name] = folder
        figures, details = results(folders, grid)
        if not quick:
            click.echo(write_results("quality", 0, checksums, figures, details))
    write_comparison(compare(list(folders.values())), runs / "comparison")
    click.echo(runs / "comparison" / "compare.md")


def contenders(bench: Bench, grid: dict[str, dict[str, float]]) -> Iterator[tuple[str, Path]]:
    """Names and results of all contenders, the most wanted first; ``grid`` is filled with the learning rates tried."""
    yield "BM25", bench.evaluate("BM25", "bm25")
    yield "all-MiniLM-L6-v2", bench.evaluate("all-MiniLM-L6-v2", "all-minilm-l6-v2")
    for method, seeds in SEEDS.items():
        grid[method] = {rate: bench.validation(bench.train(method, rate, 0)) for rate in RATES}
        best = max(grid[method], key=lambda rate: grid[method][rate])
        for seed in range(seeds):
            model = bench.train(method, best, seed)
            yield f"{method}, seed {seed}", bench.evaluate(f"{method}-{seed}", str(model))
    for setting, options in SETTINGS.items():
        folder = setting.replace(" ", "-")
        vectors = bench.runs / "vectors" / f"{folder}.sqlite"
        vectors.parent.mkdir(parents=True, exist_ok=True)
        shared = [*options, "--corpus", bench.corpus, "--vectors", str(vectors)]
        for label, correction in CORRECTIONS.items():
            output = folder + label.replace(", ", "-").replace(" ", "-")
            yield f"{setting}{label}", bench.evaluate(output, bench.backbone, *shared, "--correction", correction)


def results(folders: dict[str, Path], grid: dict[str, dict[str, float]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Figures and details of the contenders that are finished."""
    summaries = {name: json.loads((folder / SUMMARY).read_text()) for name, folder in folders.items()}
    figures = {
        f"{name}: {kind}": score for name, row in summaries.items() for kind, score in row["mean_by_type"].items()
    }
    figures |= {f"{name}: mean over tasks": row["mean_over_tasks"] for name, row in summaries.items()}
    scores = {row["task"]: 100 * row["score"] for row in summaries.get("all-MiniLM-L6-v2", {"tasks": []})["tasks"]}
    if scores:
        figures["minilm_max_abs_diff"] = max(abs(scores[task] - score) for task, score in MINILM.items())
    ours, theirs = (
        [row["mean_over_tasks"] for name, row in summaries.items() if name.startswith(method)]
        for method in ("text2token", "llm2vec")
    )
    if ours and theirs:
        figures["ours_minus_llm2vec_mean"] = mean(ours) - mean(theirs)
    return figures, {"learning_rates": grid, "summaries": summaries}


def bf16() -> bool:
    """Encode in mixed precision? Where the hardware can, for all contenders alike."""
    return has_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
