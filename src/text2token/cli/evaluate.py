"""``text2token evaluate``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from text2token.cli.options import (
    BACKBONE,
    CORRECTION,
    CorpusReader,
    Encoding,
    as_flag,
    corpus_options,
    echo_json,
    encoding_options,
    file_type,
    grouped,
    json_option,
    output_option,
    path_type,
    quiet_libraries,
    recipe_options,
    refuse_settings,
    split_names,
)
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError, requires_extra

if TYPE_CHECKING:
    from text2token.evaluation.evaluated_model import EvaluatedModel

_LEARNED = (*CORRECTION, "calibration_texts")
_SETTINGS = (*BACKBONE, *_LEARNED)


@click.command("evaluate")
@click.argument("model")
@output_option("Folder of the results. Repeat the command to continue a stopped evaluation.")
@grouped(
    "tasks",
    dict,
    click.option(
        "--data-root", type=path_type, help="Local mirror of the data sets of mteb.  [default: they come from the hub]"
    ),
    click.option(
        "--data", "folders", type=path_type, multiple=True, help="Folder with your own task. May be repeated."
    ),
    click.option("--tasks", "names", callback=split_names, help="Names of tasks that mteb knows, separated by commas."),
    click.option("--types", callback=split_names, help="Only tasks of these types, separated by commas: STS,Retrieval"),
)
@click.option("--max-docs", type=click.IntRange(2), help="Cut each task down to so many texts, for a quick look.")
@click.option(
    "--instructions", is_flag=True, help="Use the instructions of the benchmark, for models that have no prompts."
)
@encoding_options
@click.option(
    "--mode",
    default="dense",
    show_default=True,
    help="Vectors of a folder of fit to score: dense, sparse or dense+sparse.",
)
@click.option("--corpus", help="Texts that the correction is learnt from.")
@corpus_options
@click.option(
    "--head",
    metavar="BACKBONE",
    help="Language model whose head the correction 'filter' uses.  [default: found from MODEL]",
)
@click.option(
    "--vectors", type=file_type, help="File that keeps the vectors, for other corrections of the same backbone."
)
@json_option
@recipe_options(*_SETTINGS)
def evaluate_command(
    model: str,
    output: Path,
    tasks: dict[str, Any],
    encoding: Encoding,
    mode: str,
    corpus: str | None,
    reader: CorpusReader,
    head: str | None,
    as_json: bool,
    recipe: Recipe,
    **options: Any,
) -> None:
    """Score MODEL on MTEB(eng, v2) with mteb, or on your own data.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer, a SparseEncoder, 'bm25', 'all-minilm-l6-v2', or a
    language model with the settings below. With --correction, an embedder is scored with another correction than its own.

    A folder for --data holds corpus.jsonl, queries.jsonl and qrels/test.tsv (as in BEIR), or test.jsonl with sentence1, sentence2
    and score or label, or test.jsonl with text and label.

    \b
    Example:
      text2token evaluate model --data my-beir-folder --output results/model
      text2token evaluate model --data-root mirror --types STS --output results/model-sts
      text2token evaluate smollm2-135m --template eol --correction centre --corpus notes.txt --output results/eol
    """
    quiet_libraries()
    warnings.filterwarnings("ignore", module="sklearn")  # for labels that a classifier never predicts
    warnings.filterwarnings("ignore", message=".*superseded")  # the benchmark chooses the version of a task
    for name in ("mteb", "bm25s"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with requires_extra("eval"):
        from text2token.evaluation import evaluate, select_tasks
    selection = select_tasks(**tasks, strict=reader.strict)
    evaluated = _evaluated_model(model, mode, recipe, corpus, reader, head, encoding)
    summary = evaluate(evaluated, selection, output, progress=True, **options)
    if as_json:
        echo_json(summary)
    else:
        _show(summary)


def _show(summary: dict[str, Any]) -> None:
    table = Table(title=summary["model"], title_justify="left", caption=summary["coverage"], caption_justify="left")
    for heading in ("Task", "Type", "Score", "95 % interval"):
        table.add_column(heading, justify="left" if heading in {"Task", "Type"} else "right")
    for row in summary["tasks"]:
        low, high = row["interval"]
        name = row["task"] + (f" ({row['max_docs']} texts)" if row["max_docs"] else "")
        table.add_row(name, row["type"], f"{100 * row['score']:.2f}", f"{100 * low:.1f} to {100 * high:.1f}")
    table.add_section()
    for kind, mean in summary["mean_by_type"].items():
        table.add_row("mean", kind, f"{100 * mean:.2f}", "")
    if summary["tasks"]:
        table.add_row("mean", "over types", f"{100 * summary['mean_over_types']:.2f}", "")
        table.add_row("mean", "over tasks", f"{100 * summary['mean_over_tasks']:.2f}", "", style="bold")
    console = Console()
    console.print(table)
    by_reason: dict[str, list[str]] = {}
    for name, reason in summary["skipped"].items():
        by_reason.setdefault(reason, []).append(name)
    for reason, names in by_reason.items():
        console.print(f"Skipped, {reason}: {', '.join(names)}", highlight=False)


def _evaluated_model(
    model: str,
    mode: str,
    recipe: Recipe,
    corpus: str | None,
    reader: CorpusReader,
    head: str | None,
    encoding: Encoding,
) -> EvaluatedModel:
    from text2token.evaluation import evaluated_model
    from text2token.model.packaged import REFERENCES, fetch
    from text2token.model.saved import is_saved

    if mode not in evaluated_model.MODES:
        raise UserError(f"There is no mode '{mode}': choose one of {', '.join(evaluated_model.MODES)}.")
    saved = is_saved(model)
    given = recipe.model_fields_set & set(_SETTINGS)
    corrects = saved and mode == "dense" and bool(given & set(CORRECTION))
    if saved or model == evaluated_model.BM25:
        refuse_settings(model, given - set(_LEARNED if corrects else ()))
        if not corrects and (corpus or head):
            raise UserError(f"{as_flag('corpus' if corpus else 'head')} is only used together with --correction.")
    if mode != "dense" and not saved:
        raise UserError(f"'{model}' has no {mode} vectors: leave --mode out, or fit the model first.")
    if model == evaluated_model.BM25:
        return evaluated_model.bm25_model()
    how: dict[str, Any] = {"precision": encoding.precision or "auto", "batch_size": encoding.batch_size}
    if saved and not corrects:
        return evaluated_model.saved_model(str(fetch(model)) if model in REFERENCES else model, mode, **how)
    correction = evaluated_model.LearnedCorrection.of_recipe(
        recipe, corpus, text_column=reader.text_column, strict=reader.strict
    )
    if corrects:
        return evaluated_model.recorrected_model(model, correction, head=head, **how)
    if head:
        raise UserError(
            f"--head is for finished models, and '{model}' is a language model with its own head: leave it out."
        )
    return evaluated_model.untrained_model(recipe.model_copy(update={"backbone": model}), correction, **how)
