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
from itertools import chain
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import click

from contenders import COMPARED, FILTERED, MINILM, MINILM_NAME, NAMES, OVERALL, SECOND, WHOLE, by_contender
from runner import DATA, data_checksums, read_results, runs_option, text2token, write_results
from text2token.cli.options import quiet_libraries
from text2token.evaluation import LearnedCorrection, compare, evaluate, read_summary, recorrected_model, saved_model
from text2token.evaluation.comparison import Row
from text2token.evaluation.results import SUMMARY
from text2token.evaluation.tasks import select_tasks
from text2token.settings.recipe import Recipe
from trained import cost, recipe_file, train

FIRST = "smollm2-135m"  # the backbone that every method trains
RATES = ("3e-5", "1e-4", "3e-4")  # the learning rates that every method tries
LARGER_RATES = ("1e-3", "3e-3", "1e-2", "3e-2")  # tried one by one as long as the last rate is the best
SEEDS = {"text2token": 3, "llm2vec": 3, "simcse": 1, "tsdae": 1}
SETTINGS = {
    "plain mean": ("--template", "none", "--pooling", "mean"),
    "PromptEOL": ("--template", "eol"),
    "Echo": ("--template", "echo", "--pooling", "mean"),
    "keywords prompt": (),
    "weighted mean": ("--template", "none", "--pooling", "weighted-mean"),
    "last token": ("--template", "none"),
}
CORRECTIONS = {"": "none", FILTERED: "centre+filter", ", centred": "centre", ", first removed": "first-component"}
ONE_PER_TYPE = ("STSBenchmark", "TweetSentimentExtractionClassification", "SciFact", "SearchSnippets", "PIT2015")
DECODED = {"tsdae": 1.4 / 0.4}  # the trainer counts what the encoder reads, 40 % of a text; the decoder reads all of it


class Contender(NamedTuple):
    """One way to make vectors. ``vectors`` names the file that all corrections of an untrained setting share."""

    model: str  # what 'text2token evaluate' scores; a method trains this backbone first
    options: tuple[str, ...] = ()
    method: str | None = None
    correction: str = ""  # key of CORRECTIONS; the empty one leaves a trained model as it is
    seed: int = 0
    tasks: tuple[str, ...] = ()  # empty: all
    whole: bool = False  # evaluate complete tasks, also in a benchmark that cuts them
    vectors: str | None = None


def contenders() -> dict[str, Contender]:
    """Name every contender, in the order of the work."""
    trained = {
        f"{method}{label}, seed {seed}": Contender(FIRST, method=method, correction=label, seed=seed)
        for method, seeds in SEEDS.items()
        for label in (("",) if method == "text2token" else ("", FILTERED))
        for seed in range(seeds)
    }
    untrained = {
        setting + label: Contender(FIRST, (*options, "--correction", correction), vectors=setting.replace(" ", "-"))
        for setting, options in SETTINGS.items()
        for label, correction in CORRECTIONS.items()
    }
    plain = (*SETTINGS["PromptEOL"], "--correction", "none")
    return {
        "BM25": Contender("bm25"),
        MINILM_NAME: Contender("all-minilm-l6-v2"),
        WHOLE: Contender("all-minilm-l6-v2", tasks=(*MINILM, "SciFact"), whole=True),
        **trained,
        **untrained,
        f"{SECOND}: PromptEOL": Contender(SECOND, plain, tasks=ONE_PER_TYPE),
        f"{SECOND}: text2token": Contender(SECOND, method="text2token", tasks=ONE_PER_TYPE),
        f"{SECOND}: llm2vec": Contender(SECOND, method="llm2vec", tasks=ONE_PER_TYPE),
    }


