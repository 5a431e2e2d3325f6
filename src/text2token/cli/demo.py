"""``text2token demo``."""

from __future__ import annotations

import shutil
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import (
    echo_json,
    json_option,
    output_option,
    overwrite_option,
    quiet_libraries,
    recipe_options,
)
from text2token.settings.recipe import Recipe
from text2token.utils.errors import requires_extra

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder


@click.command("demo")
@output_option("New folder for the embedder.")
@overwrite_option
@json_option
@recipe_options()
def demo_command(output: Path, overwrite: bool, as_json: bool, recipe: Recipe) -> None:
    """Train an embedder on the docstrings of this Python environment, compare it with the untrained backbone, and index them.

    The comparison shows three things: known-item retrieval on held-out docstrings (the summary line is the query, the rest is
    the document), the aligned tokens of five docstrings, and the nearest docstrings to three questions. The held-out docstrings
    are also indexed, in OUTPUT/index. If you stop the command, repeat it to continue.

    \b
    Example:
      text2token demo --recipe recipes/demo.yaml --output demo
    """
    quiet_libraries()
    with requires_extra("search"):
        from text2token.search import Index, read_documents
    from text2token.training.demo import DOCUMENTS, run_demo

    def make_index(folder: Path, embedder: Embedder) -> None:
        shutil.rmtree(folder / "index", ignore_errors=True)  # of a killed demo; to make it takes less than a minute
        model = str(output.resolve())  # where the embedder is when the demo is finished
        with closing(Index.create(folder / "index", model, embedder=embedder, query_model="none")) as index:
            index.add(read_documents(folder / DOCUMENTS), progress=True)

    result = run_demo(output, recipe, make_index, overwrite=overwrite, progress=True)
    if as_json:
        echo_json(result)
        return
    _show(result, Console())
    click.echo(
        f"The embedder is in {output}. Open {output}/report.html, search the held-out docstrings, or explore them:"
    )
    program = (
        "text2token" if shutil.which("text2token") else sys.argv[0]
    )  # `make demo` does not activate its environment
    click.echo(f'  {program} search {output}/index "stack arrays vertically"')
    click.echo(f"  {program} serve {output} --index {output}/index    # then open http://127.0.0.1:8080/ in a browser")


def _show(result: dict[str, Any], console: Console) -> None:
    scores = Table(
        "",
        *next(iter(result["retrieval"].values())),
        title=f"Finding {result['documents']} held-out docstrings by their summary",
    )
    for name, row in result["retrieval"].items():
        scores.add_row(name, *(f"{value:.3f}" for value in row.values()))
    tokens = Table("Text", "Before", "After", title="Aligned tokens", show_lines=True)
    for example in result["tokens"]:
        cells = [Text(" ".join(token.strip() for token, _ in example[state])) for state in ("before", "after")]
        tokens.add_row(Text(example["text"]), *cells)
    answers = Table("Question", "Plain mean pooling", "text2token", title="Nearest docstrings", show_lines=True)
    for question, found in result["answers"].items():
        answers.add_row(*map(Text, (question, "\n".join(found["before"]), "\n".join(found["after"]))))
    for column in answers.columns:
        column.overflow = "fold"  # the end of a function's name matters
    for table in (scores, tokens, answers):
        console.print(table)
