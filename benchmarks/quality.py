"""Compare contenders on the local tasks: same backbone, same texts, same number of tokens.

    python benchmarks/quality.py --data DATA     # DATA has corpus/wiki-sentences.txt, mteb/ and extra/, see docs/evaluation.md

Each step is a text2token command that keeps its result in ``--runs``, so a stopped run continues when the command is repeated.
Several processes can share the work with ``--only``; one more run then puts all results together. The benchmark writes
benchmarks/results/quality.json after every contender.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any

import click
import torch

from contenders import COMPARED, FILTERED, MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, WHOLE, by_contender
from runner import data_checksums, read_results, text2token, write_results
from text2token.cli.options import quiet_libraries
from text2token.evaluation import LearnedCorrection, evaluate, recorrected_model, saved_model
from text2token.evaluation.comparison import Comparison, compare
from text2token.evaluation.results import SUMMARY, read_summary
from text2token.evaluation.tasks import select_tasks
from text2token.model.precision import has_bf16
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord

RATES = ("3e-5", "1e-4", "3e-4")  # the learning rates that every method tries
LARGER_RATES = ("1e-3", "3e-3", "1e-2", "3e-2")  # tried one by one as long as the last rate is the best
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
ONE_PER_TYPE = ("STSBenchmark", "TweetSentimentExtractionClassification", "SciFact", "SearchSnippets", "PIT2015")
DECODED = {"tsdae": 1.4 / 0.4}  # the trainer counts what the encoder reads, 40 % of a text; the decoder reads all of it
QUICK = ("--held-out", "8", "--calibration-texts", "32", "--prior-texts", "16")


@dataclass(frozen=True)
class Bench:
    """Folders of the benchmark and the settings that all its commands share.

    Attributes:
        data: Folder with the corpus and the tasks.
        runs: Folder for models, vectors and results.
        backbone: Language model that every method trains.
        share: Share of the texts of its recipe that each method gets.
        training: Options of every training.
        evaluation: Options of every evaluation.
        tasks: Names of the tasks; empty means all.
    """

    data: Path
    runs: Path
    backbone: str
    share: float
    training: tuple[str, ...]
    evaluation: tuple[str, ...]
    tasks: tuple[str, ...] = ()

    @property
    def corpus(self) -> str:
        """File of the texts that every contender learns from."""
        return str(self.data / "corpus" / "wiki-sentences.txt")

    def evaluate(self, name: str, *model: str) -> Path:
        """Score a model on all tasks, except those with a finished result."""
        output = self.result_folder(name)
        mirrored = [task.metadata.name for task in select_tasks(data_root=self.data / "mteb").tasks] + ["SciFact"]
        tasks = [task for task in mirrored if not self.tasks or task in self.tasks]
        folders = [folder for folder in sorted((self.data / "extra").iterdir()) if folder.is_dir()]
        own = [("--data", str(folder)) for folder in folders if not self.tasks or folder.name in self.tasks]
        data = ["--data-root", str(self.data / "mteb"), "--tasks", ",".join(tasks), *chain.from_iterable(own)]
        text2token("evaluate", *model, *data, *self.evaluation, "--output", str(output))
        return output

    def result_folder(self, name: str) -> Path:
        """Folder of a contender's results."""
        return self.runs / "results" / name.replace(", ", "-").replace(": ", "-").replace(" ", "-")

    def train(self, method: str, rate: str, seed: int) -> Path:
        """Train a model, unless its folder is there."""
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
        """Score of a model on STSBenchmark validation, × 100. Learning rates are chosen by it."""
        selection = select_tasks(data_root=self.data / "mteb", names=["STSBenchmark"])
        for task in selection.tasks:
            task.filter_eval_splits(["validation"])
        output = self.runs / "validation" / f"{model.name}{label.replace(', ', '-')}"
        correction = LearnedCorrection.of_recipe(Recipe(correction=CORRECTIONS[label]), self.corpus)
        evaluated = (
            recorrected_model(str(model), correction, bf16=bf16()) if label else saved_model(str(model), bf16=bf16())
        )
        return 100 * float(evaluate(evaluated, selection, output)["tasks"][0]["score"])


