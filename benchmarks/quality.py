"""The first table: every contender on the local tasks, same backbone, same texts, same number of tokens.

    python benchmarks/quality.py --data DATA     # with corpus/wiki-sentences.txt, mteb and extra, see docs/evaluation.md

Each step is a command of text2token and keeps what it has finished in runs/quality, so that a stopped run continues, over as many
sittings as it takes; with --only several processes share the work, and one without it puts all together. Writes
benchmarks/results/quality.json after every contender, and docs/figures/quality.svg; benchmarks/tables.py makes the page of them.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch

from quality_tables import COMPARED, FIGURE, FILTERED, MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, by_contender
from results_file import RESULTS, data_checksums, write_results
from steps import text2token
from text2token.cli.options import quiet_libraries
from text2token.evaluation import LearnedCorrection, evaluate, recorrected_model, saved_model
from text2token.evaluation.comparison import Comparison, compare
from text2token.evaluation.comparison_page import draw
from text2token.evaluation.results import read_summary
from text2token.evaluation.tasks import select_tasks
from text2token.model.precision import has_bf16
from text2token.settings.recipe import Recipe
from text2token.utils.figures import write_figure

RATES = ("3e-5", "1e-4", "3e-4")  # one small grid for every method,
BEYOND = ("1e-3", "3e-3", "1e-2", "3e-2")  # which goes on while its last rate is its best
SEEDS = {"text2token": 3, "llm2vec": 3, "simcse": 1, "tsdae": 1}
SETTINGS = {
    "plain mean": ["--template", "none", "--pooling", "mean"],
    "PromptEOL": ["--template", "eol"],
    "Echo": ["--template", "echo", "--pooling", "mean"],
    "keywords prompt": [],
    "weighted mean": ["--template", "none", "--pooling", "weighted-mean"],
    "last token": ["--template", "none"],
}
CORRECTIONS = {"": "none", FILTERED: "centre+filter", ", centred": "centre", ", first removed": "first-component"}
SUBSET = (
    "STSBenchmark",
    "TweetSentimentExtractionClassification",
    "SciFact",
    "SearchSnippets",
    "PIT2015",
)  # one per type
DECODED = {"tsdae": 1.4 / 0.4}  # the trainer counts what the encoder reads, 40 % of a text; the decoder reads all of it
QUICK = ("--held-out", "8", "--calibration-texts", "32", "--prior-texts", "16")


@dataclass(frozen=True)
class Bench:
    """Where the data is, where results go, and what all commands share."""

    data: Path
    runs: Path
    backbone: str
    share: float
    training: tuple[str, ...]
    looking: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    @property
    def corpus(self) -> str:
        """What every contender learns from."""
        return str(self.data / "corpus" / "wiki-sentences.txt")

    def evaluate(self, name: str, *model: str) -> Path:
        """Score a model on the tasks of the mirror and the extra sets; finished tasks are not run again."""
        output = self.place(name)
        there = [task.metadata.name for task in select_tasks(data_root=self.data / "mteb").tasks] + ["SciFact"]
        tasks = [task for task in there if not self.tasks or task in self.tasks]
        folders = [folder for folder in sorted((self.data / "extra").iterdir()) if folder.is_dir()]
        own = [("--data", str(folder)) for folder in folders if not self.tasks or folder.name in self.tasks]
        data = ["--data-root", str(self.data / "mteb"), "--tasks", ",".join(tasks), *chain.from_iterable(own)]
        text2token("evaluate", *model, *data, *self.looking, "--output", str(output))
        return output

    def place(self, name: str) -> Path:
        """Of a contender's results."""
        return self.runs / "results" / name.replace(", ", "-").replace(": ", "-").replace(" ", "-")

    def train(self, method: str, rate: str, seed: int) -> Path:
        """A trained contender; one that is there is kept."""
        recipe = Path("recipes") / f"{'default' if method == 'text2token' else method}.yaml"
        verb = ["fit"] if method == "text2token" else ["baseline", method]
        texts = round(self.share * Recipe.load(recipe).max_texts)
        output = self.runs / "models" / f"{self.backbone}-{method}-{texts}-{rate}-{seed}"
        options = ["--recipe", str(recipe), "--backbone", self.backbone, "--max-texts", str(texts)]
        options += ["--learning-rate", rate, "--seed", str(seed), *self.training, "--output", str(output)]
        if not output.is_dir():
            text2token(*verb, self.corpus, *options)
        return output

    def validation(self, model: Path, label: str) -> float:
        """STSBenchmark validation, in points: what learning rates are chosen on."""
        selection = select_tasks(data_root=self.data / "mteb", names=["STSBenchmark"])
        for task in selection.tasks:
            task.filter_eval_splits(["validation"])
        output = self.runs / "validation" / f"{model.name}{label.replace(', ', '-')}"
        recipe = Recipe(correction=CORRECTIONS[label])
        correction = LearnedCorrection.of_recipe(recipe, self.corpus)
        evaluated = (
            recorrected_model(str(model), correction, bf16=bf16()) if label else saved_model(str(model), bf16=bf16())
        )
        summary = evaluate(evaluated, selection, output)
        return 100 * float(summary["tasks"][0]["score"])


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/quality"), show_default=True)
@click.option("--backbone", default="smollm2-135m", show_default=True)
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="of texts")
@click.option("--max-docs", type=click.IntRange(2), help="cut tasks down to so many texts; recorded")
@click.option("--only", multiple=True, help="contenders whose names begin so, and no others; may be repeated")
@click.option("--quick", is_flag=True, help="few texts and documents: does everything run?")
def main(
    data: Path, runs: Path, backbone: str, share: float, max_docs: int | None, only: tuple[str, ...], quick: bool
) -> None:
    """Train, judge and compare."""
    quiet_libraries()
    share, max_docs = (0.016, 60) if quick else (share, max_docs)
    looking = (*(["--bf16"] if bf16() else []), *(["--max-docs", str(max_docs)] if max_docs else []))
    bench = Bench(data, runs, backbone, share, QUICK if quick else (), looking)
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb", "extra"])
    details = earlier(share, max_docs)
    every = contenders(bench, details)
    folders = {name: bench.place(name) for name in details["summaries"] if bench.place(name).is_dir()}
    for name in (name for name in every if name.startswith(only or "")):
        folders[name] = every[name]()
        if not quick:
            there = {name: folders[name] for name in every if name in folders}
            details["not run"] = [name for name in every if name not in there]
            details["comparison"] = side_by_side(there)
            click.echo(write_results("quality", 0, checksums, results(there, details), details))


