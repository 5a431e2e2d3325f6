"""``text2token targets``."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import (
    CorpusReader,
    corpus_options,
    echo_json,
    json_option,
    output_option,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe

_SHOWN = 12  # tokens of an example
# Settings that change which texts, or which targets, a stage gets. The others belong to the training.
_SETTINGS = (
    "backbone", "attention", "pooling", "template", "prefix", "suffix", "max_length", "stop_words", "max_document_share",
    "weighting", "merge_forms", "prior_templates", "prior_texts", "top_k", "temperature", "mixing", "max_texts", "stage_1",
    "held_out", "train_length", "seed",
)  # fmt: skip


@click.command("targets")
@click.argument("corpus", nargs=-1, required=True)
@output_option("Folder of the target store.")
@click.option(
    "--stage",
    type=click.IntRange(1, 2),
    default=2,
    show_default=True,
    help="Training stage. Stage 1 has data-driven targets; the recipe sets those of stage 2.",
)
@corpus_options
@click.option("--examples", type=click.IntRange(0), default=5, show_default=True, help="Number of examples to print.")
@json_option
@recipe_options(*_SETTINGS)
def targets_command(
    corpus: tuple[str, ...],
    output: Path,
    stage: int,
    reader: CorpusReader,
    examples: int,
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Build the token targets of a corpus, and print some of them.

    An incomplete store is continued, and a complete one is only printed. A store with other texts or settings is refused.
    Settings of the training, such as --learning-rate, do not change targets, so this command does not have them.

    \b
    Example:
      text2token targets notes.txt --output targets --max-texts 500
      text2token targets notes.txt --output targets-1 --stage 1 --weighting bm25
    """
    quiet_libraries()
    from text2token.model.vocabulary import spell
    from text2token.training.pipeline import build_targets

    store, tokenizer = build_targets(reader.open(corpus), output, stage, recipe, progress=True)
    shown = [
        {"text": row["text"], "target": [[*spell(tokenizer, [i]), round(w, 4)] for i, w in ranked(row)[:_SHOWN]]}
        for row in islice((row for table in store.tables() for row in table.to_pylist()), examples)
    ]
    if as_json:
        echo_json({"manifest": store.manifest, "examples": shown})
        return
    title = Text(f"Targets of {store.manifest['texts']} texts in {output}")
    table = Table("Text", "Target", title=title, show_lines=True)
    for example in shown:
        parts = [Text.assemble(token.strip(), " ", (f"{weight:.2f}", "dim")) for token, weight in example["target"]]
        table.add_row(Text(example["text"][:300]), Text("  ").join(parts))
    Console().print(table)
    click.echo(f"Share of target mass beyond the text: {store.manifest['mass_beyond_text']:.1%}")


def ranked(row: dict[str, list[float]]) -> list[tuple[int, float]]:
    """Ids and weights of a row of the store, heaviest first."""
    return sorted(zip(map(int, row["ids"]), row["weights"], strict=True), key=lambda pair: -pair[1])
