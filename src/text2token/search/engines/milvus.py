"""The Milvus engine: a collection on a Milvus server, for more than one machine, or in a file of milvus-lite."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from more_itertools import chunked
from pymilvus import DataType, MilvusClient, MilvusException

from text2token.search.engines.base import Matrix, ScoredId, best, check_fields, check_has_field
from text2token.search.filters import Filter, Metadata, number_values, text_values
from text2token.settings.search import FieldName
from text2token.utils.errors import UnavailableError, UserError

_BATCH = 500  # documents in a request: a few megabytes; gRPC allows 64
_TIMEOUT = 60.0  # seconds for a request
_MAX_HITS = 16_384  # Milvus' limit for a request
_MAX_ID_BYTES = 65_535  # Milvus' limit
_METADATA = "metadata"
_METRIC = {"metric_type": "IP"}
_EMPTY = {2**32 - 2: 1.0}  # replaces an empty sparse vector, which Milvus refuses; no query has this column
_TYPES = {
    field: DataType.FLOAT_VECTOR if field == "dense" else DataType.SPARSE_FLOAT_VECTOR for field in get_args(FieldName)
}

for _logger in ("pymilvus", "milvus_lite"):  # they log every error that they raise, with its traceback
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class MilvusEngine:
    """A collection with one vector field for each field of the index; see :class:`text2token.search.engines.base.Engine`.

    The first :meth:`add` makes the collection. Dense vectors have the index ``AUTOINDEX`` on a server, which chooses one, so that
    dense hits are approximate; in a file of milvus-lite they are exact. Sparse vectors have an exact inverted index. The
    consistency level is ``Strong``: a search sees every addition that has returned.

    Differences from the protocol: if several hits tie for the last place, the server chooses among them; a search returns at most
    16,384 hits; the server refuses negative sparse weights.

    Raises:
        UnavailableError: By every method: the server cannot be reached, or refuses a request.
        UserError: By every method: it has a collection of another kind.
    """

    in_process = False
    max_id_bytes: int | None = _MAX_ID_BYTES

    def __init__(self, uri: str, collection: str = "text2token", token: str = "") -> None:
        """Connect, and read the fields of the collection if it exists.

        Args:
            uri: Address of a server (``http://localhost:19530``), or a path that ends in ``.db`` for milvus-lite.
            collection: Name of the collection: letters, digits and underscores.
            token: ``user:password`` or an API key, if the server asks for one.
        """
        self._name = collection
        self._place = f"Milvus at {uri}"
        self._in_file = uri.endswith(".db")
        with self._user_errors():
            self._client = MilvusClient(uri, token=token, timeout=_TIMEOUT)
        self._fields: dict[FieldName, int] = {}
        self.follow()

    def check(self) -> None:
        """Nothing to do: the server was asked when the engine was opened."""

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """See the protocol. Documents are sent in batches; after an interruption add them again."""
        fields = {field: rows.shape[1] if field == "dense" else 0 for field, rows in vectors.items()}
        with self._user_errors():
            if not self._fields:
                self._create(fields)
            check_fields(f"The collection '{self._name}'", self._fields, fields, "choose another name")
            last = {name: row for row, name in enumerate(ids)}
            for batch in chunked(last.items(), _BATCH):
                names, rows = zip(*batch, strict=True)
                columns = [_values(field, matrix[list(rows)]) for field, matrix in vectors.items()]
                keys = ["id", *vectors]
                if self._has_metadata:
                    keys.append(_METADATA)
                    columns.append([_metadata_value(metadata[row] if metadata else {}) for row in rows])
                documents = [dict(zip(keys, values, strict=True)) for values in zip(names, *columns, strict=True)]
                self._client.upsert(self._name, documents, timeout=_TIMEOUT)
            if self._in_file:  # otherwise milvus-lite would index these documents again at every search
                self._client.flush(self._name, timeout=_TIMEOUT)

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        with self._user_errors():
            for batch in chunked(ids if self._fields else [], _BATCH):
                named = json.dumps(batch, ensure_ascii=False)
                self._client.delete(self._name, filter=f"id in {named}", timeout=_TIMEOUT)

    def follow(self) -> None:
        """See the protocol. The server is asked until there is a collection."""
        if not self._fields:
            with self._user_errors():
                self._fields, self._has_metadata = self._read_fields()

    def finish(self) -> None:
        """Nothing to do: the server builds its indexes itself."""

    def search(
        self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = (), lost: list[str] | None = None
    ) -> list[ScoredId]:
        """See the protocol; the class documents the differences."""
        if not self._fields:
            return []
        check_has_field(f"The collection '{self._name}'", self._fields, field)
        (value,) = _values(field, query)
        if value is _EMPTY:
            return []
        if filters and not self._has_metadata:
            raise UserError(
                f"The collection '{self._name}' was made by an earlier version and has no metadata: make the index again."
            )
        limit = min(k, _MAX_HITS)
        condition = " and ".join(map(_expression, filters))
        with self._user_errors():
            (found,) = self._client.search(
                self._name, [value], filter=condition, anns_field=field, limit=limit, search_params=_METRIC,
                output_fields=["id"], timeout=_TIMEOUT,
            )  # fmt: skip
        return best([ScoredId(hit["id"], hit["distance"]) for hit in found], k)

    def count(self, lost: list[str] | None = None) -> int:
        """See the protocol."""
        if not self._fields:
            return 0
        with self._user_errors():
            (row,) = self._client.query(self._name, filter="", output_fields=["count(*)"], timeout=_TIMEOUT)
            return int(row["count(*)"])

    def close(self) -> None:
        """See the protocol."""
        self._client.close()

    def _create(self, fields: dict[FieldName, int]) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_MAX_ID_BYTES)
        schema.add_field(_METADATA, DataType.JSON)
        indexes = MilvusClient.prepare_index_params()
        dense = "FLAT" if self._in_file else "AUTOINDEX"
        for field, size in fields.items():
            schema.add_field(field, _TYPES[field], **({"dim": size} if size else {}))
            indexes.add_index(field, index_type=dense if size else "SPARSE_INVERTED_INDEX", **_METRIC)
        self._client.create_collection(self._name, schema=schema, consistency_level="Strong", timeout=_TIMEOUT)
        self._client.create_index(self._name, indexes, sync=False, timeout=_TIMEOUT)  # load_collection waits for it
        self._client.load_collection(self._name, timeout=_TIMEOUT)
        self._fields, self._has_metadata = fields, True

    def _read_fields(self) -> tuple[dict[FieldName, int], bool]:
        """The fields of the collection, with their dimension if dense and 0 if sparse, and whether it has metadata.

        There are no fields if there is no collection.
        """
        if not self._client.has_collection(self._name, timeout=_TIMEOUT):
            return {}, False
        found = self._client.describe_collection(self._name, timeout=_TIMEOUT)["fields"]
        types = {column["name"]: column["type"] for column in found}
        has_metadata = types.pop(_METADATA, None) == DataType.JSON
        if types.pop("id", None) != DataType.VARCHAR or any(types[name] != _TYPES.get(name) for name in types):
            raise UserError(
                f"The collection '{self._name}' was not made by text2token (its fields are {', '.join(types)}): "
                "choose another name."
            )
        self._client.load_collection(self._name, timeout=_TIMEOUT)
        fields = {column["name"]: int(column["params"].get("dim", 0)) for column in found if column["name"] in _TYPES}
        return fields, has_metadata

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as error:
            said = " ".join(error.message.split())
            advice = "that no other process has it open" if self._in_file else "that it runs"
            raise UnavailableError(
                f"{self._place}: {said.rstrip('.')}. Check {advice}, or give another `uri`."
            ) from error


def _values(field: FieldName, rows: Any) -> list[Any]:
    """Vectors in the form of the client: lists of floats, or weights by column."""
    if field == "dense":
        return rows.tolist()
    pieces = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    weights = (dict(zip(rows.indices[a:b].tolist(), rows.data[a:b].tolist(), strict=True)) for a, b in pieces)
    return [row if any(row.values()) else _EMPTY for row in weights]


def _metadata_value(metadata: Metadata) -> dict[str, dict[str, Any]]:
    """Metadata as text, and as numbers where they are numbers."""
    return {"text": text_values(metadata), "number": number_values(metadata)}


def _expression(condition: Filter) -> str:
    """A filter in the language of Milvus."""
    number = condition.number
    kind, value = ("text", condition.value) if number is None else ("number", number)
    operator = "==" if condition.operator == "=" else condition.operator
    column = json.dumps(condition.column, ensure_ascii=False)
    return f'{_METADATA}["{kind}"][{column}] {operator} {json.dumps(value, ensure_ascii=False)}'
