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
    bf16_option,
    echo_json,
    json_option,
    quiet_libraries,
    recipe_options,
    refuse_settings,
    text_column_option,
)
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError, extra

if TYPE_CHECKING:
    from text2token.evaluation.evaluated_model import EvaluatedModel

_LEARNT = (*CORRECTION, "calibration_texts")
_SETTING = (*BACKBONE, *_LEARNT)
_folder = click.Path(path_type=Path)
_file = click.Path(path_type=Path, dir_okay=False)


@click.command("evaluate")
@click.argument("model")
@click.option("--output", "-o", type=_folder, required=True, help="folder of the results; repeat to resume")
@click.option("--data-root", type=_folder, help="local mirror of mteb's data sets; without it they come from the hub")
@click.option("--data", "folders", type=_folder, multiple=True, help="a task of your own, a folder; may be repeated")
@click.option("--tasks", help="names joined by commas, of the benchmark or any that mteb knows")
@click.option("--types", help="task types joined by commas, as STS,Retrieval")
@click.option("--max-docs", type=click.IntRange(2), help="cut tasks down to so many texts, for a quick look")
@click.option("--instructions", is_flag=True, help="the benchmark's own, for models without prompts; off by default")
@bf16_option
@click.option("--mode", default="dense", show_default=True, help="of a fitted folder: dense, sparse or dense+sparse")
@click.option("--corpus", help="texts that the correction is learnt from")
@text_column_option
@click.option(
    "--head", metavar="BACKBONE", help="whose head a finished MODEL is filtered by  [default: found by itself]"
)
@click.option("--vectors", type=_file, help="keep vectors in this file, for other corrections of the same backbone")
@json_option
@recipe_options(*_SETTING)
def evaluate_command(
    model: str,
    output: Path,
    data_root: Path | None,
    folders: tuple[Path, ...],
    tasks: str | None,
    types: str | None,
    mode: str,
    corpus: str | None,
    text_column: str,
    head: str | None,
    bf16: bool,
    as_json: bool,
    recipe: Recipe,
    **options: Any,
) -> None:
    """Score MODEL on MTEB(eng, v2), through mteb, or on data of your own.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer or SparseEncoder folder, 'bm25', 'all-minilm-l6-v2', or
    an untrained backbone under the settings below; --correction gives a finished model another one. A folder is a task of your
    own when it holds corpus.jsonl, queries.jsonl and qrels/test.tsv (BEIR), or test.jsonl with sentence1, sentence2 and score or
    label, or with text and label.

    \b
    Example:
      text2token evaluate model --data my-beir-folder --output results/model
      text2token evaluate model --data-root mirror --types STS --output results/model-sts
      text2token evaluate smollm2-135m --template eol --correction centre --corpus notes.txt --output results/eol
    """
    quiet_libraries()
    warnings.filterwarnings("ignore", module="sklearn")  # a label that a classifier never predicts is no news
    warnings.filterwarnings("ignore", message=".*superseded")  # the benchmark decides which version runs
    for name in ("mteb", "bm25s"):
        logging.getLogger(name).setLevel(logging.ERROR)
    with extra("eval"):
        from text2token.evaluation import evaluate, select_tasks
    selection = select_tasks(data_root=data_root, folders=folders, names=_names(tasks), types=_names(types))
    evaluated = _evaluated_model(model, mode, recipe, corpus, text_column, head, bf16)
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


def _names(joined: str | None) -> list[str]:
    return [name for part in (joined or "").split(",") if (name := part.strip())]


def _evaluated_model(
    model: str, mode: str, recipe: Recipe, corpus: str | None, text_column: str, head: str | None, bf16: bool
) -> EvaluatedModel:
    from text2token.evaluation import evaluated_model
    from text2token.model.packaged import REFERENCES, fetch
    from text2token.model.saved import is_saved

    if mode not in evaluated_model.MODES:
        raise UserError(f"There is no mode '{mode}': choose among {', '.join(evaluated_model.MODES)}.")
    ready = is_saved(model)
    given = recipe.model_fields_set & set(_SETTING)
    corrects = ready and mode == "dense" and bool(given & set(CORRECTION))
    if ready or model == evaluated_model.BM25:
        refuse_settings(model, given - set(_LEARNT if corrects else ()))
        if not corrects and (corpus or head):
            raise UserError(f"--{'corpus' if corpus else 'head'} is of a correction: name one with --correction, too.")
    if mode != "dense" and not ready:
        raise UserError(f"'{model}' has no {mode} vectors to judge: leave --mode out, or fit it first.")
    if model == evaluated_model.BM25:
        return evaluated_model.bm25_model()
    if ready and not corrects:
        return evaluated_model.saved_model(str(fetch(model)) if model in REFERENCES else model, mode, bf16=bf16)
    correction = evaluated_model.LearnedCorrection.of_recipe(recipe, corpus, text_column=text_column)
    if corrects:
        return evaluated_model.recorrected_model(model, correction, head=head, bf16=bf16)
    return evaluated_model.untrained_model(recipe.model_copy(update={"backbone": model}), correction, bf16=bf16)