def earlier(share: float, max_docs: int | None) -> dict[str, Any]:
    """Details of what is in the results file already, where it was measured in the same way."""
    file = RESULTS / "quality.json"
    details: dict[str, Any] = json.loads(file.read_text())["details"] if file.is_file() else {}
    if (details.get("share"), details.get("max_docs")) == (share, max_docs):
        return details
    return {"share": share, "max_docs": max_docs, "learning_rates": {}, "trained": {}, "summaries": {}}


def contenders(bench: Bench, details: dict[str, Any]) -> dict[str, Callable[[], Path]]:
    """By name what makes a contender and gives the folder of its results, the most wanted first; ``details`` fill on the way."""
    whole = replace(bench, looking=(), tasks=(*MINILM, "SciFact"))
    other = replace(bench, backbone=SECOND, tasks=SUBSET)
    whole_name, second_plain = f"{MINILM_NAME}, whole tasks", f"{SECOND}: PromptEOL"
    found: dict[str, Callable[[], Path]] = {
        "BM25": partial(bench.evaluate, "BM25", "bm25"),
        MINILM_NAME: partial(bench.evaluate, MINILM_NAME, "all-minilm-l6-v2"),
        whole_name: partial(whole.evaluate, whole_name, "all-minilm-l6-v2"),
    }
    for method, seeds in SEEDS.items():
        for label in ("", FILTERED) if method != "text2token" else ("",):
            for seed in range(seeds):
                name = f"{method}{label}, seed {seed}"
                found[name] = partial(trained, name, method, seed, bench, bench, details, label)
    for setting, options in SETTINGS.items():
        for label, correction in CORRECTIONS.items():
            corrected = [*options, "--correction", correction]
            found[setting + label] = partial(untrained, bench, setting, setting + label, corrected)
    options = [*SETTINGS["PromptEOL"], "--correction", "none"]
    found[second_plain] = partial(other.evaluate, second_plain, SECOND, *options)
    for method in ("text2token", "llm2vec"):
        found[f"{SECOND}: {method}"] = partial(trained, f"{SECOND}: {method}", method, 0, bench, other, details)
    return found


def trained(
    name: str,
    method: str,
    seed: int,
    chosen_on: Bench,
    bench: Bench,
    details: dict[str, Any],
    label: str = "",
) -> Path:
    """A method under the best of its learning rates, which are tried on the first backbone; as it is, or corrected."""
    tried = details["learning_rates"][method + label] = learning_rates(chosen_on, method, label)
    model = bench.train(method, max(tried, key=tried.__getitem__), seed)
    details["trained"][name] = cost(model, DECODED.get(method, 1.0))
    correction = ["--correction", CORRECTIONS[label], "--corpus", bench.corpus] if label else []
    return bench.evaluate(name, str(model), *correction)


@cache
def learning_rates(bench: Bench, method: str, label: str) -> dict[str, float]:
    """STSBenchmark validation by rate, seed 0."""
    tried: dict[str, float] = {}
    for rate in (*RATES, *BEYOND):
        if rate in RATES or max(tried.values()) == next(reversed(tried.values())):
            tried[rate] = bench.validation(bench.train(method, rate, 0), label)
    return tried


