"""``text2token baseline``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import (
    CorpusReader,
    corpus_options,
    echo_json,
    json_option,
    output_option,
    overwrite_option,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe


@click.command("baseline")
@click.argument("method", metavar="METHOD")
@click.argument("corpus")
@output_option("New folder for the embedder.")
@overwrite_option
@corpus_options
@json_option
@recipe_options()
def baseline_command(
    method: str, corpus: str, output: Path, overwrite: bool, reader: CorpusReader, as_json: bool, recipe: Recipe
) -> None:
    """Train a baseline on the same texts and with the same effort as 'text2token fit'.

    METHOD is simcse, llm2vec or tsdae. The settings are those of fit; a method ignores those that it does not have, such as
    token targets. If you stop the training, the same command continues it.

    \b
    Example:
      text2token baseline simcse notes.txt --recipe recipes/simcse.yaml --output simcse
      text2token evaluate simcse/dense --data my-beir-folder --output results/simcse
    """
    quiet_libraries()
    from text2token.training.baselines.run import fit_baseline

    fit_baseline(method, reader.open(corpus), output, recipe, overwrite=overwrite, progress=True)
    if as_json:
        echo_json({"dense": str(output / "dense"), "record": str(output / "run.json")})
    else:
        click.echo(f"{output}/dense is a SentenceTransformer folder.", err=True)