@click.command()
@click.option(
    "--data", type=click.Path(exists=True, path_type=Path), required=True, help="folder with corpus and tasks"
)
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs/quality"), show_default=True)
@click.option("--backbone", default="smollm2-135m", show_default=True)
@click.option(
    "--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True, help="share of the texts"
)
@click.option("--max-docs", type=click.IntRange(2), help="cut each task to this number of texts")
@click.option("--only", multiple=True, help="run contenders whose names start with this; may be repeated")
@click.option(
    "--quick", is_flag=True, help="few texts and documents, to see whether everything runs; writes no results"
)
def main(
    data: Path, runs: Path, backbone: str, share: float, max_docs: int | None, only: tuple[str, ...], quick: bool
) -> None:
    """Train, evaluate and compare all contenders."""
    quiet_libraries()
    share, max_docs = (0.016, 60) if quick else (share, max_docs)
    evaluation = (*(["--bf16"] if bf16() else []), *(["--max-docs", str(max_docs)] if max_docs else []))
    bench = Bench(data, runs, backbone, share, QUICK if quick else (), evaluation)
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb", "extra"])
    details = earlier_details(share, max_docs)
    every = contenders(bench, details)
    folders = {name: folder for name in every if (folder := bench.result_folder(name)) and (folder / SUMMARY).is_file()}
    for name in (name for name in every if name.startswith(only or "")):
        folders[name] = every[name]()
        if not quick:
            finished = {name: folders[name] for name in every if name in folders}
            details["not run"] = [name for name in every if name not in finished]
            details["comparison"] = comparison(finished)
            click.echo(write_results("quality", 0, checksums, results(finished, details), details))


def earlier_details(share: float, max_docs: int | None) -> dict[str, Any]:
    """Learning rates and costs in the results file, if they were measured with the same settings."""
    details: dict[str, Any] = read_results("quality").get("details", {})
    if (details.get("share"), details.get("max_docs")) == (share, max_docs):
        return details
    return {"share": share, "max_docs": max_docs, "learning_rates": {}, "trained": {}}


def contenders(bench: Bench, details: dict[str, Any]) -> dict[str, Callable[[], Path]]:
    """Name every contender, with a function that makes it and returns the folder of its results.

    The order is that of the work. The functions add learning rates and costs to ``details``.
    """
    complete = replace(bench, evaluation=(), tasks=(*MINILM, "SciFact"))
    second = replace(bench, backbone=SECOND, tasks=ONE_PER_TYPE)
    found: dict[str, Callable[[], Path]] = {
        "BM25": partial(bench.evaluate, "BM25", "bm25"),
        MINILM_NAME: partial(bench.evaluate, MINILM_NAME, "all-minilm-l6-v2"),
        WHOLE: partial(complete.evaluate, WHOLE, "all-minilm-l6-v2"),
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
    plain = [*SETTINGS["PromptEOL"], "--correction", "none"]
    found[f"{SECOND}: PromptEOL"] = partial(second.evaluate, f"{SECOND}: PromptEOL", SECOND, *plain)
    for method in ("text2token", "llm2vec"):
        name = f"{SECOND}: {method}"
        found[name] = partial(trained, name, method, 0, bench, second, details)
    return found


def trained(
    name: str, method: str, seed: int, first: Bench, bench: Bench, details: dict[str, Any], label: str = ""
) -> Path:
    """Train and evaluate a method with its best learning rate, which is chosen on the first backbone."""
    tried = details["learning_rates"][method + label] = learning_rates(first, method, label)
    model = bench.train(method, max(tried, key=tried.__getitem__), seed)
    details["trained"][name] = cost(model, DECODED.get(method, 1.0))
    correction = ["--correction", CORRECTIONS[label], "--corpus", bench.corpus] if label else []
    return bench.evaluate(name, str(model), *correction)


@cache
def learning_rates(bench: Bench, method: str, label: str) -> dict[str, float]:
    """Score each learning rate on STSBenchmark validation, with seed 0."""
    tried: dict[str, float] = {}
    for rate in (*RATES, *LARGER_RATES):
        if rate in RATES or max(tried.values()) == next(reversed(tried.values())):
            tried[rate] = bench.validation(bench.train(method, rate, 0), label)
    return tried


def untrained(bench: Bench, setting: str, name: str, options: list[str]) -> Path:
    """Evaluate an untrained setting with one correction. The vectors are shared by all corrections of a setting."""
    vectors = bench.runs / "vectors" / f"{setting.replace(' ', '-')}.sqlite"
    vectors.parent.mkdir(parents=True, exist_ok=True)
    return bench.evaluate(name, bench.backbone, *options, "--corpus", bench.corpus, "--vectors", str(vectors))


def cost(model: Path, factor: float) -> dict[str, float]:
    """Texts, tokens and minutes of a training; the tokens are ``factor`` times those that the trainer counted."""
    run = RunRecord.read(model / "run.json").model_dump(mode="json")
    last_rows = {row["stage"]: row for row in run["log"] if "num_input_tokens_seen" in row}
    seconds = [taken for step, taken in run["timings"].items() if step.startswith("train")]
    return {
        "texts": run["recipe"]["max_texts"],
        "tokens": factor * sum(row["num_input_tokens_seen"] for row in last_rows.values()),
        "minutes": sum(seconds) / 60,
        "minutes of the whole run": sum(run["timings"].values()) / 60,
    }


def results(folders: Mapping[str, Path], details: dict[str, Any]) -> dict[str, float]:
    """Figures of the finished contenders, × 100. The summaries go into ``details``."""
    details["summaries"] = {name: read_summary(folder) for name, folder in folders.items()}
    figures: dict[str, float] = {}
    for name, summary in details["summaries"].items():
        scores: dict[str, list[float]] = {}
        for row in summary["tasks"]:
            scores.setdefault(row["type"], []).append(100 * row["score"])
        figures |= {f"{name}: {kind}": mean(values) for kind, values in scores.items()}
        figures[f"{name}: {OVERALL}"] = mean(chain.from_iterable(scores.values()))
    if WHOLE in folders:
        known = {row["task"]: 100 * row["score"] for row in details["summaries"][WHOLE]["tasks"]}
        figures["minilm_max_abs_diff"] = max(abs(known[task] - score) for task, score in MINILM.items())
    return figures | differences(figures) | evaluation_cost(folders)


def evaluation_cost(folders: Mapping[str, Path]) -> dict[str, float]:
    """Time that evaluating ours adds to encoding, as a share, and the peak memory on the whole of SciFact."""

    def tasks(name: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text(encoding="utf-8")) for file in (folders[name] / "tasks").glob("*.json")]

    ours = [row for name in folders if name.startswith("text2token") for row in tasks(name)]
    found = {}
    if ours:
        seconds, encoding = (sum(row[key] for row in ours) for key in ("seconds", "encoding_seconds"))
        found["judging_over_encoding"] = seconds / encoding - 1
    if WHOLE in folders:
        found["judging_peak_gib"] = next(row["peak_rss_gib"] for row in tasks(WHOLE) if row["task"] == "SciFact")
    return found


