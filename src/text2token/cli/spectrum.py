"""``text2token spectrum``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

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


@click.command("spectrum")
@click.argument("base")
@click.argument("tuned")
@click.option("--corpus", required=True, help="texts; a file, folder, glob, '-' or hub name")
@text_column_option
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="new folder; repeat to resume")
@overwrite_option
@click.option("--centred", is_flag=True, help="components around the mean; the paper's code does not centre")
@click.option(
    "--shift", multiple=True, default=("sweep", "zero"), show_default=True, metavar="sweep|v1|zero|NUMBER",
    help="λ of h + λ·u₁: multiples of v₁, v₁ itself, the one that takes the mean to zero, or a number; may be repeated",
)  # fmt: skip
@click.option("--sts", type=click.Path(path_type=Path), help=".jsonl of sentence1, sentence2 and score, judged along λ")
@click.option("--max-texts", type=click.IntRange(2), help="the first of the corpus; all by default")
@click.option("--aligned", type=click.IntRange(2), default=500, show_default=True, help="first texts that are decoded")
@click.option("--head", help="language model whose head decodes; BASE's own by default")
@json_option
@recipe_options(*BACKBONE)
def spectrum_command(
    base: str,
    tuned: str,
    corpus: str,
    text_column: str,
    sts: Path | None,
    output: Path,
    head: str | None,
    as_json: bool,
    recipe: Recipe,
    **options: Any,
) -> None:
    """What training changed, in the principal components of BASE's embeddings, and what shifting the first one does.

    BASE is a language model under the settings below, or an embedder; TUNED is what was made from it, whose embeddings the head
    of BASE reads, too. The folder gets
    spectrum.json, and for variation, contribution and shift a .parquet table, an .svg and a .png.

    \b
    Example:
      text2token spectrum smollm2-135m model --corpus notes.txt --output spectrum
      text2token spectrum smollm2-135m model --corpus notes.txt --shift v1 --shift -48 --sts pairs.jsonl --output spectrum
    """
    quiet_libraries()
    from text2token.analysis.spectrum_run import run_spectrum
    from text2token.data.corpus import open_corpus
    from text2token.data.sts import read_sts
    from text2token.model.embedder import Embedder

    opened = open_corpus(corpus, text_column=text_column)
    pairs = read_sts(sts) if sts else None
    settings = recipe.embedder_settings()
    models = (
        Embedder.open(base, head=head or "original", corrected=False, **settings),
        Embedder.open(tuned, corrected=False, **settings),
    )
    settings = {"base": base, "tuned": tuned, "corpus": opened.name, "head": head, "recipe": recipe.model_dump()}
    result = run_spectrum(models, opened, output, settings, pairs=pairs, progress=True, **options)
    if as_json:
        echo_json(result)
        return
    _show(result)
    click.echo(f"Data and figures are in {output}.")


def _show(result: dict[str, Any]) -> None:
    first, others = result["components"][0], result["components"][1:]
    largest = max(others, key=lambda row: abs(row["variation"]), default=first)
    click.echo(
        f"{result['texts']:,} texts. v₁ is {first['variation']:.2f}, the largest of the others {largest['variation']:.2f} "
        f"(component {largest['component']}); u₁ holds {first['energy']:.0%} of the base's energy."
    )
    table = Table(title="h + λ·u₁", title_justify="left")
    names = {"hit": "Hit@10", "local": "local", "global": "global", "sts": "STS × 100"}
    for heading in ("λ", *(title for name, title in names.items() if name in result["tuned"])):
        table.add_column(heading, justify="right")
    table.add_column("tokens of the first text")
    for row in [*result["shift_rows"], {"shift": "tuned", **result["tuned"]}]:
        label = row["shift"] if isinstance(row["shift"], str) else f"{row['shift']:.2f}"
        numbers = [f"{100 * row[name]:.1f}" if name == "sts" else f"{row[name]:.1%}" for name in names if name in row]
        table.add_row(label, *numbers, " ".join(token.strip() for token in row["tokens"][0][:6]))
    Console().print(table, markup=False)
