"""``text2token adapt``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from text2token.cli.options import (
    BACKBONE,
    CorpusReader,
    Encoding,
    corpus_options,
    echo_json,
    encoding_options,
    json_option,
    output_option,
    overwrite_option,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe
from text2token.settings.record import RECORD, RunRecord

_AUTO = "auto"
_SETTINGS = (*BACKBONE, "keep_from", "keep_to", "calibration_texts", "sparse_k", "seed")


@click.command("adapt")
@click.argument("backbone")
@click.option("--corpus", required=True, help="Texts to learn from: a file, folder, glob, '-' or hub name.")
@output_option("New folder for the embedder.")
@click.option(
    "--correction",
    help="'auto', or steps joined by +: centre, shift[-λ], first-component, remove-N, whiten[-S], filter."
    "  [default: that of the recipe file, else auto]",
)  # fmt: skip
@corpus_options
@encoding_options
@overwrite_option
@json_option
@recipe_options(*_SETTINGS)
def adapt_command(
    backbone: str,
    corpus: str,
    output: Path,
    correction: str | None,
    reader: CorpusReader,
    encoding: Encoding,
    overwrite: bool,
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Correct the vectors of a language model with an affine map that is learnt from texts, without training or labels.

    The steps of --correction act in their order. 'centre' subtracts the mean. 'shift' moves the vectors along their first
    principal component, by λ or to a mean of zero. 'first-component' and 'remove-N' project out the strongest component, or the N
    strongest. 'whiten' makes all directions equally strong; with S it goes only a part of the way (S = 1: no whitening). 'filter'
    keeps the middle of the spectrum of the decoding head.

    'auto' compares several corrections on pairs of texts that are made from the corpus and share a known part of their words. It
    takes the gentlest correction whose cosines agree with these parts about as well as those of the best one.

    \b
    Example:
      text2token adapt smollm2-135m --corpus notes.txt --template eol --output model
      text2token adapt smollm2-135m --corpus notes.txt --correction whiten-0.3+filter --keep-from 0.1 --output model
    """
    quiet_libraries()
    from text2token.training.adaptation import adapt
    from text2token.utils.page import number

    given = recipe.model_dump(exclude_unset=True)
    correction = correction or given.get("correction", _AUTO)
    auto = correction == _AUTO
    recipe = Recipe.load(None, **given | {"backbone": backbone} | ({} if auto else {"correction": correction}))
    opened = reader.open(corpus)
    how: dict[str, Any] = {"batch_size": encoding.batch_size, "precision": encoding.precision or "auto"}
    adapt(opened, output, recipe, auto=auto, overwrite=overwrite, progress=True, **how)
    record = RunRecord.read(output / RECORD)
    if as_json:
        echo_json(record.model_dump(mode="json", include={"recipe", "chosen", "before", "after", "judged"}))
        return
    settings = record.recipe
    click.echo(f"Correction: {settings.correction}, spectrum from {settings.keep_from:g} to {settings.keep_to:g}.")
    before, after = (number(side.get("overlap")) for side in (record.before, record.after))
    click.echo(f"Agreement of cosines with known overlaps (Spearman's rho): {before} before, {after} after.")
    click.echo(f"{output}/dense and {output}/sparse load with sentence-transformers.")
