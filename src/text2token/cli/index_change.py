"""The part of ``text2token index`` that changes an existing index: documents added or deleted, or a new address."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from text2token.cli.options import Encoding, grouped, place_type
from text2token.data.lines import read_lines
from text2token.data.text import clean_id
from text2token.utils.errors import UserError
from text2token.utils.places import check_outside

if TYPE_CHECKING:
    from text2token.search import Columns, Index


@dataclass(frozen=True)
class Change:
    """The options that change an existing index."""

    add: Path | None
    delete: tuple[str, ...]
    delete_file: Path | None

    def __bool__(self) -> bool:
        return bool(self.add or self.delete or self.delete_file)

    def ids_to_delete(self) -> list[str]:
        """The ids given on the command line, and those in the file."""
        return [*self.delete, *(_read_ids(self.delete_file) if self.delete_file else ())]


change_options = grouped(
    "change",
    Change,
    click.option(
        "--add", type=place_type, help="Add these documents to the existing index. A known id gets its new text."
    ),
    click.option("--delete", metavar="ID", multiple=True, help="Delete a document from the index. May be repeated."),
    click.option(
        "--delete-file",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Delete the documents whose ids are in this text file, one id per line.",
    ),
)


def check_deletion(model: str | None, column_flags: list[str], encoding: Encoding) -> None:
    """Refuse arguments that only matter when documents are added.

    Args:
        model: The MODEL that the user named, if any.
        column_flags: The options of columns that the user gave.
        encoding: How texts are encoded.

    Raises:
        UserError: There is such an argument.
    """
    idle = column_flags + (["--precision"] if encoding.precision else [])
    idle += ["MODEL"] if model else []
    if idle:
        raise UserError(f"{idle[0]} has no effect on --delete: leave it out.")


def change_index(
    output: Path,
    model: str | None,
    change: Change,
    uri: str | None,
    columns: Columns,
    encoding: Encoding,
    *,
    strict: bool,
) -> tuple[Index, int]:
    """Add and delete documents, or change the address of the engine. Returns the index and how many were deleted.

    A column that the user does not name is that of the index.
    """
    from text2token.search import Index, read_documents

    doomed, deleted = change.ids_to_delete(), 0
    opened = Index.open(output, model=model, uri=uri)
    if change.add:
        check_outside(output, change.add)
        encoding.change(opened)
        named = {name: column for name, column in asdict(columns).items() if column}
        chosen = replace(opened.settings.columns, **named)
        opened.add(read_documents(change.add, chosen, strict=strict), progress=True)
    if doomed:
        deleted = opened.delete(doomed)
        click.echo(f"{deleted} of {len(doomed)} documents deleted", err=True)
    return opened, deleted


def _read_ids(file: Path) -> list[str]:
    """The lines of a text file with any ending; blank lines are skipped."""
    return [name for line in read_lines(file) if (name := clean_id(line))]
