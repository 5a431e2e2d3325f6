"""``text2token search``."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import bf16_option, echo_json, json_option, quiet_libraries
from text2token.settings.search import HYBRID_WEIGHTS, FieldName, FusionMethod, Mode
from text2token.utils.errors import UserError, extra
from text2token.utils.files import atomic_write

if TYPE_CHECKING:
    from text2token.search.index import Index, SearchResults
    from text2token.search.reasons import SearchHit

_SHOWN = 6  # tokens per hit in the table
_path = click.Path(path_type=Path)


@click.command("search")
@click.argument("index", type=_path)
@click.argument("query", required=False)
@click.option(
    "--mode",
    type=click.Choice(get_args(Mode)),
    default="hybrid",
    show_default=True,
    help="hybrid: all fields, fused",
)
@click.option(
    "--fusion",
    type=click.Choice(get_args(FusionMethod)),
    default="scores",
    show_default=True,
    help="of hybrid: by scores, each field's divided by its best, or by reciprocal ranks",
)
@click.option(
    "--weight",
    "weights",
    type=(click.Choice(get_args(FieldName)), click.FloatRange(0)),
    multiple=True,
    metavar="FIELD NUMBER",
    help="of a field in hybrid; may be repeated  [default: "
    + ", ".join(f"{weight:g} for {field}" for field, weight in HYBRID_WEIGHTS.items())
    + "; with rrf 1 for all]",
)
@click.option(
    "--filter",
    "filters",
    multiple=True,
    metavar="CONDITION",
    help="only documents whose metadata meet a condition: column=value, or <, <=, >, >= for numbers and dates; may be repeated",
)
@click.option("--model", metavar="MODEL", help="where the index's model is now, if it has moved")
@click.option(
    "--no-model",
    "--inference-free",
    "inference_free",
    is_flag=True,
    help="words of the query alone, without loading the model",
)
@click.option(
    "-k",
    type=click.IntRange(1),
    default=10,
    show_default=True,
    help="hits; above 100 hybrid looks deeper, which may reorder",
)
@click.option("--queries", type=_path, help="many queries: a .jsonl with _id (or id) and text; needs --output")
@click.option(
    "--output",
    "-o",
    type=_path,
    help="TREC run file for --queries; white space in ids becomes %20 and so on, % becomes %25",
)
@click.option("--strict", is_flag=True, help="refuse a query without text; else such queries are skipped and counted")
@bf16_option
@json_option
def search_command(
    index: Path,
    query: str | None,
    mode: Any,
    fusion: Any,
    weights: tuple[tuple[Any, float], ...],
    filters: tuple[str, ...],
    model: str | None,
    inference_free: bool,
    k: int,
    queries: Path | None,
    output: Path | None,
    strict: bool,
    bf16: bool,
    as_json: bool,
) -> None:
    """Find the documents of INDEX that fit QUERY best, with the tokens that matched and what each gave.

    \b
    Example:
      text2token search index "how do I stack arrays"
      text2token search index "how do I stack arrays" --weight dense 1
      text2token search index "how do I stack arrays" --filter package=numpy --filter "year>=2020"
      text2token search index --queries queries.jsonl --output run.trec -k 100 --mode sparse
    """
    if (query is None) == (queries is None) or (queries is None) != (output is None) or (as_json and queries):
        raise UserError("Give one QUERY, with --json if you like, or --queries with --output.")
    encodes = not inference_free and mode != "bm25"
    if bf16 and not encodes:
        raise UserError("--bf16 is of the model, which this search does not load: leave it out.")
    if mode != "hybrid" and (weights or fusion != "scores"):
        raise UserError("--fusion and --weight are of a hybrid search: leave them out, or leave --mode out.")
    if not all(math.isfinite(weight) for _, weight in weights):
        raise UserError("--weight takes a number: name one from 0 up.")
    if encodes:
        quiet_libraries()  # which imports them
    with extra("search"):
        from text2token.search import HYBRID, Fusion, Index
    chosen = HYBRID if fusion == HYBRID.method else Fusion(fusion)
    how: dict[str, Any] = {
        "k": k,
        "mode": mode,
        "inference_free": inference_free,
        "filters": filters,
        "fusion": chosen._replace(weights={**chosen.weights, **dict(weights)}),
    }
    opened = Index.open(index, model=model)
    if bf16:
        opened.embedder.use_bf16()
    if waiting := opened.waiting:
        click.echo(f"{waiting} documents cannot be found yet: an addition is under way, or was stopped.", err=True)
    if query is not None:
        _show(query, opened.search(query, **how), as_json=as_json)
    elif queries is not None and output is not None:
        _write_run(opened, queries, output, strict=strict, **how)


def _show(query: str, found: SearchResults, *, as_json: bool) -> None:
    if found.note:
        click.echo(found.note, err=True)
    if as_json:
        echo_json([_as_dict(hit) for hit in found.hits])
    elif not found.hits:
        click.echo("No hits.")
    else:
        Console().print(_table(query, found))


def _write_run(index: Index, queries: Path, output: Path, *, strict: bool, **how: Any) -> None:
    from text2token.search import read_documents

    asked = list(read_documents(queries, noun="query", strict=strict))
    if output.is_dir():
        raise UserError(f"'{output}' is a folder: name a file for the run.")
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(output) as part, part.open("w", encoding="utf-8") as file:
        ranked = index.rank([row.content for row in asked], **how, progress=True)
        for row, hits in zip(asked, ranked, strict=True):
            for rank, hit in enumerate(hits, 1):
                file.write(f"{_one_word(row.id)} Q0 {_one_word(hit.id)} {rank} {hit.score:.9g} {how['mode']}\n")
    click.echo(f"{len(asked)} queries, {sum(map(len, ranked))} hits in {output}", err=True)


def _one_word(name: str) -> str:
    """White space, which ends a column of a run, percent-encoded, and so the percent sign."""
    return re.sub(r"[\s%]", lambda sign: quote(sign[0]), name)


def _as_dict(hit: SearchHit) -> dict[str, Any]:
    return {**hit._asdict(), "matches": [match._asdict() for match in hit.matches]}


def _table(query: str, results: SearchResults) -> Table:
    table = Table(
        "", "Score", "Document", "Tokens that matched", title=Text(query), title_justify="left", show_lines=True
    )
    for rank, hit in enumerate(results.hits, 1):
        document = Text.assemble(
            (hit.title or hit.id, "bold"), (f"  {hit.id}" if hit.title else "", "dim"), f"\n{hit.snippet}"
        )
        reasons = [
            f"{'' if match.field == 'sparse' else match.field + ' '}{match.token.strip()} {match.amount:.2f}"
            for field in ("sparse", "bm25")
            for match in [match for match in hit.matches if match.field == field][:_SHOWN]
        ]
        reasons += [f"dense {hit.dense:.2f}"] if hit.dense else []
        table.add_row(str(rank), f"{hit.score:.3f}", document, Text("\n".join(reasons)))
    return table
