"""The PostgreSQL engine: tables of pgvector in one or several databases, which are searched side by side."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeAlias, TypeVar

from psycopg import Connection, sql
from scipy.sparse import csr_array

from text2token.search.engines.base import (
    LostShardError,
    Matrix,
    ScoredId,
    best,
    check_fields,
    check_has_field,
    described,
)
from text2token.search.engines.postgres_postings import best_documents, update_postings
from text2token.search.engines.postgres_schema import (
    APPROXIMATE,
    MAX_DENSE_HNSW,
    TERMS,
    Table,
    build_index,
    read_table,
    require_pgvector,
    upgrade_table,
)
from text2token.search.engines.postgres_shard import Shard
from text2token.search.engines.postgres_values import (
    MAX_SPARSE,
    WORDS,
    array_text,
    dense_binary,
    numbers_binary,
    query_text,
    sparse_binary,
    strongest,
    terms_binary,
    texts_binary,
)
from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError

T = TypeVar("T")
Where: TypeAlias = tuple[list[sql.Composable], list[Any]]
"""Conditions of a statement, and the values of their parameters."""
APPROXIMATE_FROM = 20_000
"""Documents of a shard from which sparse and dense searches are approximate. Up to there an exact search is about as fast."""
DOCUMENT_TOKENS = 32
"""A sparse search with filters scores documents that have a token of the query among so many strongest ones of their own."""
EF_SEARCH = 800
"""Candidates of an HNSW search (pgvector's ``hnsw.ef_search``).

Among 100,000 vectors drawn from 1,000 real ones, which are harder to tell apart than real ones, 600 missed 1 or 2 of 100 hits and
800 missed none; 1,000 took a quarter longer and found no more.
"""
_SESSION = {
    "hnsw.ef_search": str(EF_SEARCH),
    "hnsw.iterative_scan": "strict_order",  # goes on until enough documents meet the filters
    "jit": "off",  # compiling takes longer than a search
}
RERANKED = 2
"""Documents that an HNSW search ranks by 16 bits a number and the table again by 32, for each hit."""
_DISTANCES: dict[FieldName, str] = {  # the cast of dense vectors reads tables of schema 1 too
    "sparse": "sparse <#> %s::sparsevec",
    "bm25": "bm25 <#> %s::sparsevec",
    "dense": "dense::vector <#> %s::vector",
}
_SEARCHES = 4  # searches of all shards at the same time


class PostgresEngine:
    """A table on each shard; see :class:`text2token.search.engines.base.Engine`.

    The first :meth:`add` makes the tables. A hash of its id gives the shard of a document. A search asks all shards for their
    ``k`` best documents at the same time and merges them. An addition is one transaction on each shard.

    The BM25 field is exact. The sparse and dense fields are exact until a shard has :data:`APPROXIMATE_FROM` documents. From then
    on a dense search uses an HNSW index, and a sparse search scores only the documents that an inverted index ranks first, or
    with filters those that have a token of the query among their own strongest. A search that finds fewer than ``k`` hits in this
    way is repeated exactly.

    Differences from the protocol: of a document's sparse or BM25 weights the 16,000 largest are kept, which is pgvector's limit;
    a document is a hit in these fields if its score is above 0.

    Raises:
        LostShardError: By every method: no server of a shard answers.
        UserError: By every method: a server refuses the work, or holds something else.
    """

    in_process = False

    def __init__(self, uri: str, table: str) -> None:
        """Read the address. Servers are asked at first use.

        Args:
            uri: Addresses of the shards with ``;`` between them. Each is a libpq URI; hosts with ``,`` between them are replicas.
            table: Name of the table.
        """
        addresses = uri.split(";")
        self._name = table
        self._shards = [Shard(address, i, len(addresses), _SESSION) for i, address in enumerate(addresses, 1)]
        self._tables: dict[Shard, Table] = {}
        self._threads = ThreadPoolExecutor(_SEARCHES * len(addresses))

    def check(self) -> None:
        """See the protocol. pgvector is installed in databases that lack it."""
        self._each(lambda _, connection: require_pgvector(connection))

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """See the protocol."""
        fields: dict[FieldName, int] = {
            field: 0 if field == "bm25" else rows.shape[1] for field, rows in vectors.items()
        }
        rows_of = self._rows_by_shard(ids)

        def add(shard: Shard, connection: Connection[Any]) -> None:
            self._prepare(shard, connection, fields)
            rows = rows_of[shard]
            if not rows:
                return
            names, values = [ids[row] for row in rows], [metadata[row] if metadata else {} for row in rows]
            columns: dict[str, Iterable[Any]] = {"id": names}
            for field, matrix in vectors.items():
                columns |= _columns(field, matrix[rows])
            columns |= {"metadata": map(texts_binary, values), "numbers": map(numbers_binary, values)}
            listed = sql.SQL(", ").join(map(sql.Identifier, columns))
            statement = self._sql("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)", columns=listed)
            with connection.transaction(), connection.cursor() as cursor:
                cursor.execute(self._sql("DELETE FROM {table} WHERE id = ANY(%s)"), (names,))
                with cursor.copy(statement) as copy:
                    copy.set_types(["text", *["bytea"] * (len(columns) - 1)])  # the bytes are what the columns read
                    for row in zip(*columns.values(), strict=True):
                        copy.write_row(row)

        self._each(add)

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        rows_of = self._rows_by_shard(ids)

        def delete(shard: Shard, connection: Connection[Any]) -> None:
            if rows_of[shard] and self._table(shard, connection):
                names = [ids[row] for row in rows_of[shard]]
                connection.execute(self._sql("DELETE FROM {table} WHERE id = ANY(%s)"), (names,))

        self._each(delete)

    def finish(self) -> None:
        """Build the indexes of shards that have grown large enough, and update the statistics of the planner."""

        def finish(shard: Shard, connection: Connection[Any]) -> None:
            table = self._table(shard, connection)
            if table is None:
                return
            if self._count(shard, connection) >= APPROXIMATE_FROM:
                for field in APPROXIMATE:
                    if field in table.fields and (field != "dense" or table.fields[field] <= MAX_DENSE_HNSW):
                        build_index(connection, self._name, field, table.fields[field])
                if "sparse" in table.fields and table.complete:
                    update_postings(connection, self._name)
            connection.execute(self._sql("VACUUM (ANALYZE) {table}"))
            self._tables.pop(shard, None)  # it says which indexes there are

        self._each(finish)

    def search(
        self,
        field: FieldName,
        query: Matrix,
        k: int,
        filters: Sequence[Filter] = (),
        lost: list[str] | None = None,
    ) -> list[ScoredId]:
        """See the protocol; the class documents the differences."""
        if field != "dense":
            query = strongest(csr_array(query), MAX_SPARSE)
            if not query.nnz:
                return []

        def search(shard: Shard, connection: Connection[Any]) -> list[ScoredId]:
            table = self._table(shard, connection)
            if table is None:
                return []
            check_has_field(f"The table '{self._name}'", table.fields, field)
            if field != "bm25" and query.shape[1] != table.fields[field]:
                raise UserError(
                    f"The table '{self._name}' holds {described(table.fields)}, and the {field} vector of the query has "
                    f"{query.shape[1]}: search with the model of the index."
                )
            if field in table.approximate:
                posted = field == "sparse" and table.posted and not filters
                near = self._posted(connection, query, k) if posted else _conditions(filters)
                hits = self._ranked(connection, field, query, k, near, exact=posted)
                if len(hits) == k:
                    return hits
            return self._ranked(connection, field, query, k, _conditions(filters), exact=True)

        return best([hit for hits in self._each(search, lost) for hit in hits], k)

    def count(self, lost: list[str] | None = None) -> int:
        """See the protocol."""
        return sum(self._each(self._count, lost))

    def _count(self, shard: Shard, connection: Connection[Any]) -> int:
        if self._table(shard, connection) is None:
            return 0
        (number,) = connection.execute(self._sql("SELECT count(*) FROM {table}")).fetchone() or (0,)
        return int(number)

    def _posted(self, connection: Connection[Any], query: Matrix, k: int) -> Where:
        """The condition that a document has no postings yet, or that its postings rank it among the first."""
        numbers, last = best_documents(connection, self._name, csr_array(query), k)
        return [sql.SQL("(number = ANY(%s::int[]) OR number > %s)")], [array_text(numbers), last]

    def _ranked(
        self, connection: Connection[Any], field: FieldName, query: Matrix, k: int, where: Where, *, exact: bool
    ) -> list[ScoredId]:
        """The best documents of one shard that meet some conditions.

        PostgreSQL uses an HNSW index only if the distance alone orders the rows, so its documents are ranked again.
        """
        conditions, values = where
        if field == "bm25" or (field == "sparse" and not exact):
            conditions.append(sql.SQL("{} && %s::int[]").format(sql.Identifier(TERMS[field])))
            values.append(array_text(csr_array(query).indices))
        written = query_text(field, query)
        source = self._sql(
            "{table} WHERE {conditions}", conditions=sql.SQL(" AND ").join([*conditions, sql.SQL("true")])
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
        return [ScoredId(name, score) for name, score in found if field == "dense" or score > 0]

    def _prepare(self, shard: Shard, connection: Connection[Any], fields: Mapping[FieldName, int]) -> None:
        """Make or upgrade the table of a shard, and check that it holds the fields."""
        table = self._table(shard, connection)
        if table is None or not table.complete:
            upgrade_table(connection, self._name, fields, shard.number, shard.count)
            self._tables.pop(shard, None)
            table = self._table(shard, connection)
        if table:
            check_fields(f"The table '{self._name}'", table.fields, fields, "make a new index")

    def _table(self, shard: Shard, connection: Connection[Any]) -> Table | None:
        """The table of a shard, if it has one. It is read once."""
        if shard not in self._tables and (table := read_table(connection, self._name, shard.number, shard.count)):
            self._tables[shard] = table
        return self._tables.get(shard)

    def _each(self, work: Callable[[Shard, Connection[Any]], T], lost: list[str] | None = None) -> list[T]:
        """Do some work on all shards at the same time, and return the results in their order.

        Args:
            work: Gets a shard and a connection to it.
            lost: Receives the names of shards that do not answer; None: such a shard is an error. So is the loss of all shards.
        """
        running = [(shard, self._threads.submit(shard.run, partial(work, shard))) for shard in self._shards]
        done, failures = [], []
        for shard, future in running:
            try:
                done.append(future.result())
            except LostShardError as error:
                failures.append((shard.name, error))
        if failures and (lost is None or not done):
            raise failures[0][1]
        if lost is not None:
            lost += [name for name, _ in failures]
        return done

    def _rows_by_shard(self, ids: Sequence[str]) -> dict[Shard, list[int]]:
        """Rows of the ids of each shard; of an id that is given twice the last row."""
        rows: dict[Shard, list[int]] = {shard: [] for shard in self._shards}
        for name, row in {name: row for row, name in enumerate(ids)}.items():
            rows[self._shards[zlib.crc32(name.encode()) % len(self._shards)]].append(row)
        return rows

    def _sql(self, text: str, **parts: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(table=sql.Identifier(self._name), **parts)


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


def _columns(field: FieldName, rows: Matrix) -> dict[str, Iterable[bytes]]:
    """The columns of the table that a field fills."""
    if field == "dense":
        return {"dense": dense_binary(rows)}
    kept = strongest(csr_array(rows), MAX_SPARSE)
    if field == "sparse":
        return {"sparse": sparse_binary(kept, rows.shape[1]), "tokens": terms_binary(strongest(kept, DOCUMENT_TOKENS))}
    return {"bm25": sparse_binary(kept, WORDS), "words": terms_binary(kept)}
