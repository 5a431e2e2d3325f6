"""``text2token index``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from text2token.cli.options import (
    BACKBONE,
    CORRECTION,
    bf16_option,
    quiet_libraries,
    recipe_options,
    refuse_settings,
    setting_options,
)
from text2token.data.corpus import open_corpus
from text2token.settings.recipe import Recipe, one_sentence
from text2token.settings.search import LANGUAGES, Calibration, EngineName, VectorSettings
from text2token.utils.errors import UserError, extra

_SETTING = (*BACKBONE, *CORRECTION, "calibration_texts")
_COLUMNS = {"id_column", "title_column", "text_column"}
_CHANGING = {"model", "output", "add", "delete", "delete_file", "strict", "bf16", *_COLUMNS}
_path = click.Path(path_type=Path)
_file = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("index")
@click.argument("model", required=False)
@click.argument("docs", required=False, type=_path)
@click.option("--output", "-o", type=_path, required=True, help="folder of the index; repeat the command to resume")
@click.option("--add", type=_path, help="add these documents to the index that is there; known ids are replaced")
@click.option("--delete", metavar="ID", multiple=True, help="take a document out of the index; may be repeated")
@click.option("--delete-file", type=_file, help="take out those that this file names, one id a line")
@click.option("--id-column", help="of a table  [default: _id or id]")
@click.option("--title-column", help="of a table  [default: title, where there is one]")
@click.option("--text-column", help="of a table  [default: text]")
@click.option(
    "--engine",
    type=click.Choice(get_args(EngineName)),
    default="embedded",
    show_default=True,
    help="where vectors are kept: in the folder, or in Milvus",
)
@click.option(
    "--language",
    type=click.Choice(list(LANGUAGES)),
    default="english",
    show_default=True,
    metavar="LANGUAGE",
    help=f"stemmer and stop words of the BM25 field: {', '.join(LANGUAGES)}",
)
@click.option("--uri", help="of Milvus: http://host:19530 (login by the variable MILVUS_TOKEN), or a file")
@click.option(
    "--strict", is_flag=True, help="refuse a document without text; else such documents are skipped and counted"
)
@bf16_option
@setting_options("vectors", VectorSettings, *VectorSettings.model_fields)
@recipe_options(*_SETTING)
@click.pass_context
def index_command(
    context: click.Context,
    model: str | None,
    docs: Path | None,
    output: Path,
    add: Path | None,
    delete: tuple[str, ...],
    delete_file: Path | None,
    id_column: str | None,
    title_column: str | None,
    text_column: str | None,
    engine: Any,
    language: str,
    uri: str | None,
    strict: bool,
    bf16: bool,
    vectors: dict[str, Any],
    recipe: Recipe,
) -> None:
    """Make the documents of DOCS searchable with MODEL, or change an index.

    MODEL is a folder that 'text2token fit' wrote, an untrained backbone under the settings below, or a SentenceTransformer (which
    has no sparse side). DOCS is a .jsonl, .csv or .parquet file, or a folder of .txt and .md files. A stopped run continues when
    repeated. With --add, MODEL is needed only where the index's model is elsewhere now.

    \b
    Example:
      text2token index model docs.jsonl --output index
      text2token index --output index --add more.jsonl --delete 17 --delete 18
    """
    given = {name for name in context.params if context.get_parameter_source(name) is not ParameterSource.DEFAULT}
    doomed = [*delete, *(open_corpus(delete_file) if delete_file else ())]
    _check(given, changing=bool(add or doomed), engine=engine)
    with one_sentence("Index", VectorSettings):
        settings = VectorSettings(**vectors)
    quiet_libraries()
    with extra("search"):
        from text2token.model.embedder import Embedder
        from text2token.model.saved import is_saved
        from text2token.search import Columns, Index, read_documents
        from text2token.search.writer import rollback_on_error
    columns = Columns(id_column, title_column, text_column)
    if model is not None and docs is not None:
        if not docs.exists():
            raise UserError(f"There is no file or folder '{docs}': check the path of the documents.")
        if is_saved(model):
            refuse_settings(model, recipe.model_fields_set & set(_SETTING))
        embedder = Embedder.open(model, **recipe.embedder_settings())
        if embedder.head is None and vectors:
            raise UserError(
                f"{_flag(min(vectors))} changes the sparse field, and '{model}' has no decoding head: leave it out."
            )
        if bf16:
            embedder.use_bf16()
        with rollback_on_error(output):
            opened = Index.create(
                output,
                model,
                encoder={name: value for name, value in recipe.embedder_settings().items() if name != "top_k"},
                calibration=Calibration(
                    correction=recipe.correction,
                    keep_from=recipe.keep_from,
                    keep_to=recipe.keep_to,
                    texts=recipe.calibration_texts,
                ),
                vectors=settings,
                columns=columns,
                language=language,
                engine=engine,
                uri=uri,
                embedder=embedder,
            )
            if "sparse" not in opened.fields:
                click.echo(f"'{model}' has no decoding head: the index has no sparse field.", err=True)
            opened.add(read_documents(docs, columns, strict=strict), progress=True)
    else:
        opened = Index.open(output, model=model)
    if add is not None:
        if bf16:
            opened.embedder.use_bf16()
        chosen = columns if columns != Columns() else opened.settings.columns
        opened.add(read_documents(add, chosen, strict=strict), progress=True)
    if doomed:
        gone = opened.delete(doomed)
        click.echo(f"{gone} of {len(doomed)} documents deleted", err=True)
    click.echo(f"{len(opened)} documents in {output}", err=True)


def _check(given: set[str], *, changing: bool, engine: str) -> None:
    """Do these parameters go together?"""
    if "docs" in given if changing else not {"model", "docs"} <= given:
        raise UserError("Name MODEL and DOCS for a new index, or --add or --delete for the one that is there.")
    if changing and "add" not in given and (idle := given & {"model", "bf16", *_COLUMNS}):
        raise UserError(f"{_flag(min(idle))} is of no use to --delete: leave it out.")
    if changing and (fixed := given - _CHANGING):
        raise UserError(f"{_flag(min(fixed))} is fixed since the index was made: leave it out, or make a new index.")
    if "uri" in given and engine != "milvus":
        raise UserError("--uri is the place of a Milvus server: add --engine milvus, or leave it out.")


def _flag(name: str) -> str:
    return name.upper() if name == "model" else "--" + name.replace("_", "-")
