"""The search in one table of the PostgreSQL engine: which documents are scored, and in what order they come."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, TypeAlias

from psycopg import Connection, sql
from scipy.sparse import csr_array

from text2token.search.engines.base import Matrix, ScoredId, check_has_field, described
from text2token.search.engines.postgres_postings import best_documents
from text2token.search.engines.postgres_schema import TERMS, Table
from text2token.search.engines.postgres_values import array_text, query_text
from text2token.search.filters import Filter
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError

Where: TypeAlias = tuple[list[sql.Composable], list[Any]]
"""Conditions of a statement, and the values of their parameters."""
EF_SEARCH = 800
"""Candidates of an HNSW search (pgvector's ``hnsw.ef_search``).

Among 100,000 vectors drawn from 1,000 real ones, which are harder to tell apart than real ones, 600 missed 1 or 2 of 100 hits and
800 missed none; 1,000 took a quarter longer and found no more.
"""
SESSION = {
    "hnsw.ef_search": str(EF_SEARCH),
    "hnsw.iterative_scan": "strict_order",  # goes on until enough documents meet the filters
    "jit": "off",  # compiling takes longer than a search
}
"""Settings of the server for every connection."""
RERANKED = 2
"""Documents that an HNSW search ranks by 16 bits a number and the table again by 32, for each hit."""
_DISTANCES: dict[FieldName, str] = {  # the cast of dense vectors reads tables of schema 1 too
    "sparse": "sparse <#> %s::sparsevec",
    "bm25": "bm25 <#> %s::sparsevec",
    "dense": "dense::vector <#> %s::vector",
}


def search_table(
    connection: Connection[Any],
    name: str,
    table: Table,
    field: FieldName,
    query: Matrix,
    k: int,
    filters: Sequence[Filter],
) -> list[ScoredId]:
    """The ``k`` best documents of a table, approximately if the field has an index for that.

    An approximate search that finds fewer than ``k`` hits is repeated exactly.

    Args:
        connection: Connection to the shard.
        name: Name of the table.
        table: What the table holds.
        field: The field to search.
        query: Vector of the query, one row; of a sparse field as
            :func:`text2token.search.engines.postgres_values.strongest` returns it.
        k: Largest number of hits.
        filters: Conditions on the metadata.

    Raises:
        UserError: The table has no such field, or vectors of another size.
    """
    check_has_field(f"The table '{name}'", table.fields, field)
    if field != "bm25" and query.shape[1] != table.fields[field]:
        raise UserError(
            f"The table '{name}' holds {described(table.fields)}, and the {field} vector of the query has "
            f"{query.shape[1]}: search with the model of the index."
        )
    if field in table.approximate:
        posted = field == "sparse" and table.posted and not filters
        near = _posted(connection, name, query, k) if posted else _conditions(filters)
        hits = _ranked(connection, name, field, query, k, near, exact=posted)
        if len(hits) == k:
            return hits
    return _ranked(connection, name, field, query, k, _conditions(filters), exact=True)


def _posted(connection: Connection[Any], name: str, query: Matrix, k: int) -> Where:
    """The condition that a document has no postings yet, or that its postings rank it among the first."""
    numbers, last = best_documents(connection, name, csr_array(query), k)
    return [sql.SQL("(number = ANY(%s::int[]) OR number > %s)")], [array_text(numbers), last]


def _conditions(filters: Sequence[Filter]) -> Where:
    """Filters as SQL, and the values of its parameters."""
    conditions: list[sql.Composable] = []
    values: list[Any] = []
    for condition in filters:
        (column, operator, value), number = condition, condition.number
        if operator == "=":
            conditions.append(sql.SQL("metadata @> %s::jsonb"))
            values.append(json.dumps({column: value}))
        elif number is None:
            conditions.append(sql.SQL('(metadata ->> %s) COLLATE "C" {} %s').format(sql.SQL(operator)))
            values += [column, value]
        else:
            conditions.append(sql.SQL("(numbers ->> %s)::float8 {} %s").format(sql.SQL(operator)))
            values += [column, number]
    return conditions, values


def _ranked(
    connection: Connection[Any], name: str, field: FieldName, query: Matrix, k: int, where: Where, *, exact: bool
) -> list[ScoredId]:
    """The best documents that meet some conditions.

    PostgreSQL uses an HNSW index only if the distance alone orders the rows, so its documents are ranked again.
    """
    conditions, values = where
    if field == "bm25" or (field == "sparse" and not exact):
        conditions.append(sql.SQL("{} && %s::int[]").format(sql.Identifier(TERMS[field])))
        values.append(array_text(csr_array(query).indices))
    written = query_text(field, query)
    source = sql.SQL("{table} WHERE {conditions}").format(
        table=sql.Identifier(name), conditions=sql.SQL(" AND ").join([*conditions, sql.SQL("true")])
    )
    if field == "dense" and not exact:
        half = sql.SQL("halfvec({})").format(query.shape[1])
        source = sql.SQL(
            "(SELECT id, dense FROM {source} ORDER BY dense::{half} <#> %s::{half} LIMIT %s) AS near"
        ).format(source=source, half=half)
        values += [written, RERANKED * k]
    statement = sql.SQL("SELECT id, -({distance}) AS score FROM {source} ORDER BY score DESC, id LIMIT %s").format(
        distance=sql.SQL(_DISTANCES[field]), source=source
    )
    found = connection.execute(statement, [written, *values, k])
    return [ScoredId(hit, score) for hit, score in found if field == "dense" or score > 0]
