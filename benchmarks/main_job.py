"""Measure the default recipe: fit on Wikipedia sentences, then STSBenchmark and SciFact, beside untrained settings.

    python benchmarks/main_job.py --data DATA          # DATA has corpus/wiki-sentences.txt and mteb/, see docs/evaluation.md

Every finished part stays in ``--runs``, so a stopped run continues. Writes benchmarks/results/main_job.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from runner import DATA, SENTENCES, data_checksums, runs_option, spread, text2token, write_results
from text2token import Embedder, Recipe
from text2token.cli.options import quiet_libraries
from text2token.data.corpus import open_corpus
from text2token.evaluation import LearnedCorrection, evaluate, saved_model, select_tasks, untrained_model
from text2token.model.fingerprint import backbone_checksum
from text2token.settings.record import RunRecord
from text2token.targets.builders import TargetSettings, make_builders
from text2token.targets.data_driven import corpus_statistics
from text2token.utils.resume import cached

TASKS = {
    "stsb_validation": ("STSBenchmark", "validation"),
    "stsb_test": ("STSBenchmark", "test"),
    "scifact_ndcg10": ("SciFact", "test"),
}
UNTRAINED = {
    "plain mean": Recipe(pooling="mean", template="none", correction="none"),
    "PromptEOL": Recipe(template="eol-published", correction="none"),
    "keywords prompt, corrected": Recipe(template="keywords"),
}
REPEATS = 5  # rounds of each timing


@click.command()
@DATA
@runs_option("main_job")
def main(data: Path, runs: Path) -> None:
    """Fit with the default recipe and measure."""
    quiet_libraries()
    corpus = str(data / SENTENCES)
    model = runs / "model"
    if not model.is_dir():
        text2token("fit", corpus, "--output", str(model), "--recipe", "recipes/default.yaml")
    run = RunRecord.read(model / "run.json").model_dump(mode="json")
    speed = cached(runs / "targets_vs_tokenize.json", lambda: targets_vs_tokenize(corpus))
    figures = {
        "train_minutes": (run["timings"]["train 1"] + run["timings"]["train 2"]) / 60,
        "fit_minutes": sum(run["timings"].values()) / 60,
        "peak_rss_gib": run["peak_rss_gib"],
        "targets_vs_tokenize": speed["median"],
    }
    fitted = {key: run[key] for key in ("recipe", "timings", "targets", "before", "after", "git")}
    details = {"targets_vs_tokenize": speed, "fit": fitted}
    checksums = data_checksums(data, [SENTENCES, "mteb/stsbenchmark-sts", "mteb/scifact"])
    evaluated = {"text2token": saved_model(str(model), precision="auto")}
    for name, recipe in UNTRAINED.items():
        evaluated[name] = untrained_model(recipe, LearnedCorrection.of_recipe(recipe, corpus), precision="auto")
    for key, (task, split) in TASKS.items():
        selection = select_tasks(data_root=data / "mteb", names=[task])
        for selected in selection.tasks:
            selected.filter_eval_splits([split])
        for name, contender in evaluated.items():
            summary = evaluate(contender, selection, runs / "results" / f"{name}-{key}", progress=True)
            figures[key if name == "text2token" else f"{key} ({name})"] = 100 * summary["tasks"][0]["score"]
            click.echo(write_results("main_job", run["recipe"]["seed"], checksums, figures, details))


def targets_vs_tokenize(corpus: str) -> dict[str, Any]:
    """Measure the speed of data-driven targets over that of tokenising alone (texts per second), in turns."""
    embedder, recipe = Embedder.open(Recipe().backbone, **Recipe().embedder_settings()), Recipe()
    texts = list(islice(open_corpus(corpus), 20_000))
    statistics = corpus_statistics(texts, embedder.tokenizer, embedder.vocabulary_size, recipe.train_length)
    build = make_builders(embedder, statistics, texts, recipe.part(TargetSettings), backbone_checksum(embedder))[1]
    batches = [texts[i : i + 1024] for i in range(0, len(texts), 1024)]

    def seconds(work: Callable[[list[str]], Any]) -> float:
        started = time.perf_counter()
        for batch in batches:
            work(batch)
        return time.perf_counter() - started

    def tokenize(batch: list[str]) -> Any:
        return embedder.tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False)

    pairs = [(seconds(tokenize), seconds(build)) for _ in range(REPEATS + 1)][1:]  # the first round warms up
    return {**spread([alone / built for alone, built in pairs]), "texts": len(texts), "seconds": pairs}


if __name__ == "__main__":
    main()
