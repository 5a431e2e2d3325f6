"""``text2token align``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import (
    BACKBONE,
    bf16_option,
    echo_json,
    json_option,
    quiet_libraries,
    recipe_options,
    text_column_option,
)
from text2token.settings.recipe import Recipe

_SETTING = (*BACKBONE, "stop_words", "seed")


@click.command("align")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--corpus", required=True, help="texts to look at: a file, folder, pattern or hub name")
@text_column_option
@click.option("--texts", type=click.IntRange(1), default=1_000, show_default=True, help="drawn from the corpus")
@click.option("--head", metavar="BACKBONE", help="language model whose head decodes  [default: found by itself]")
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="of Hit@K; 10 is the paper's")
@click.option(
    "--forms",
    type=click.Choice(["ids", "merged"]),
    default="ids",
    show_default=True,
    help="merged: ' Cat', 'cat' and 'Cat' are one token",
)
@click.option("--special", is_flag=True, help="count special tokens such as [CLS] as the text's own")
@click.option("--paper", is_flag=True, help="as the released code counts: rates capped at K aligned tokens")
@click.option("--centred", is_flag=True, help="read logits less their mean over the texts, as sparse vectors do")
@bf16_option
@click.option("--output", "-o", type=click.Path(path_type=Path), help="folder for align.json, align.svg and align.png")
@json_option
@recipe_options(*_SETTING)
def align_command(
    models: tuple[str, ...],
    corpus: str,
    text_column: str,
    texts: int,
    head: str | None,
    bf16: bool,
    output: Path | None,
    as_json: bool,
    recipe: Recipe,
    **reading: Any,
) -> None:
    """Do the embeddings of texts decode to the texts' own tokens?

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer, or a plain backbone under the settings below.
    Hit@K: share of the texts with one of their own tokens among the first K aligned ones. Local rate: share of a text's
    distinct tokens among as many aligned ones. Global rate: share of the corpus vocabulary that is reached by some text of
    its own (arXiv 2406.17378).

    \b
    Example:
      text2token align model smollm2-135m --corpus notes.txt --output alignment
      text2token align my-embedder --head meta-llama/Llama-3.2-1B --corpus notes.txt --forms merged --json
    """
    quiet_libraries()
    from text2token.analysis.alignment import AlignmentSettings, align, write_alignment
    from text2token.data.corpus import open_corpus, sample
    from text2token.model.embedder import Embedder

    opened = open_corpus(corpus, text_column=text_column)
    drawn = sample(opened, texts, recipe.seed)
    settings = AlignmentSettings(stop_words=recipe.stop_words, **reading)
    studied = {}
    for model in models:
        embedder = Embedder.open(model, head=head or "original", corrected=False, **recipe.embedder_settings())
        if bf16:
            embedder.use_bf16()
        found = {"head": embedder.decoding_head.source}
        studied[model] = found | align(embedder, drawn, settings, progress=True)
    if output:
        source = {"name": corpus, "text_column": text_column, "fingerprint": opened.fingerprint(), "texts": len(drawn)}
        asked = {"head": head, "recipe": recipe.model_dump(include={*_SETTING}), "corpus": source}
        write_alignment(studied, settings._asdict() | asked, output)
    if as_json:
        echo_json(studied)
    else:
        for table in _tables(studied, settings.k):
            Console().print(table)


def _tables(studied: dict[str, dict[str, Any]], k: int) -> list[Table]:
    from text2token.analysis.alignment import RATES
    from text2token.analysis.metrics import CATEGORIES

    headings = {
        "Alignment rates": ("rates", {key: label.format(k=k) for key, label in RATES.items()}),
        f"Kinds of the first {k} aligned tokens, share of their mass": ("categories", {key: key for key in CATEGORIES}),
    }
    tables = []
    for title, (part, columns) in headings.items():
        table = Table(title=title, title_justify="left")
        table.add_column("model")
        for heading in columns.values():
            table.add_column(heading, justify="right")
        for name, result in studied.items():
            table.add_row(Text(name), *(f"{100 * result[part][key]:.1f} %" for key in columns))
        tables.append(table)
    return tables
