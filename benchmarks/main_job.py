"""Measure the default recipe: fit on Wikipedia sentences, then STSBenchmark and SciFact, beside untrained settings.

    python benchmarks/main_job.py --data DATA          # DATA has corpus/wiki-sentences.txt and mteb/, see docs/evaluation.md

Every finished measurement stays in runs/main_job/, so a stopped run continues. Writes benchmarks/results/main_job.json.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import mteb
from sentence_transformers import SentenceTransformer

from runner import data_checksums, kept, text2token, write_results
from text2token import Embedder, Recipe
from text2token.cli.options import quiet_libraries
from text2token.data.corpus import open_corpus
from text2token.evaluation.tasks import select_tasks
from text2token.model.fingerprint import backbone_checksum
from text2token.model.folders import dense_modules
from text2token.model.precision import mixed_precision
from text2token.settings.record import RunRecord
from text2token.targets.builders import TargetSettings, make_builders
from text2token.targets.data_driven import corpus_statistics

RUNS = Path("runs/main_job")
TASKS = {
    "stsb_validation": ("STSBenchmark", "validation"),
    "stsb_test": ("STSBenchmark", "test"),
    "scifact_ndcg10": ("SciFact", "test"),
}
UNTRAINED = {
    "plain mean": Recipe(pooling="mean", template="none"),
    "PromptEOL": Recipe(template="eol-published"),
    "keywords prompt, corrected": Recipe(template="keywords"),
}
REPEATS = 5  # rounds of each timing


@click.command()
@click.option("--data", type=click.Path(exists=True, path_type=Path), required=True)
def main(data: Path) -> None:
    """Fit with the default recipe and measure."""
    quiet_libraries()
    corpus = data / "corpus" / "wiki-sentences.txt"
    model = RUNS / "model"
    if not model.is_dir():
        text2token("fit", str(corpus), "--output", str(model), "--recipe", "recipes/default.yaml")
    run = RunRecord.read(model / "run.json").model_dump(mode="json")
    speed = kept(RUNS / "targets_vs_tokenize.json", lambda: targets_vs_tokenize(corpus))
    figures = {
        "train_minutes": (run["timings"]["train 1"] + run["timings"]["train 2"]) / 60,
        "fit_minutes": sum(run["timings"].values()) / 60,
        "peak_rss_gib": run["peak_rss_gib"],
        "targets_vs_tokenize": speed["median"],
    }
    checksums = data_checksums(data, ["corpus/wiki-sentences.txt", "mteb/stsbenchmark-sts", "mteb/scifact"])
    facts = ("recipe", "timings", "targets", "before", "after", "git")
    details = {"targets_vs_tokenize": speed, "fit": {key: run[key] for key in facts}}
    settings: dict[str, Callable[[], Embedder]] = {"text2token": lambda: Embedder.open(model)}
    for name, recipe in UNTRAINED.items():
        settings[name] = partial(untrained, recipe, corpus, corrected="corrected" in name)
    for key, task in TASKS.items():
        for name, load in settings.items():
            score = kept(RUNS / f"{name}-{key}.json", partial(evaluate, load, *task, data))
            figures[key if name == "text2token" else f"{key} ({name})"] = score
            file = write_results("main_job", run["seed"], checksums, figures, details)
    click.echo(file)


def evaluate(load: Callable[[], Embedder], task_name: str, split: str, data: Path) -> float:
    """Return the main score × 100 of one task, encoded in bf16 where the hardware has it."""
    (task,) = select_tasks(data_root=data / "mteb", names=[task_name]).tasks
    task.filter_eval_splits([split])
    embedder = load()
    model = SentenceTransformer(modules=dense_modules(embedder.encoder, embedder.correction))
    with mixed_precision(model[0].model):
        result = mteb.evaluate(
            model,
            task,
            cache=None,
            overwrite_strategy="always",
            encode_kwargs={"batch_size": 32},
            show_progress_bar=False,
        )
    return 100 * float(result[0].get_score(splits=[split]))


def untrained(recipe: Recipe, corpus: Path, *, corrected: bool) -> Embedder:
    """Open a backbone without training, with or without the correction of a fit."""
    embedder = Embedder.open(recipe.backbone, **recipe.embedder_settings())
    if corrected:
        texts = list(islice(open_corpus(str(corpus)), recipe.calibration_texts))
        embedder.calibrate(texts, recipe.correction_steps(), (recipe.keep_from, recipe.keep_to))
    return embedder


def targets_vs_tokenize(corpus: Path) -> dict[str, Any]:
    """Measure the speed of data-driven targets over that of tokenising alone (texts per second), in turns."""
    embedder, recipe = Embedder.open(Recipe().backbone, **Recipe().embedder_settings()), Recipe()
    texts = list(islice(open_corpus(str(corpus)), 20_000))
    statistics = corpus_statistics(texts, embedder.tokenizer, embedder.vocabulary_size, recipe.train_length)
    build = make_builders(embedder, statistics, texts, recipe.part(TargetSettings), backbone_checksum(embedder))[1]
    batches = [texts[i : i + 1024] for i in range(0, len(texts), 1024)]

    def seconds(work: Any) -> float:
        started = time.perf_counter()
        for batch in batches:
            work(batch)
        return time.perf_counter() - started

    def tokenize(batch: list[str]) -> list[list[int]]:
        encodings = embedder.tokenizer.backend_tokenizer.encode_batch_fast(batch, add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    seconds(tokenize), seconds(build)  # warm-up
    pairs = [(seconds(tokenize), seconds(build)) for _ in range(REPEATS)]
    ratios = sorted(alone / built for alone, built in pairs)
    return {
        "median": ratios[len(ratios) // 2],
        "min": ratios[0],
        "max": ratios[-1],
        "texts": len(texts),
        "seconds": pairs,
    }


if __name__ == "__main__":
    main()
