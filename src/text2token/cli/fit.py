"""``text2token fit``."""

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
from text2token.utils.processes import end, is_main


@click.command("fit")
@click.argument("corpus", nargs=-1, required=True)
@output_option("New folder for the embedder.")
@corpus_options
@overwrite_option
@json_option
@recipe_options()
def fit_command(
    corpus: tuple[str, ...], output: Path, reader: CorpusReader, overwrite: bool, as_json: bool, recipe: Recipe
) -> None:
    """Train an embedder from a language model and unlabelled texts.

    CORPUS is one or more .txt files (one text per line), .jsonl, .csv or .parquet files, folders or globs of such files, '-' for
    standard input, or a dataset of the hub. If you stop the training, the same command continues it. To train on several GPUs
    or machines, start the command with torchrun or accelerate launch.

    \b
    Example:
      text2token fit notes.txt --output model
      text2token fit 'docs/*.jsonl' --text-column body --max-minutes 10 --output model
      text2token fit notes.txt --teacher all-minilm-l6-v2 --output model
      torchrun --nproc-per-node 4 -m text2token fit notes.txt --output model
    """
    quiet_libraries()
    from text2token.training.pipeline import fit

    fit(reader.open(corpus), output, recipe, overwrite=overwrite, progress=True)
    end()
    if not is_main():
        return
    if as_json:
        parts = {"dense": "dense", "sparse": "sparse", "report": "report.html", "record": "run.json"}
        echo_json({name: str(output / part) for name, part in parts.items()})
    else:
        click.echo(
            f"{output}/dense and {output}/sparse load with sentence-transformers. {output}/report.html shows what was learnt."
        )
