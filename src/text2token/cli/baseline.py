"""``text2token baseline``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import overwrite_option, quiet_libraries, recipe_options, text_column_option
from text2token.settings.recipe import Recipe


@click.command("baseline")
@click.argument("method", metavar="METHOD")
@click.argument("corpus")
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="new folder")
@overwrite_option
@text_column_option
@recipe_options()
def baseline_command(method: str, corpus: str, output: Path, overwrite: bool, text_column: str, recipe: Recipe) -> None:
    """Train METHOD, simcse, llm2vec or tsdae, on the texts and the footing that 'text2token fit' has.

    The settings are those of fit; what a method does not have, targets for one, it ignores. Stop it and repeat the
    command: it continues.

    \b
    Example:
      text2token baseline simcse notes.txt --recipe recipes/simcse.yaml --output simcse
      text2token evaluate simcse/dense --data my-beir-folder --output results/simcse
    """
    quiet_libraries()
    from text2token.training.baselines.run import fit_baseline

    fit_baseline(method, corpus, output, recipe, text_column=text_column, overwrite=overwrite, progress=True)
    click.echo(f"{output}/dense is a SentenceTransformer folder", err=True)
