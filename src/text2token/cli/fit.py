"""``text2token fit``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import overwrite_option, quiet_libraries, recipe_options, text_column_option
from text2token.settings.recipe import Recipe


@click.command("fit")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="new folder for the embedder")
@text_column_option
@overwrite_option
@recipe_options()
def fit_command(corpus: tuple[str, ...], output: Path, text_column: str, overwrite: bool, recipe: Recipe) -> None:
    """Turn a language model and unlabelled texts into an embedder.

    CORPUS is one or more .txt (one text per line), .jsonl, .csv or .parquet files, folders or globs of them, '-' for standard
    input, or a datasets-hub name. Interrupted, the same command continues.

    \b
    Example:
      text2token fit notes.txt --output model
      text2token fit 'docs/*.jsonl' --text-column body --max-minutes 10 --output model
    """
    quiet_libraries()
    from text2token.data.corpus import open_corpus
    from text2token.training.pipeline import fit

    fit(open_corpus(corpus, text_column=text_column), output, recipe, overwrite=overwrite, progress=True)
    click.echo(
        f"{output}/dense and {output}/sparse load with sentence-transformers; {output}/report.html shows what was learnt."
    )
