"""``text2token search``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args
from urllib.parse import quote

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from text2token.cli.options import (
    Encoding,
    echo_json,
    encoding_options,
    grouped,
    json_option,
    partial_option,
    path_type,
    quiet_libraries,
    strict_option,
)
from text2token.settings.search import HYBRID_WEIGHTS, FieldName, FusionMethod, Mode
from text2token.utils.errors import UserError, requires_extra
from text2token.utils.files import atomic_write, check_file, output_lock

if TYPE_CHECKING:
    from text2token.search import Index, SearchResults
    from text2token.search.reasons import SearchHit

_SHOWN = 6  # tokens of a hit in the table
_DEFAULT_WEIGHTS = ", ".join(f"{weight:g} for {field}" for field, weight in HYBRID_WEIGHTS.items())


@dataclass(frozen=True)
class Ranking:
    """The options that say how hits are found and ranked."""

    mode: Mode
    fusion: FusionMethod
    weights: tuple[tuple[FieldName, float], ...]
    filters: tuple[str, ...]
    inference_free: bool
    k: int

    @property
    def encodes(self) -> bool:
        """Whether the search needs the model."""
        return not self.inference_free and self.mode != "bm25"

    def check(self) -> None:
        """Refuse options that do not belong together."""
        if self.mode != "hybrid" and (self.weights or self.fusion != "scores"):
            raise UserError("--fusion and --weight only apply to a hybrid search: leave them out, or leave --mode out.")
        if not math.isfinite(sum(weight for _, weight in self.weights)):  # else scores would be infinite
            raise UserError("--weight needs a number from 0 up, and not so large a one.")

    def arguments(self) -> dict[str, Any]:
        """Keyword arguments of :meth:`Index.search` and :meth:`Index.rank`."""
        from text2token.search import HYBRID, Fusion

        fusion = HYBRID if self.fusion == HYBRID.method else Fusion(self.fusion)
        return {
            "k": self.k,
            "mode": self.mode,
            "inference_free": self.inference_free,
            "filters": self.filters,
            "fusion": fusion._replace(weights={**fusion.weights, **dict(self.weights)}),
        }


@click.command("search")
@click.argument("index", type=path_type)
@click.argument("query", required=False)
@grouped(
    "ranking",
    Ranking,
    click.option(
        "--mode",
        type=click.Choice(get_args(Mode)),
        default="hybrid",
        show_default=True,
        help="The field to search. 'hybrid' searches all fields and fuses their hits.",
    ),
    click.option(
        "--fusion",
        type=click.Choice(get_args(FusionMethod)),
        default="scores",
        show_default=True,
        help="How 'hybrid' fuses hits: by scores, divided by the best score of their field, or by reciprocal ranks (rrf).",
    ),
    click.option(
        "--weight",
        "weights",
        type=(click.Choice(get_args(FieldName)), click.FloatRange(0)),
        multiple=True,
        metavar="FIELD NUMBER",
        help=f"Weight of a field in 'hybrid'. May be repeated.  [default: {_DEFAULT_WEIGHTS}; with rrf 1 for all]",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="CONDITION",
        help="Only documents whose metadata meet a condition: column=value; also <, <=, >, >= for numbers and dates. Repeatable.",
    ),
    click.option(
        "--no-model",
        "--inference-free",
        "inference_free",
        is_flag=True,
        help="Search with the words of the query only, without loading the model.",
    ),
    click.option(
        "-k",
        type=click.IntRange(1),
        default=10,
        show_default=True,
        help="Number of hits. Above 100, 'hybrid' reads more hits of each field, which can change the order.",
    ),
)
@partial_option
@click.option("--model", metavar="MODEL", help="Where the model of the index is now, if it has moved.")
@click.option(
    "--query-model",
    metavar="STUDENT",
    help="'none': encode the query with the model, although the index has a student.  [default: the student of the index]",
)
@click.option("--queries", type=path_type, help="A table of queries with _id (or id) and text. Needs --output.")
@click.option(
    "--output",
    "-o",
    type=path_type,
    help="TREC run file for --queries. White space in ids is percent-encoded (a space is %20), and so is the percent sign.",
)
@strict_option
@encoding_options
@json_option
def search_command(
    index: Path,
    query: str | None,
    ranking: Ranking,
    partial: bool,
    model: str | None,
    query_model: str | None,
    queries: Path | None,
    output: Path | None,
    strict: bool,
    encoding: Encoding,
    as_json: bool,
) -> None:
    """Find the documents of INDEX that match QUERY best, and show which tokens matched and how much each added.

    Write -- before a query that begins with a dash.

    \b
    Example:
      text2token search index "how do I stack arrays"
      text2token search index "how do I stack arrays" --weight dense 1
      text2token search index "how do I stack arrays" --filter package=numpy --filter "year>=2020"
      text2token search index --queries queries.jsonl --output run.trec -k 100 --mode sparse
    """
    if (query is None) == (queries is None) or (queries is None) != (output is None) or (as_json and queries):
        raise UserError("Give one QUERY (and --json, if you like), or --queries with --output.")
    if encoding.precision and not ranking.encodes:
        raise UserError("--precision changes how the model encodes, and this search does not load it: leave it out.")
    ranking.check()
    with requires_extra("search"):
        from text2token.search import Index
    opened = Index.open(index, model=model, partial=partial, query_model=query_model)
    if ranking.encodes and opened.has_student:
        if encoding.precision:
            raise UserError(
                "--precision changes how the model encodes, and here a student encodes the query: leave it out."
            )
        click.echo(
            "Note: the student of the index encodes the query; with --query-model none the model does.", err=True
        )
    elif ranking.encodes:
        quiet_libraries()  # imports these libraries, which other searches do not need
        encoding.change(opened)
    if waiting := opened.waiting:
        click.echo(f"Note: {waiting} documents cannot be found yet, because their addition is not finished.", err=True)
    if query is not None:
        _show(query, opened.search(query, **ranking.arguments()), as_json=as_json)
    elif queries is not None and output is not None:
        _write_run(opened, queries, output, ranking, strict=strict)


def _show(query: str, found: SearchResults, *, as_json: bool) -> None:
    if found.note:
        click.echo(f"Note: {found.note}", err=True)
    if as_json:
        echo_json([_as_dict(hit) for hit in found.hits])
    elif not found.hits:
        click.echo("No hits.")
    else:
        Console().print(_table(query, found))


def _write_run(index: Index, queries: Path, output: Path, ranking: Ranking, *, strict: bool) -> None:
    from text2token.data.queries import read_queries

    check_file(output)
    if output.exists() and queries.exists() and output.samefile(queries):
        raise UserError(f"'{output}' holds the queries: name another file for the run.")
    with output_lock(output):
        asked = {name: text for name, text in read_queries(queries, strict=strict).items() if text}
        ranked = index.rank(list(asked.values()), **ranking.arguments(), progress=True)
        with atomic_write(output) as part, part.open("w", encoding="utf-8") as file:
            for query, hits in zip(asked, ranked, strict=True):
                for rank, hit in enumerate(hits, 1):
                    file.write(f"{_one_word(query)} Q0 {_one_word(hit.id)} {rank} {hit.score:.9g} {ranking.mode}\n")
    click.echo(f"{len(asked)} queries, {sum(map(len, ranked))} hits in {output}", err=True)


def _one_word(name: str) -> str:
    """Percent-encode white space, which separates the columns of a run file, and the percent sign."""
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
    for column in table.columns:
        column.overflow = "fold"  # a snippet in a script without spaces is one long word
    return table