class Bench(NamedTuple):
    """Folders of the benchmark and the settings that all contenders share."""

    data: Path  # corpus and tasks
    runs: Path  # models, vectors and results
    share: float  # share of the texts of its recipe that each method gets
    evaluation: tuple[str, ...]  # options of every evaluation

    @property
    def corpus(self) -> str:
        """File of the texts that every contender learns from."""
        return str(self.data / "corpus" / "wiki-sentences.txt")

    def result_folder(self, name: str) -> Path:
        """Folder of a contender's results."""
        return self.runs / "results" / name.replace(", ", "-").replace(": ", "-").replace(" ", "-")

    def run(self, name: str, contender: Contender, details: dict[str, Any]) -> Path:
        """Train and evaluate a contender. Learning rates and costs are added to ``details``."""
        model, options, method, label = contender.model, [*contender.options], contender.method, contender.correction
        if method:
            tried = details["learning_rates"][method + label] = learning_rates(self, method, label)
            folder = self.train(contender.model, method, max(tried, key=tried.__getitem__), contender.seed)
            details["trained"][name] = cost(folder, DECODED.get(method, 1.0))
            model = str(folder)
            options = ["--correction", CORRECTIONS[label], "--corpus", self.corpus] if label else []
        if contender.vectors:
            file = self.runs / "vectors" / f"{contender.vectors}.sqlite"
            options += ["--corpus", self.corpus, "--vectors", str(file)]
        mirrored = [task.metadata.name for task in select_tasks(data_root=self.data / "mteb").tasks] + ["SciFact"]
        tasks = [task for task in mirrored if not contender.tasks or task in contender.tasks]
        for folder in sorted((self.data / "extra").glob("*/")):
            options += ["--data", str(folder)] if not contender.tasks or folder.name in contender.tasks else []
        options += ["--data-root", str(self.data / "mteb"), "--tasks", ",".join(tasks)]
        options += () if contender.whole else self.evaluation
        text2token("evaluate", model, *options, "--output", str(self.result_folder(name)))
        return self.result_folder(name)

    def train(self, backbone: str, method: str, rate: str, seed: int) -> Path:
        """Train a model, unless its folder is there."""
        texts = round(self.share * Recipe.load(recipe_file(method)).max_texts)
        output = self.runs / "models" / f"{backbone}-{method}-{texts}-{rate}-{seed}"
        settings: dict[str, str | int] = {"backbone": backbone, "max_texts": texts, "learning_rate": rate, "seed": seed}
        return train(output, self.corpus, method, **settings)

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
        output = self.runs / "validation" / f"{model.name}{label.replace(', ', '-')}"
        return 100 * float(evaluate(evaluated, selection, output)["tasks"][0]["score"])


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
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb", "extra"])
    details = earlier_details(share, max_docs)
    every = contenders()
    for name, contender in every.items():
        if name.startswith(only or ""):
            bench.run(name, contender, details)
            folders = {each: folder for each in every if ((folder := bench.result_folder(each)) / SUMMARY).is_file()}
            details["not run"] = [each for each in every if each not in folders]
            details["comparison"] = comparison(folders)
            click.echo(write_results("quality", 0, checksums, results(folders, details), details))


def earlier_details(share: float, max_docs: int | None) -> dict[str, Any]:
    """Read the learning rates and costs in the results file, if they were measured with the same settings."""
    details: dict[str, Any] = read_results("quality").get("details", {})
    if (details.get("share"), details.get("max_docs")) == (share, max_docs):
        return details
    return {"share": share, "max_docs": max_docs, "learning_rates": {}, "trained": {}}


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
    figures: dict[str, float] = {}
    for name, folder in folders.items():
        tasks = read_summary(folder)["tasks"]
        scores: dict[str, list[float]] = {}
        for row in tasks:
            scores.setdefault(row["type"], []).append(100 * row["score"])
        figures |= {f"{name}: {kind}": mean(values) for kind, values in scores.items()}
        figures[f"{name}: {OVERALL}"] = mean(chain.from_iterable(scores.values()))
        if name == WHOLE:
            known = details["known_model"] = {row["task"]: 100 * row["score"] for row in tasks}
            figures["minilm_max_abs_diff"] = max(abs(known[task] - score) for task, score in MINILM.items())
    return figures | differences(figures) | evaluation_cost(folders)


def evaluation_cost(folders: Mapping[str, Path]) -> dict[str, float]:
    """Compute the seconds that evaluating ours adds to encoding 1,000 texts, and the peak memory on the whole of SciFact."""

    def tasks(name: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text(encoding="utf-8")) for file in (folders[name] / "tasks").glob("*.json")]

    found = {}
    if ours := [row for name in folders if name.startswith("text2token") for row in tasks(name)]:
        seconds, encoding, texts = (sum(row[key] for row in ours) for key in ("seconds", "encoding_seconds", "texts"))
        found["judging_s_per_1000_texts"] = 1000 * (seconds - encoding) / texts
    if WHOLE in folders:
        found["judging_peak_gib"] = next(row["peak_rss_gib"] for row in tasks(WHOLE) if row["task"] == "SciFact")
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
            "scores": {names[column]: 100 * score for column, score in row.scores.items()},
            "intervals": {names[column]: [100 * end for end in ends] for column, ends in row.intervals.items()},
            "differences": {
                names[column]: {"points": 100 * d.value, "low": 100 * d.low, "high": 100 * d.high, "clear": d.clear}
                for column, d in row.differences.items()
            },
        }

    tasks, means = (list(map(in_points, rows)) for rows in (found.tasks, found.means))
    return {"measured": list(names.values()), "tasks": tasks, "means": means}


def differences(figures: Mapping[str, float]) -> dict[str, float]:
    """Subtract LLM2Vec's recipe from ours, means over seeds: over all tasks, and for the type of task where ours is worst.

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


if __name__ == "__main__":
    main()
