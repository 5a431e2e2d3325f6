"""``text2token targets``."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import echo_json, json_option, quiet_libraries, recipe_options, text_column_option
from text2token.settings.recipe import Recipe

_SHOWN = 12  # tokens of an example


@click.command("targets")
@click.argument("corpus", nargs=-1, required=True)
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="folder of the target store")
@click.option(
    "--stage", type=click.IntRange(1, 2), default=2, show_default=True, help="1: data-driven; 2: the recipe's second"
)
@text_column_option
@click.option("--examples", type=click.IntRange(0), default=5, show_default=True, help="how many to show")
@json_option
@recipe_options()
def targets_command(
    corpus: tuple[str, ...], output: Path, stage: int, text_column: str, examples: int, as_json: bool, recipe: Recipe
) -> None:
    """Build the token targets of a corpus, and show some to judge by eye.

    A half-built store is continued, a finished one shown again, one of other texts or settings refused.

    \b
    Example:
      text2token targets notes.txt --output targets --max-texts 500
      text2token targets notes.txt --output targets-1 --stage 1 --weighting bm25
    """
    quiet_libraries()
    from text2token.data.corpus import open_corpus
    from text2token.training.pipeline import build_targets

    store, tokenizer = build_targets(open_corpus(corpus, text_column=text_column), output, stage, recipe, progress=True)
    shown = [
        {"text": row["text"], "target": [[tokenizer.decode([i]), round(w, 4)] for i, w in ranked(row)[:_SHOWN]]}
        for row in store.dataset().take(examples)
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
    """Ids and weights of a store's row, heaviest first."""
    return sorted(zip(map(int, row["ids"]), row["weights"], strict=True), key=lambda pair: -pair[1])
