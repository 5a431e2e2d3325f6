"""``text2token align``."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import (
    BACKBONE,
    CorpusReader,
    Encoding,
    corpus_options,
    echo_json,
    encoding_options,
    grouped,
    json_option,
    path_type,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe
from text2token.utils.files import check_folder, output_lock
from text2token.utils.places import check_outside

_SETTINGS = (*BACKBONE, "stop_words", "seed")


@click.command("align")
@click.argument("models", metavar="MODEL...", nargs=-1, required=True)
@click.option("--corpus", required=True, help="Texts to measure on: a file, folder, glob, '-' or hub name.")
@corpus_options
@click.option("--texts", type=click.IntRange(1), default=1_000, show_default=True, help="Number of texts to draw.")
@click.option(
    "--head", metavar="BACKBONE", help="Language model whose head decodes the embeddings.  [default: found from MODEL]"
)
@grouped(
    "counting",
    dict,
    click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="K of Hit@K. The paper uses 10."),
    click.option(
        "--forms",
        type=click.Choice(["ids", "merged"]),
        default="ids",
        show_default=True,
        help="With 'merged', ' Cat', 'cat' and 'Cat' are one token.",
    ),
    click.option("--special", is_flag=True, help="Count special tokens such as [CLS] as tokens of the text."),
    click.option("--paper", is_flag=True, help="Count as the released code of the paper: at most K aligned tokens."),
    click.option(
        "--centred", is_flag=True, help="Subtract the mean logits over the texts first, as sparse vectors do."
    ),
)
@encoding_options
@click.option("--output", "-o", type=path_type, help="Folder for align.json, align.svg and align.png.")
@json_option
@recipe_options(*_SETTINGS)
def align_command(
    models: tuple[str, ...],
    corpus: str,
    reader: CorpusReader,
    texts: int,
    head: str | None,
    counting: dict[str, Any],
    encoding: Encoding,
    output: Path | None,
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Measure how well the embeddings of texts decode to the tokens of these texts.

    MODEL is a folder that 'text2token fit' wrote, a SentenceTransformer, or a language model with the settings below.

    Hit@K is the share of texts with one of their own tokens among the first K aligned tokens. The local rate of a text with n
    distinct tokens is the share of them among its first n aligned tokens. The global rate is the share of all tokens in the
    corpus that at least one of their texts aligns with (arXiv 2406.17378).

    \b
    Example:
      text2token align model smollm2-135m --corpus notes.txt --output alignment
      text2token align my-embedder --head meta-llama/Llama-3.2-1B --corpus notes.txt --forms merged --json
    """
    if output:
        check_folder(output)
    quiet_libraries()
    from text2token.analysis.alignment import AlignmentSettings, align, write_alignment
    from text2token.data.corpus import sample
    from text2token.model.embedder import Embedder

    opened = reader.open(corpus)
    if output:
        check_outside(output, *opened.opened)
    with output_lock(output) if output else nullcontext():
        drawn = sample(opened, texts, recipe.seed)
        settings = AlignmentSettings(stop_words=recipe.stop_words, **counting)
        alignments = {}
        for model in models:
            embedder = Embedder.open(model, head=head or "original", corrected=False, **recipe.embedder_settings())
            found = align(encoding.apply(embedder), drawn, settings, progress=True)
            alignments[model] = {"head": embedder.decoding_head.source, "precision": embedder.precision, **found}
        if output:
            source = {"name": corpus, "text_column": reader.text_column, "fingerprint": opened.fingerprint()}
            asked = {
                "head": head,
                "recipe": recipe.model_dump(include={*_SETTINGS}),
                "corpus": source | {"texts": len(drawn)},
            }
            write_alignment(alignments, settings._asdict() | asked, output)
    if as_json:
        echo_json(alignments)
        return
    for table in _tables(alignments, settings.k):
        Console().print(table)


def _tables(alignments: dict[str, dict[str, Any]], k: int) -> list[Table]:
    from text2token.analysis.alignment import RATES
    from text2token.analysis.metrics import CATEGORIES

    rates = {key: label.format(k=k) for key, label in RATES.items()}
    parts = (
        ("Alignment rates", "rates", rates),
        (
            f"Categories of the first {k} aligned tokens, share of their mass",
            "categories",
            {key: key for key in CATEGORIES},
        ),
    )
    tables = []
    for title, part, columns in parts:
        table = Table("model", title=title, title_justify="left")
        for heading in columns.values():
            table.add_column(heading, justify="right")
        for name, result in alignments.items():
            table.add_row(Text(name), *(f"{100 * result[part][key]:.1f} %" for key in columns))
        tables.append(table)
    return tables