def untrained(bench: Bench, setting: str, name: str, options: list[str]) -> Path:
    """A training-free setting under one of its corrections, for all of which it is encoded once."""
    vectors = bench.runs / "vectors" / f"{setting.replace(' ', '-')}.sqlite"
    vectors.parent.mkdir(parents=True, exist_ok=True)
    return bench.evaluate(name, bench.backbone, *options, "--corpus", bench.corpus, "--vectors", str(vectors))


def cost(model: Path, factor: float) -> dict[str, float]:
    """Texts, tokens through the body (``factor`` times those the trainer counted) and minutes of a training."""
    run = json.loads((model / "run.json").read_text())
    stages = {row["stage"]: row for row in run["log"] if "num_input_tokens_seen" in row}  # the last row of each
    seconds = [took for what, took in run["timings"].items() if what.startswith("train")]
    return {
        "texts": run["recipe"]["max_texts"],
        "tokens": factor * sum(row["num_input_tokens_seen"] for row in stages.values()),
        "minutes": sum(seconds) / 60,
        "minutes of the whole run": sum(run["timings"].values()) / 60,
    }


def results(folders: dict[str, Path], details: dict[str, Any]) -> dict[str, float]:
    """Figures of the contenders that are finished; their summaries go into ``details``."""
    summaries = {name: read_summary(folder) for name, folder in folders.items()}
    details["summaries"] = summaries
    figures = {
        f"{name}: {kind}": 100 * score for name, row in summaries.items() for kind, score in row["mean_by_type"].items()
    }
    figures |= {f"{name}: {OVERALL}": 100 * row["mean_over_tasks"] for name, row in summaries.items()}
    if checked := summaries.get(f"{MINILM_NAME}, whole tasks"):
        scores = {row["task"]: 100 * row["score"] for row in checked["tasks"]}
        figures["minilm_max_abs_diff"] = max(abs(scores[task] - score) for task, score in MINILM.items())
    return figures | differences(figures) | judging_cost(folders)


def judging_cost(folders: dict[str, Path]) -> dict[str, float]:
    """What judging ours, all seeds, adds to encoding each text once, a share, and the peak of memory on the whole of SciFact."""

    def tasks(name: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in (folders[name] / "tasks").glob("*.json")]

    ours = [row for name in folders if name.startswith("text2token") for row in tasks(name)]
    found = {}
    if ours:
        seconds, encoding = (sum(row[key] for row in ours) for key in ("seconds", "encoding_seconds"))
        found["judging_over_encoding"] = seconds / encoding - 1
    if (whole := f"{MINILM_NAME}, whole tasks") in folders:
        found["judging_peak_gib"] = next(row["peak_rss_gib"] for row in tasks(whole) if row["task"] == "SciFact")
    return found


def side_by_side(folders: dict[str, Path]) -> dict[str, Any] | None:
    """The first contender of :data:`COMPARED` against the others, task by task, as far as they are finished; and its figure."""
    there = [folders[name] for name in COMPARED if name in folders]
    if next(iter(COMPARED)) not in folders or len(there) < 2:
        return None
    compared = compare(there)
    write_figure(draw(compared), Path("docs") / "figures", FIGURE)
    return {**in_points(compared), "columns": [shown for name, shown in COMPARED.items() if name in folders]}


def in_points(comparison: Comparison) -> dict[str, Any]:
    """A comparison as plain values, with scores, intervals and differences × 100."""
    found = comparison.to_json()
    for row in found["tasks"] + found["means"]:
        row["scores"] = {column: 100 * score for column, score in row["scores"].items()}
        row["intervals"] = {column: [100 * end for end in ends] for column, ends in row["intervals"].items()}
        row["differences"] = {
            column: {"points": 100 * d["value"], "low": 100 * d["low"], "high": 100 * d["high"], "clear": d["clear"]}
            for column, d in row["differences"].items()
        }
    return found


def differences(figures: dict[str, float]) -> dict[str, float]:
    """Ours minus LLM2Vec's recipe, each the mean over its seeds: over all tasks, and of the type where it is worst.

    The recipe as it is published, or with the correction that ours has: whichever is better overall.
    """
    means = {name: {kind: mean(scores) for kind, scores in row.items()} for name, row in by_contender(figures).items()}
    ours = means.get(NAMES["text2token"])
    others = [means[NAMES[method]] for method in ("llm2vec", "llm2vec" + FILTERED) if NAMES[method] in means]
    if not ours or not others:
        return {}
    theirs = max(others, key=lambda row: row[OVERALL])
    apart = {kind: ours[kind] - theirs[kind] for kind in ours}
    overall = apart.pop(OVERALL)
    return {"ours_minus_llm2vec_mean": overall, "ours_minus_llm2vec_worst_type": min(apart.values())}


def bf16() -> bool:
    """Encode in mixed precision? Where the hardware can, for all contenders alike."""
    return has_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
