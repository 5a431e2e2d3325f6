"""The PostgreSQL engine: tables of pgvector in one or several databases, which are searched side by side."""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from psycopg import Connection, sql
from scipy.sparse import csr_array

from text2token.search.engines.base import LostShardError, Matrix, ScoredId, best, check_fields
from text2token.search.engines.postgres_postings import update_postings
from text2token.search.engines.postgres_schema import (
    APPROXIMATE,
    MAX_DENSE_HNSW,
    Table,
    build_index,
    read_table,
    require_pgvector,
    upgrade_table,
)
from text2token.search.engines.postgres_search import SESSION, search_table
from text2token.search.engines.postgres_shard import Shard
from text2token.search.engines.postgres_values import MAX_SPARSE, metadata_columns, strongest, vector_columns
from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName

T = TypeVar("T")
APPROXIMATE_FROM = 20_000
"""Documents of a shard from which sparse and dense searches are approximate. Up to there an exact search is about as fast."""
_MAX_ID_BYTES = 2_600  # the index of the ids takes 2,704 bytes, and a few are not the id's
REREAD = 60.0
"""Seconds after which a search reads again which indexes the tables have."""
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
        UnavailableError: By every method: a server refuses the work.
        UserError: By every method: a server holds something else.
    """

    in_process = False
    max_id_bytes: int | None = _MAX_ID_BYTES

    def __init__(self, uri: str, table: str) -> None:
        """Read the address. Servers are asked at first use.

        Args:
            uri: Addresses of the shards with ``;`` between them. Each is a libpq URI; hosts with ``,`` between them are replicas.
            table: Name of the table.
        """
        addresses = uri.split(";")
        self._name = table
        self._shards = [Shard(address, i, len(addresses), SESSION) for i, address in enumerate(addresses, 1)]
        self._tables: dict[Shard, Table] = {}
        self._followed = time.monotonic()
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
                columns |= vector_columns(field, matrix[rows])
            columns |= metadata_columns(values)
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

    def follow(self) -> None:
        """Every search asks the servers. After :data:`REREAD` it reads the tables again: others may build indexes."""
        if (now := time.monotonic()) - self._followed > REREAD:
            self._tables, self._followed = {}, now

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
            return search_table(connection, self._name, table, field, query, k, filters)

        return best([hit for hits in self._each(search, lost) for hit in hits], k)

    def count(self, lost: list[str] | None = None) -> int:
        """See the protocol."""
        return sum(self._each(self._count, lost))

    def close(self) -> None:
        """See the protocol. Searches that run are finished first."""
        self._threads.shutdown()
        for shard in self._shards:
            shard.close()

    def _count(self, shard: Shard, connection: Connection[Any]) -> int:
        if self._table(shard, connection) is None:
            return 0
        (number,) = connection.execute(self._sql("SELECT count(*) FROM {table}")).fetchone() or (0,)
        return int(number)

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
        """The table of a shard, if it has one. It is read once until :meth:`follow` or :meth:`finish` forgets it."""
        table = self._tables.get(shard) or read_table(connection, self._name, shard.number, shard.count)
        if table:
            self._tables[shard] = table
        return table

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
