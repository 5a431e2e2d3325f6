"""``text2token spectrum``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

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
    path_type,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe


@click.command("spectrum")
@click.argument("base")
@click.argument("tuned")
@click.option("--corpus", required=True, help="Texts: a file, folder, glob, '-' or hub name.")
@corpus_options
@output_option("New folder. Repeat the command to continue a stopped run.")
@overwrite_option
@click.option(
    "--centred", is_flag=True, help="Subtract the mean before the components are computed. The paper's code does not."
)
@click.option(
    "--shift", multiple=True, default=("sweep", "zero"), show_default=True, metavar="sweep|v1|zero|NUMBER",
    help="Values of λ in h + λ·u₁: multiples of v₁ (sweep), v₁ itself, a shift to a mean of zero, or a number. May be repeated.",
)  # fmt: skip
@click.option("--sts", type=path_type, help="A .jsonl file with sentence1, sentence2 and score; adds STS for each λ.")
@click.option(
    "--max-texts", type=click.IntRange(2), help="Number of texts to use, from the start of the corpus.  [default: all]"
)
@click.option("--aligned", type=click.IntRange(2), default=500, show_default=True, help="Number of texts to decode.")
@click.option("--head", metavar="BACKBONE", help="Language model whose head decodes.  [default: BASE's own head]")
@encoding_options
@json_option
@recipe_options(*BACKBONE)
def spectrum_command(
    base: str,
    tuned: str,
    corpus: str,
    reader: CorpusReader,
    sts: Path | None,
    output: Path,
    head: str | None,
    encoding: Encoding,
    as_json: bool,
    recipe: Recipe,
    **options: Any,
) -> None:
    """Show what training changed in the principal components of BASE, and what a shift along the first one does.

    BASE is a language model with the settings below, or an embedder. TUNED is a model that was made from BASE. The head of BASE
    decodes the embeddings of both. The output folder gets spectrum.json, and a .parquet table, an .svg and a .png for each of
    variation, contribution and shift.

    \b
    Example:
      text2token spectrum smollm2-135m model --corpus notes.txt --output spectrum
      text2token spectrum smollm2-135m model --corpus notes.txt --shift v1 --shift -48 --sts pairs.jsonl --output spectrum
    """
    quiet_libraries()
    from text2token.analysis.spectrum_run import run_spectrum
    from text2token.data.sts import read_sts
    from text2token.model.embedder import Embedder

    opened = reader.open(corpus)
    pairs = read_sts(sts) if sts else None
    backbone = recipe.embedder_settings()
    models = (
        encoding.apply(Embedder.open(base, head=head or "original", corrected=False, **backbone)),
        encoding.apply(Embedder.open(tuned, corrected=False, **backbone)),
    )
    settings = {"base": base, "tuned": tuned, "corpus": opened.name, "head": head, "recipe": recipe.model_dump()}
    settings["precision"] = models[0].precision
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
        f"{result['texts']:,} texts. v₁ is {first['variation']:.2f}. The largest other variation is {largest['variation']:.2f} "
        f"(component {largest['component']}). u₁ holds {first['energy']:.0%} of the energy of the base."
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
