"""``text2token index``: creates an index, or changes an existing one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from text2token.cli.index_change import Change, change_index, change_options, check_deletion
from text2token.cli.options import (
    BACKBONE,
    CORRECTION,
    Encoding,
    as_flag,
    echo_json,
    encoding_options,
    grouped,
    json_option,
    output_option,
    place_type,
    quiet_libraries,
    recipe_options,
    refuse_settings,
    setting_options,
    strict_option,
)
from text2token.search.engines.addresses import stored_address
from text2token.settings.choices import Precision
from text2token.settings.recipe import Recipe, one_sentence
from text2token.settings.search import LANGUAGES, Calibration, EngineName, VectorSettings
from text2token.utils.errors import UserError, requires_extra
from text2token.utils.places import check_outside

if TYPE_CHECKING:
    from text2token.model.embedder import Embedder
    from text2token.search import Index

_SETTINGS = (*BACKBONE, *CORRECTION, "calibration_texts")


@click.command("index")
@click.argument("model", required=False)
@click.argument("docs", required=False, type=place_type)
@output_option("Folder of the index. Repeat the command to continue a stopped run.")
@change_options
@grouped(
    "columns",
    dict,
    click.option("--id-column", "id", help="Column of the ids in a table.  [default: _id or id]"),
    click.option("--title-column", "title", help="Column of the titles.  [default: title, if there is one]"),
    click.option("--text-column", "text", help="Column of the texts.  [default: text]"),
)
@grouped(
    "storage",
    dict,
    click.option(
        "--engine",
        type=click.Choice(get_args(EngineName)),
        help="Where the vectors are stored: in the folder, or in a database.  [default: embedded]",
    ),
    click.option(
        "--language",
        type=click.Choice(list(LANGUAGES)),
        metavar="LANGUAGE",
        help=f"Stemmer and stop words of the BM25 field: {', '.join(LANGUAGES)}.  [default: english]",
    ),
    click.option(
        "--query-model",
        metavar="STUDENT",
        help="A folder that 'text2token distill' wrote: it encodes the queries, and search needs no transformer. 'none': MODEL "
        "encodes them.  [default: MODEL/student, if there is one]",
    ),
    click.option(
        "--uri",
        help="Address of the engine, as --engine postgres --uri postgresql://user@host/database. Alone or with --add or "
        "--delete: its new address. A password is not kept: set PGPASSWORD, MILVUS_TOKEN or QDRANT_API_KEY.",
    ),
)
@click.option(
    "--vectors",
    "shards",
    type=place_type,
    help="Index the shards in this folder, which 'text2token encode --shards' wrote. No document is encoded again.",
)
@strict_option
@encoding_options
@setting_options("vectors", VectorSettings, *VectorSettings.model_fields)
@json_option
@recipe_options(*_SETTINGS)
def index_command(
    model: str | None,
    docs: Path | None,
    output: Path,
    change: Change,
    columns: dict[str, str | None],
    storage: dict[str, Any],
    shards: Path | None,
    strict: bool,
    encoding: Encoding,
    vectors: dict[str, Any],
    as_json: bool,
    recipe: Recipe,
) -> None:
    """Build a search index of the documents in DOCS with MODEL, or change an existing index.

    MODEL is a folder that 'text2token fit' or 'text2token distill' wrote, a SentenceTransformer (the index then has no sparse
    field), or a language model with the settings below. DOCS is a .jsonl, .csv or .parquet file, or a folder of .txt and .md
    files. If you stop the command, repeat it to continue. With --add and --vectors, give MODEL only if the model has moved.

    \b
    Example:
      text2token index model docs.jsonl --output index
      text2token index --vectors shards --output index
      text2token index --output index --add more.jsonl --delete 17 --delete 18
    """
    given = {name: value for name, value in storage.items() if value is not None}
    changes = bool(change) or bool(storage["uri"] and not (model or docs or shards))
    fixed = given.keys() - {"uri"} if changes else given.keys()
    column_flags = [f"--{name}-column" for name, value in columns.items() if value is not None]
    if shards:
        _check_shards(docs, change, column_flags, recipe, strict=strict)
    else:
        _check_arguments(model, docs, fixed | vectors.keys() | recipe.model_fields_set, changes=changes)
    if not changes:
        stored_address(storage["engine"] or "embedded", storage["uri"])
    if change and not change.add:
        check_deletion(model, column_flags, encoding)
    with one_sentence("Index", VectorSettings):
        settings = VectorSettings(**vectors)
    quiet_libraries()
    with requires_extra("search"):
        from text2token.search import Columns
    named = Columns(**columns)
    deleted = 0
    if changes:
        opened, deleted = change_index(output, model, change, storage["uri"], named, encoding, strict=strict)
    else:
        how = {"engine": "embedded", "language": "english", **given, "vectors": settings}
        if shards:
            opened = _index_shards(output, model, shards, recipe, encoding, how)
        elif model and docs:
            opened = _index_documents(output, model, docs, recipe, encoding, {**how, "columns": named}, strict=strict)
    if as_json:
        echo_json({"index": str(output), "documents": len(opened), "deleted": deleted})
    else:
        click.echo(f"{len(opened)} document{'s' * (len(opened) != 1)} in {output}", err=True)


def _index_documents(
    output: Path, model: str, docs: Path, recipe: Recipe, encoding: Encoding, how: dict[str, Any], *, strict: bool
) -> Index:
    from text2token.model.embedder import Embedder
    from text2token.model.saved import is_saved
    from text2token.search import read_documents
    from text2token.search.documents import check_source

    check_source(docs)
    check_outside(output, docs)
    if is_saved(model):
        refuse_settings(model, recipe.model_fields_set & set(_SETTINGS))
    embedder = encoding.apply(Embedder.open(model, **recipe.embedder_settings()))

    def add(index: Index) -> None:
        index.add(read_documents(docs, how["columns"], strict=strict), progress=True)

    return _create(output, model, embedder, recipe, add, {**how, "encoder": recipe.encoder_settings()})


def _index_shards(
    output: Path, model: str | None, folder: Path, recipe: Recipe, encoding: Encoding, how: dict[str, Any]
) -> Index:
    from text2token.model.saved import is_saved
    from text2token.search import EncodedShards

    shards = EncodedShards.open(folder)
    model = model or shards.record.model
    if is_saved(model):
        refuse_settings(model, recipe.model_fields_set & set(_SETTINGS))
    there: Precision = "fp32" if shards.record.precision == "fp32" else "auto"
    embedder = replace(encoding, precision=encoding.precision or there).apply(shards.open_model(model))

    def add(index: Index) -> None:
        index.add_encoded(shards, progress=True)

    how = {**how, "encoder": shards.record.encoder, "columns": shards.record.columns}
    return _create(output, model, embedder, recipe, add, how)


def _create(
    output: Path, model: str, embedder: Embedder, recipe: Recipe, add: Callable[[Index], None], how: dict[str, Any]
) -> Index:
    """Build an index, or continue an unfinished one."""
    from text2token.search import Index
    from text2token.search.index_folder import rollback_on_error

    if embedder.head is None and (sparse := how["vectors"].model_fields_set):
        raise UserError(
            f"{as_flag(min(sparse))} changes the sparse field, and '{model}' has no decoding head: leave it out."
        )
    calibration = Calibration(
        correction=recipe.correction,
        keep_from=recipe.keep_from,
        keep_to=recipe.keep_to,
        texts=recipe.calibration_texts,
    )
    with rollback_on_error(output):
        opened = Index.create(output, model, calibration=calibration, embedder=embedder, **how)
        if "sparse" not in opened.fields:
            click.echo(f"Note: '{model}' has no decoding head, so the index has no sparse field.", err=True)
        add(opened)
    return opened


def _check_shards(docs: Path | None, change: Change, column_flags: list[str], recipe: Recipe, *, strict: bool) -> None:
    """Refuse arguments that were settled when the shards were encoded."""
    idle = ["DOCS"] if docs else ["--add" if change.add else "--delete"] if change else ["--strict"] if strict else []
    idle += column_flags
    idle += [as_flag(name) for name in sorted(recipe.model_fields_set.intersection(BACKBONE))]
    if idle:
        raise UserError(f"{idle[0]} does not go together with --vectors: leave one of them out.")


def _check_arguments(model: str | None, docs: Path | None, fixed: set[str], *, changes: bool) -> None:
    """Refuse arguments that belong to the other use of the verb: creating an index, or changing one."""
    if docs if changes else not (model and docs):
        raise UserError(
            "Name MODEL and DOCS or --vectors to build a new index, or use --add or --delete to change an existing one."
        )
    if changes and fixed:
        raise UserError(
            f"{as_flag(min(fixed))} cannot change in an existing index: leave it out, or build a new index."
        )
