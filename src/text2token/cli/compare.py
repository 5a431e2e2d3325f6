"""``text2token compare``."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import TypeAdapter, ValidationError

from text2token.cli.options import echo_json, json_option
from text2token.utils.errors import UserError, extra


@click.command("compare")
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", "-o", type=click.Path(path_type=Path), required=True, help="folder for tables and picture")
@click.option("--published", type=click.Path(path_type=Path), help="JSON of published scores: model, task, points")
@click.option("--models", help="which of the published models, joined by commas  [default: all]")
@json_option
def compare_command(
    results: tuple[Path, ...], output: Path, published: Path | None, models: str | None, as_json: bool
) -> None:
    """Put RESULTS of 'text2token evaluate' side by side; differences are the first minus each other.

    Writes compare.md, compare.html, compare.svg, compare.png and compare.json.

    \b
    Example:
      text2token compare results/model results/eol results/bm25 --output comparison
    """
    with extra("eval"):
        from text2token.evaluation.comparison import compare
        from text2token.evaluation.comparison_page import write_comparison
    comparison = compare(results, _published(published, models))
    write_comparison(comparison, output)
    if as_json:
        echo_json(comparison.to_json())
    else:
        click.echo((output / "compare.md").read_text(encoding="utf-8"))


def _published(file: Path | None, models: str | None) -> dict[str, dict[str, float]]:
    if file is None:
        return {}
    try:
        found = TypeAdapter(dict[str, dict[str, float]]).validate_json(file.read_bytes())
    except ValidationError as error:
        raise UserError(f"'{file}' is no JSON of published scores: expected {{model: {{task: points}}}}.") from error
    shown = {name.replace("__", "/"): scores for name, scores in found.items()}  # of file names that stand for hub ids
    if not models:
        return shown
    names = {alias: name for name in shown for alias in (name.rpartition("/")[2], name.replace("/", "__"), name)}
    wanted = [name.strip() for name in models.split(",")]
    for name in wanted:
        if name not in names:
            raise UserError(f"'{file}' has no model '{name}': it has {', '.join(sorted(shown)[:8])} …")
    return {names[name]: shown[names[name]] for name in wanted}
