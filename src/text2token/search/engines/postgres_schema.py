"""Tables of the PostgreSQL engine. Each index has a table, and ``text2token_indexes`` lists the indexes of a database.

A tool for migrations would need a project of its own for one table whose columns depend on the model. Here a version is the
number of steps that were done, so a new table and an old one go the same way.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from psycopg import Connection, errors, sql

from text2token.settings.search import FieldName
from text2token.utils.errors import UserError

MIN_PGVECTOR = (0, 8)  # the first with iterative scans, which filters need
MAX_DENSE_HNSW = 4_000  # dimensions of a halfvec in an HNSW index
APPROXIMATE: dict[FieldName, str] = {
    "sparse": "gin (tokens)",
    "dense": "hnsw ((dense::halfvec({size})) halfvec_ip_ops) WITH (m = 16, ef_construction = 200)",
}
"""Index for the approximate search of a field.

HNSW indexes hold 16 bits a number; the best of their documents are ranked again by the vectors of the table. With pgvector's own
ef_construction of 64 no ef_search found 98 of 100 hits among 100,000 vectors drawn from mixtures of real ones; with 200 it did.

An HNSW index of sparse vectors (``sparsevec_ip_ops``) was tried in place of postings. It missed more hits in the same time, took
much longer to build, and refuses rows of more than 1,000 weights.
"""
INDEXES = "text2token_indexes"
"""The table that lists the indexes of a database."""
_COMMENTS = {
    "id": "Id of the document",
    "sparse": "Weights of tokens: literal and aligned; columns are numbered from 1",
    "tokens": "Columns of the largest weights in sparse, numbered from 0, for approximate search with filters",
    "bm25": "BM25 weights of words; idf comes with the query",
    "words": "Columns of the words in bm25, numbered from 0, for the search of words",
    "dense": "Embedding",
    "metadata": "Other columns of the document as text, for filters",
    "numbers": "Those of the other columns that are numbers",
}


TERMS: dict[FieldName, str] = {"sparse": "tokens", "bm25": "words"}
"""The column with the terms of a sparse field, by which its documents are found."""


class Table(NamedTuple):
    """The table of an index on one shard.

    Attributes:
        fields: Fields and the size of their vectors. The size of the BM25 field is 0, because its words grow in number.
        complete: Whether it has the schema of this version of text2token.
        approximate: Fields with an index for approximate search.
        posted: Whether sparse vectors have postings.
    """

    fields: dict[FieldName, int]
    complete: bool
    approximate: frozenset[FieldName]
    posted: bool


def read_table(connection: Connection[Any], name: str, shard: int, shards: int) -> Table | None:
    """Read what a shard holds of an index; None if it has no table.

    Raises:
        UserError: The table is of a later version, or belongs to another shard or another number of shards.
    """
    version = _version(connection, name)
    if not version:
        return None
    # as JSON, because a table of schema 1 or 2 may be in a list without the columns of schema 3
    ((listed,),) = connection.execute(f"SELECT to_jsonb(i) FROM {INDEXES} i WHERE name = %s", (name,)).fetchall()
    number, count, fields = listed["shard"], listed["shards"], listed["fields"]
    if version > len(_STEPS):
        raise UserError(
            f"The table '{name}' was made by a later version of text2token (schema {version}, not {len(_STEPS)}): "
            "update text2token."
        )
    if (number, count) != (shard, shards):
        raise UserError(
            f"Address {shard} of {shards} in `uri` leads to shard {number} of {count}: "
            f"give all {count} shards, in the order in which the index was made."
        )
    valid = connection.execute(
        "SELECT c.relname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "WHERE i.indrelid = to_regclass(%s) AND i.indisvalid",
        (name,),
    )
    there = {row[0] for row in valid}
    return Table(
        fields,
        version == len(_STEPS),
        frozenset(field for field in APPROXIMATE if _index_name(name, field) in there),
        listed.get("posted", 0) > 0,
    )


def upgrade_table(
    connection: Connection[Any], name: str, fields: Mapping[FieldName, int], shard: int, shards: int
) -> None:
    """Do the steps that a table lacks, in one transaction. At version 0 there is no table.

    Raises:
        UserError: The database has no pgvector, or too old a version of it.
    """
    with connection.transaction():
        connection.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", (INDEXES,))  # another index may be made now
        version = _version(connection, name)
        for step in _STEPS[version:]:
            step(connection, name, fields, shard, shards)
        connection.execute(f"UPDATE {INDEXES} SET version = %s WHERE name = %s", (len(_STEPS), name))


def _version(connection: Connection[Any], name: str) -> int:
    """Number of steps that a table has; 0 if it is not there, or was removed by hand."""
    (there,) = connection.execute(
        "SELECT to_regclass(%s) IS NOT NULL AND to_regclass(%s) IS NOT NULL", (INDEXES, name)
    ).fetchone() or (False,)
    found = connection.execute(f"SELECT version FROM {INDEXES} WHERE name = %s", (name,)).fetchone() if there else None
    return found[0] if found else 0


def build_index(connection: Connection[Any], name: str, field: FieldName, size: int) -> None:
    """Build the index for the approximate search of a field with vectors of a size. Searches go on meanwhile."""
    connection.execute(
        sql.SQL("CREATE INDEX IF NOT EXISTS {} ON {} USING {}").format(
            sql.Identifier(_index_name(name, field)),
            sql.Identifier(name),
            sql.SQL(APPROXIMATE[field].format(size=size)),
        )
    )


def postings_table(name: str) -> sql.Identifier:
    """The table with the postings of an index."""
    return sql.Identifier(f"{name}_postings")


def _index_name(name: str, field: FieldName) -> str:
    return f"{name}_{field}"


def _first(connection: Connection[Any], name: str, fields: Mapping[FieldName, int], shard: int, shards: int) -> None:
    """Schema 1: the list of indexes, and a table with one row for each document."""
    require_pgvector(connection)
    connection.execute(
        f"CREATE TABLE IF NOT EXISTS {INDEXES} (name text PRIMARY KEY, version int NOT NULL, shard int NOT NULL, "
        "shards int NOT NULL, fields jsonb NOT NULL, created timestamptz NOT NULL DEFAULT now())"
    )
    connection.execute(
        f"COMMENT ON TABLE {INDEXES} IS 'Indexes of text2token in this database: the table, the version of its schema, which "
        "shard it is, and its fields with the size of their vectors'"
    )
    types = {
        "id": 'text COLLATE "C" PRIMARY KEY',
        **{field: _TYPES[field].format(size) for field, size in fields.items()},
        **{column: "int[] NOT NULL" for field, column in TERMS.items() if field in fields},
        "metadata": "jsonb NOT NULL",
        "numbers": "jsonb NOT NULL",
    }
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(key), sql.SQL(kind)) for key, kind in types.items()
    )
    table = sql.Identifier(name)
    # A row of a few kilobytes stays in one piece: an exact search reads all rows, and would fetch each vector from elsewhere.
    connection.execute(sql.SQL("CREATE TABLE {} ({}) WITH (toast_tuple_target = 8160)").format(table, columns))
    for column in types:
        connection.execute(
            sql.SQL("COMMENT ON COLUMN {}.{} IS {}").format(table, sql.Identifier(column), _COMMENTS[column])
        )
    connection.execute(
        sql.SQL("COMMENT ON TABLE {} IS {}").format(
            table,
            f"Vectors of an index of text2token, shard {shard} of {shards}; the folder of the index holds the texts",
        )
    )
    for column, kind in {"words": "gin ({})", "metadata": "gin ({} jsonb_path_ops)"}.items():
        if column in types:
            how = sql.SQL(kind).format(sql.Identifier(column))
            connection.execute(
                sql.SQL("CREATE INDEX {} ON {} USING {}").format(sql.Identifier(f"{name}_{column}"), table, how)
            )
    connection.execute(
        f"INSERT INTO {INDEXES} (name, version, shard, shards, fields) VALUES (%s, 1, %s, %s, %s) "
        "ON CONFLICT (name) DO UPDATE SET shard = excluded.shard, shards = excluded.shards, fields = excluded.fields",
        (name, shard, shards, json.dumps(fields)),
    )


_TYPES: dict[FieldName, str] = {
    "sparse": "sparsevec({}) NOT NULL",
    "bm25": "sparsevec NOT NULL",
    "dense": "halfvec({}) NOT NULL",
}


def _second(connection: Connection[Any], name: str, fields: Mapping[FieldName, int], *_: int) -> None:
    """Schema 2: 32 bits a number in dense vectors. With 16 bits the order of near documents was another than in other engines."""
    if "dense" in fields:
        connection.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(_index_name(name, "dense"))))
        connection.execute(
            sql.SQL("ALTER TABLE {} ALTER COLUMN dense TYPE vector({})").format(
                sql.Identifier(name), sql.SQL(str(fields["dense"]))
            )
        )


def _third(connection: Connection[Any], name: str, fields: Mapping[FieldName, int], *_: int) -> None:
    """Schema 3: postings of sparse vectors. They have numbers of documents, because those are shorter than ids."""
    for column in ("last", "posted"):
        connection.execute(f"ALTER TABLE {INDEXES} ADD COLUMN IF NOT EXISTS {column} int NOT NULL DEFAULT 0")
    connection.execute(f"COMMENT ON COLUMN {INDEXES}.last IS 'Number of the last document with postings'")
    connection.execute(f"COMMENT ON COLUMN {INDEXES}.posted IS 'Documents that got postings'")
    if "sparse" not in fields:
        return
    for statement in (
        "ALTER TABLE {table} ADD COLUMN number int GENERATED ALWAYS AS IDENTITY",
        "COMMENT ON COLUMN {table}.number IS 'Number of the document in the postings'",
        "CREATE UNIQUE INDEX {number} ON {table} (number)",
        # a block is stored apart, so a search passes over those that it does not need
        "CREATE TABLE {postings} (token int NOT NULL, largest float4 NOT NULL, length int NOT NULL, "
        "block bytea STORAGE EXTERNAL NOT NULL) WITH (toast_tuple_target = 128)",
        "CREATE INDEX ON {postings} (token)",
        "COMMENT ON TABLE {postings} IS 'Inverted index of the sparse vectors: documents of each token, largest weights first'",
        "COMMENT ON COLUMN {postings}.token IS 'Column of the sparse vectors, numbered from 0'",
        "COMMENT ON COLUMN {postings}.largest IS 'Largest weight of the block'",
        "COMMENT ON COLUMN {postings}.length IS 'Number of postings of the block'",
        "COMMENT ON COLUMN {postings}.block IS 'Document (int32) and weight (float32) of each posting, little-endian'",
    ):
        connection.execute(
            sql.SQL(statement).format(
                table=sql.Identifier(name), postings=postings_table(name), number=sql.Identifier(f"{name}_number")
            )
        )


_STEPS: tuple[Callable[[Connection[Any], str, Mapping[FieldName, int], int, int], None], ...] = (
    _first,
    _second,
    _third,
)


def require_pgvector(connection: Connection[Any]) -> None:
    """Install pgvector in a database that lacks it.

    Raises:
        UserError: That is not possible, or the database has too old a version.
    """
    found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    if found is None:
        try:
            with connection.transaction():
                connection.execute("CREATE EXTENSION vector")
        except (errors.FeatureNotSupported, errors.UndefinedFile) as error:
            raise UserError(
                "The PostgreSQL server has no pgvector: install it there (https://github.com/pgvector/pgvector)."
            ) from error
        except errors.InsufficientPrivilege as error:
            raise UserError(
                "The database has no extension 'vector', and this role may not create it: "
                "ask its administrator for 'CREATE EXTENSION vector'."
            ) from error
        found = connection.execute("SELECT extversion FROM pg_extension WHERE extname = 'vector'").fetchone()
    version = found[0] if found else ""
    if tuple(map(int, version.split(".")[:2])) < MIN_PGVECTOR:
        wanted = ".".join(map(str, MIN_PGVECTOR))
        raise UserError(
            f"The database has pgvector {version}, and {wanted} is needed: update it and run 'ALTER EXTENSION vector UPDATE'."
        )
