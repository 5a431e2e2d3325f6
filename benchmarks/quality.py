"""Compare contenders on the local tasks: same backbone, same texts, same number of tokens.

    python benchmarks/quality.py --data DATA     # DATA has corpus/wiki-sentences.txt, mteb/ and extra/, see docs/evaluation.md

Each step is a text2token command that keeps its result in ``--runs``, so a stopped run continues when the command is repeated.
Several processes can share the work with ``--only``; one more run then puts all results together. The benchmark writes
benchmarks/results/quality.json after every contender.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from contenders import (
    COMPARED,
    CORRECTIONS,
    FIRST,
    MINILM,
    MINILM_WHOLE,
    OURS,
    OVERALL,
    Contender,
    contenders,
    seeds,
)
from quality_figures import differences
from runner import DATA, SENTENCES, data_checksums, read_results, runs_option, text2token, write_results
from text2token.cli.options import quiet_libraries
from text2token.evaluation import LearnedCorrection, compare, evaluate, read_summary, recorrected_model, saved_model
from text2token.evaluation.comparison import Row
from text2token.evaluation.results import SUMMARY
from text2token.evaluation.tasks import select_tasks
from text2token.settings.recipe import Recipe
from trained import cost, recipe_file, train

RATES = ("3e-5", "1e-4", "3e-4")  # the learning rates that every method tries
LARGER_RATES = ("1e-3", "3e-3", "1e-2", "3e-2")  # tried one by one as long as the last rate is the best
DECODED = {"tsdae": 1.4 / 0.4}  # the trainer counts what the encoder reads, 40 % of a text; the decoder reads all of it


class Bench(NamedTuple):
    """Folders of the benchmark and the settings that all contenders share."""

    data: Path  # corpus and tasks
    runs: Path  # models, vectors and results
    share: float  # share of the texts of its recipe that each method gets
    evaluation: tuple[str, ...]  # options of every evaluation

    @property
    def corpus(self) -> str:
        """File of the texts that every contender learns from."""
        return str(self.data / SENTENCES)

    def result_folder(self, name: str) -> Path:
        """Folder of a contender's results."""
        return self.runs / "results" / file_name(name)

    def tasks(self, contender: Contender) -> dict[str, Path | None]:
        """Return the tasks of a contender, see :func:`local_tasks`."""
        every = local_tasks(self.data)
        return {task: every[task] for task in contender.tasks or every}

    def finished(self, name: str, contender: Contender) -> bool:
        """Tell whether a contender has all its tasks. A stopped evaluation has a summary of fewer."""
        folder = self.result_folder(name)
        if not (folder / SUMMARY).is_file():
            return False
        summary = read_summary(folder)
        return {row["task"] for row in summary["tasks"]} | summary["skipped"].keys() >= self.tasks(contender).keys()

    def run(self, name: str, contender: Contender, details: dict[str, Any]) -> Path:
        """Train and evaluate a contender. Learning rates and costs are added to ``details``."""
        model, options, method, label = contender.model, [*contender.options], contender.method, contender.correction
        if method:
            tried = details["learning_rates"][method + label] = learning_rates(self, method, label)
            rate = max(tried, key=tried.__getitem__)
            trained = self.train(contender.model, method, rate, contender.seed, contender.teacher)
            details["trained"][name] = cost(trained, DECODED.get(method, 1.0))
            model = str(trained)
            options = ["--correction", CORRECTIONS[label], "--corpus", self.corpus] if label else []
        if contender.vectors:
            file = self.runs / "vectors" / f"{file_name(contender.vectors)}.sqlite"
            options += ["--corpus", self.corpus, "--vectors", str(file)]
        tasks = self.tasks(contender)
        for folder in filter(None, tasks.values()):
            options += ["--data", str(folder)]
        mirrored = ",".join(task for task, folder in tasks.items() if not folder)
        options += ["--data-root", str(self.data / "mteb"), "--tasks", mirrored]
        options += () if contender.whole else self.evaluation
        text2token("evaluate", model, *options, "--output", str(self.result_folder(name)))
        return self.result_folder(name)

    def train(self, backbone: str, method: str, rate: str, seed: int, teacher: str | None = None) -> Path:
        """Train a model, unless its folder is there."""
        texts = round(self.share * Recipe.load(recipe_file(method)).max_texts)
        taught = {"teacher": teacher} if teacher else {}
        output = self.runs / "models" / "-".join([backbone, method, str(texts), rate, str(seed), *taught.values()])
        settings: dict[str, str | int] = {"backbone": backbone, "max_texts": texts, "learning_rate": rate, "seed": seed}
        return train(output, self.corpus, method, **settings, **taught)

    def validation(self, model: Path, label: str) -> float:
        """Score a model on STSBenchmark validation, × 100. Learning rates are chosen by this score."""
        selection = select_tasks(data_root=self.data / "mteb", names=["STSBenchmark"])
        for task in selection.tasks:
            task.filter_eval_splits(["validation"])
        if label:
            correction = LearnedCorrection.of_recipe(Recipe(correction=CORRECTIONS[label]), self.corpus)
            evaluated = recorrected_model(str(model), correction, precision="auto")
        else:
            evaluated = saved_model(str(model), precision="auto")
        output = self.runs / "validation" / f"{model.name}{file_name(label)}"
        return 100 * float(evaluate(evaluated, selection, output)["tasks"][0]["score"])


