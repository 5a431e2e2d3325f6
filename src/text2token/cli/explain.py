"""``text2token explain``."""

from __future__ import annotations

import json
from typing import Any

import click
from rich.bar import Bar
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from text2token.cli.options import quiet_libraries

_BAR = 20  # characters of the longest bar


@click.command()
@click.argument("model")
@click.argument("texts", nargs=-1, required=True)
@click.option("--against", metavar="OTHER_MODEL", help="show another model's tokens beside")
@click.option("--tokens", "-k", type=click.IntRange(1), default=10, show_default=True, help="how many")
@click.option(
    "--filtered", is_flag=True, help="meaningful tokens only: no stop words, punctuation or pieces of characters"
)
@click.option("--json", "as_json", is_flag=True, help="machine-readable output")
def explain(
    model: str, texts: tuple[str, ...], against: str | None, tokens: int, filtered: bool, as_json: bool
) -> None:
    """Read the vector of each text as its aligned tokens, heaviest first.

    MODEL is a folder that 'text2token fit' wrote, or an untrained backbone. The weight of a token is its logit above the
    mean of the training corpus; an untrained backbone has no such mean, and its weights are plain logits.

    \b
    Example:
      text2token explain model "The cat sat on the mat."
      text2token explain model "The cat sat on the mat." --against smollm2-135m --json
    """
    quiet_libraries()
    from text2token.corpus import Corpus
    from text2token.embedder import Embedder

    cleaned = list(Corpus.from_texts(texts))
    names = [model, against] if against else [model]
    read = {name: Embedder.open(name).explain(cleaned, k=tokens, filtered=filtered) for name in names}
    if as_json:
        rows = [{"text": text, "tokens": {name: read[name][i] for name in names}} for i, text in enumerate(cleaned)]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for i, text in enumerate(cleaned):
        Console().print(_table(text, {name: read[name][i] for name in names}))


def _table(text: str, columns: dict[str, list[Any]]) -> Table:
    table = Table(title=Text(text), title_justify="left")
    for name in columns:
        table.add_column(Text(name))
        table.add_column("weight", justify="right")
        table.add_column(max_width=_BAR)
    for rank in range(max(map(len, columns.values()))):
        cells: list[RenderableType] = []
        for tokens in columns.values():
            token, weight = tokens[rank] if rank < len(tokens) else ("", 0.0)
            if weight:
                cells += [Text(token.replace("\n", "⏎")), f"{weight:.2f}", Bar(tokens[0].weight, 0, weight)]
            else:
                cells += ["", "", ""]
        table.add_row(*cells)
    return table
