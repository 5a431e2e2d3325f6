"""``text2token compare``."""

from __future__ import annotations

from pathlib import Path

import click

from text2token.cli.options import echo_json, json_option, output_option, path_type, split_names
from text2token.utils.errors import requires_extra
from text2token.utils.files import check_folder, output_lock


@click.command("compare")
@click.argument("results", nargs=-1, required=True, type=path_type)
@output_option("Folder for the tables and the figure.")
@click.option("--published", type=path_type, help="JSON file with published scores: {model: {task: points}}.")
@click.option("--models", callback=split_names, help="Published models to show, separated by commas.  [default: all]")
@json_option
def compare_command(
    results: tuple[Path, ...], output: Path, published: Path | None, models: list[str], as_json: bool
) -> None:
    """Compare RESULTS folders of 'text2token evaluate' side by side.

    A difference is the score of the first model minus that of another one. The command writes compare.md, compare.html,
    compare.svg, compare.png and compare.json.

    \b
    Example:
      text2token compare results/model results/eol results/bm25 --output comparison
    """
    check_folder(output)
    with requires_extra("eval"):
        from text2token.evaluation.comparison import compare
        from text2token.evaluation.comparison_page import write_comparison
        from text2token.evaluation.results import read_published
    scores = read_published(published, models) if published else {}
    with output_lock(output):
        comparison = compare(results, scores)
        write_comparison(comparison, output)
    if as_json:
        echo_json(comparison.to_json())
    else:
        click.echo((output / "compare.md").read_text(encoding="utf-8"))