@cache
def local_tasks(data: Path) -> dict[str, Path | None]:
    """Return the tasks of the data: those of mteb, whose data are in the mirror, and tasks in folders of their own."""
    mirrored = [task.metadata.name for task in select_tasks(data_root=data / "mteb").tasks]
    own = {folder.name: folder for folder in sorted((data / "extra").glob("*/"))}
    return dict.fromkeys([*mirrored, "SciFact"]) | own


def file_name(name: str) -> str:
    """Return the name of a contender as part of a path."""
    return name.replace(", ", "-").replace(": ", "-").replace(" ", "-")


@click.command()
@DATA
@runs_option("quality")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="share of the texts")
@click.option("--max-docs", type=click.IntRange(2), help="cut each task to this number of texts")
@click.option("--only", multiple=True, help="run contenders whose names start with this; may be repeated")
def main(data: Path, runs: Path, share: float, max_docs: int | None, only: tuple[str, ...]) -> None:
    """Train, evaluate and compare all contenders."""
    quiet_libraries()
    evaluation = ("--max-docs", str(max_docs)) if max_docs else ()
    bench = Bench(data, runs, share, evaluation)
    checksums = data_checksums(data, [SENTENCES, "mteb", "extra"])
    details = earlier_details({"share": share, "max_docs": max_docs, "correction": Recipe().correction})
    every = contenders()
    for name, contender in every.items():
        if name.startswith(only or ""):
            bench.run(name, contender, details)
            folders = {each: bench.result_folder(each) for each in every if bench.finished(each, every[each])}
            details["not run"] = [each for each in every if each not in folders]
            details["comparison"] = comparison(folders)
            click.echo(write_results("quality", 0, checksums, results(folders, details), details))


def earlier_details(settings: dict[str, Any]) -> dict[str, Any]:
    """Read the learning rates and costs in the results file, if they were measured with the same settings."""
    details: dict[str, Any] = read_results("quality").get("details", {})
    same = all(name in details and details[name] == value for name, value in settings.items())
    return details if same else {**settings, "learning_rates": {}, "trained": {}}


@cache
def learning_rates(bench: Bench, method: str, label: str) -> dict[str, float]:
    """Score each learning rate on STSBenchmark validation, with the first backbone and seed 0."""
    tried: dict[str, float] = {}
    for rate in (*RATES, *LARGER_RATES):
        if rate in RATES or max(tried.values()) == next(reversed(tried.values())):
            tried[rate] = bench.validation(bench.train(FIRST, method, rate, 0), label)
    return tried


def results(folders: Mapping[str, Path], details: dict[str, Any]) -> dict[str, float]:
    """Compute the figures of the finished contenders, × 100. The scores of the model with known ones go into ``details``."""
    means: dict[str, dict[str, float]] = {}
    found: dict[str, float] = {}
    for name, folder in folders.items():
        scores: dict[str, list[float]] = {OVERALL: []}
        for row in read_summary(folder)["tasks"]:
            for kind in (row["type"], OVERALL):
                scores.setdefault(kind, []).append(row["score"])
        means[name] = {kind: points(mean(values)) for kind, values in scores.items()}
    if MINILM_WHOLE in folders:
        rows = read_summary(folders[MINILM_WHOLE])["tasks"]
        known = details["known_model"] = {row["task"]: 100 * row["score"] for row in rows if row["task"] in MINILM}
        found["minilm_max_abs_diff"] = max(abs(known[task] - score) for task, score in MINILM.items())
    shown = {f"{name}: {kind}": score for name, by_kind in means.items() for kind, score in by_kind.items()}
    return shown | found | differences(means) | evaluation_cost(folders)


def points(score: float) -> float:
    """Return a score × 100. It has four decimals, because all digits of all rows would make the results file too large."""
    return round(100 * score, 4)


def evaluation_cost(folders: Mapping[str, Path]) -> dict[str, float]:
    """Compute the seconds that evaluating ours adds to encoding 1,000 texts, and the peak memory on the whole of SciFact."""

    def tasks(name: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text(encoding="utf-8")) for file in (folders[name] / "tasks").glob("*.json")]

    found = {}
    if ours := [row for name in seeds(OURS) if name in folders for row in tasks(name)]:
        seconds, encoding, texts = (sum(row[key] for row in ours) for key in ("seconds", "encoding_seconds", "texts"))
        found["judging_s_per_1000_texts"] = 1000 * (seconds - encoding) / texts
    if MINILM_WHOLE in folders:
        found["judging_peak_gib"] = next(row["peak_rss_gib"] for row in tasks(MINILM_WHOLE) if row["task"] == "SciFact")
    return found


def comparison(folders: Mapping[str, Path]) -> dict[str, Any] | None:
    """Compare the first contender of :data:`COMPARED` with the others that are finished, task by task; scores are × 100."""
    shown = {name: folders[name] for name in COMPARED if name in folders}
    if next(iter(COMPARED)) not in shown or len(shown) < 2:
        return None
    found = compare(list(shown.values()))
    names = dict(zip(found.measured, (COMPARED[name] for name in shown), strict=True))

    def in_points(row: Row) -> dict[str, Any]:
        return {
            "label": row.label,
            "type": row.type,
            "scores": {names[column]: points(score) for column, score in row.scores.items()},
            "intervals": {names[column]: [*map(points, ends)] for column, ends in row.intervals.items()},
            "differences": {
                names[column]: {
                    "points": points(d.value),
                    "low": points(d.low),
                    "high": points(d.high),
                    "clear": d.clear,
                }
                for column, d in row.differences.items()
            },
        }

    tasks, means = (list(map(in_points, rows)) for rows in (found.tasks, found.means))
    return {"measured": list(names.values()), "tasks": tasks, "means": means}


if __name__ == "__main__":
    main()
