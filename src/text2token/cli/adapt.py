"""``text2token adapt``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import (
    BACKBONE,
    echo_json,
    json_option,
    overwrite_option,
    quiet_libraries,
    recipe_options,
    text_column_option,
)
from text2token.settings.recipe import Recipe
from text2token.settings.record import RECORD, RunRecord

_AUTO = "auto"
_SETTINGS = (*BACKBONE, "keep_from", "keep_to", "calibration_texts", "sparse_k", "seed")


@click.command("adapt")
@click.argument("backbone")
@click.option("--corpus", required=True, help="texts to learn from; a file, folder, glob, '-' or hub name")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="new folder for the embedder")
@click.option(
    "--correction",
    help="auto, or steps joined by +: centre, shift[-λ], first-component, remove-N, whiten[-S], filter"
    "  [default: the recipe file's, else auto]",
)  # fmt: skip
@text_column_option
@overwrite_option
@json_option
@recipe_options(*_SETTINGS)
def adapt_command(
    backbone: str,
    corpus: str,
    output: Path,
    correction: str | None,
    text_column: str,
    overwrite: bool,
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Correct the vectors of a language model with what texts teach about them. No training, no labels.

    Steps act in their order: centre takes away the mean; shift moves along the first component, by λ or to a mean of zero;
    first-component and remove-N project out the strongest 1 or N; whiten evens all directions out, S of the way to no whitening;
    filter keeps the middle of the decoding head's spectrum. 'auto' climbs a ladder of them, and takes the gentlest whose cosines
    agree about as well as the best with pairs made from the corpus, which share a known part of their words; it chooses the part
    of the spectrum, too.

    \b
    Example:
      text2token adapt smollm2-135m --corpus notes.txt --template eol --output model
      text2token adapt smollm2-135m --corpus notes.txt --correction whiten-0.3+filter --keep-from 0.1 --output model
    """
    quiet_libraries()
    from text2token.data.corpus import open_corpus
    from text2token.training.adaptation import adapt
    from text2token.utils.page import number

    given = recipe.model_dump(exclude_unset=True)
    correction = correction or given.get("correction", _AUTO)
    auto = correction == _AUTO
    recipe = Recipe.load(None, **given | {"backbone": backbone} | ({} if auto else {"correction": correction}))
    opened = open_corpus(corpus, text_column=text_column)
    adapt(opened, output, recipe, auto=auto, overwrite=overwrite, progress=True)
    record = RunRecord.read(output / RECORD)
    if as_json:
        echo_json(record.model_dump(mode="json", include={"recipe", "chosen", "before", "after", "judged"}))
        return
    settings = record.recipe
    click.echo(f"Correction: {settings.correction}, spectrum from {settings.keep_from:g} to {settings.keep_to:g}.")
    before, after = (number(side.get("overlap")) for side in (record.before, record.after))
    click.echo(f"Agreement of cosines with known overlaps (Spearman's rho): {before} before, {after} after.")
    click.echo(f"{output}/dense and {output}/sparse load with sentence-transformers.")