def comparison(folders: Mapping[str, Path]) -> dict[str, Any] | None:
    """Compare the first contender of :data:`COMPARED` with the others, task by task, as far as they are finished."""
    shown = {name: folders[name] for name in COMPARED if name in folders}
    if next(iter(COMPARED)) not in shown or len(shown) < 2:
        return None
    return {**in_points(compare(list(shown.values()))), "columns": [COMPARED[name] for name in shown]}


def in_points(comparison: Comparison) -> dict[str, Any]:
    """Return a comparison as plain values, with scores, intervals and differences × 100."""
    found = comparison.to_json()
    for row in found["tasks"] + found["means"]:
        row["scores"] = {column: 100 * score for column, score in row["scores"].items()}
        row["intervals"] = {column: [100 * end for end in ends] for column, ends in row["intervals"].items()}
        row["differences"] = {
            column: {"points": 100 * d["value"], "low": 100 * d["low"], "high": 100 * d["high"], "clear": d["clear"]}
            for column, d in row["differences"].items()
        }
    return found


def differences(figures: Mapping[str, float]) -> dict[str, float]:
    """Ours minus LLM2Vec's recipe, means over seeds: over all tasks, and for the type of task where ours is worst.

    The recipe counts with or without the correction of ours, whichever is better overall.
    """
    means = {name: {kind: mean(scores) for kind, scores in row.items()} for name, row in by_contender(figures).items()}
    ours = means.get(NAMES["text2token"])
    others = [means[NAMES[method]] for method in ("llm2vec", "llm2vec" + FILTERED) if NAMES[method] in means]
    if not ours or not others:
        return {}
    theirs = max(others, key=lambda row: row[OVERALL])
    found = {kind: ours[kind] - theirs[kind] for kind in ours}
    overall = found.pop(OVERALL)
    return {"ours_minus_llm2vec_mean": overall, "ours_minus_llm2vec_worst_type": min(found.values())}


def bf16() -> bool:
    """Tell whether the hardware multiplies bfloat16. All contenders are encoded in the same precision."""
    return has_bf16(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
