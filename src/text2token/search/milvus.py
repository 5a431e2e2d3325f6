"""An engine beyond one machine: a collection of Milvus, or of milvus-lite, its small double in a file."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from more_itertools import chunked
from pymilvus import AnnSearchRequest, DataType, MilvusClient, MilvusException, RRFRanker

from text2token.search.engine import Hit, Rows, best
from text2token.search.fusion import RANK_OFFSET
from text2token.settings.search import Side
from text2token.utils.errors import UserError

_BATCH = 500  # documents per request: a few megabytes, where gRPC takes 64
_TIMEOUT = 60.0  # seconds per request
_MOST_HITS = 16_384  # of one request, Milvus' own limit
_LONGEST_ID = 65_535  # bytes, Milvus' own limit
_METRIC = {"metric_type": "IP"}
_EMPTY = {
    2**32 - 2: 1.0
}  # Milvus takes no empty sparse vector: one of a dimension that no query has, the last it knows

for _logger in ("pymilvus", "milvus_lite"):  # they log, with a traceback, every error that they raise
    logging.getLogger(_logger).setLevel(logging.CRITICAL)


class MilvusEngine:
    """All sides as fields of one collection; see :class:`~text2token.search.engine.RankFusingEngine`.

    The collection is made at the first :meth:`add`, with the sides that come: float vectors (``AUTOINDEX``: the server chooses,
    HNSW in milvus-lite, so that dense hits are approximate) and sparse float vectors (inverted index, exact), all with inner
    products, read at the consistency level ``Strong``: a search sees every add that has returned.

    What differs from the protocol: of equal hits at the very end of a ranking, which ones are in it is the server's choice;
    a search gives 16,384 hits at most; sparse weights may not be negative (the server refuses them).

    Raises:
        UserError: By every method: no server there, a collection of another kind, whatever the server refuses.
    """

    def __init__(self, uri: str, collection: str = "text2token", token: str = "") -> None:
        """Connect, and read what the collection holds if there is one.

        Args:
            uri: Of a server (``http://localhost:19530``), or a path that ends in ``.db`` for milvus-lite.
            collection: Its name: letters, digits and underscores.
            token: ``user:password`` or an API key, where the server asks for one.
        """
        self._name = collection
        self._place = f"Milvus at {uri}"
        self._in_file = uri.endswith(".db")
        with self._one_sentence():
            self._client = MilvusClient(uri, token=token, timeout=_TIMEOUT)
            self._fields = self._read_fields()

    def add(self, ids: Sequence[str], vectors: Mapping[Side, Rows]) -> None:
        """See the protocol. Sent in bounded batches; cut off in between, what has been sent stays, and adding again mends it."""
        fields = {side: rows.shape[1] if side == "dense" else 0 for side, rows in vectors.items()}
        with self._one_sentence():
            if not self._fields:
                self._create(fields)
            if fields != self._fields:
                raise UserError(
                    f"Collection '{self._name}' holds {_described(self._fields)}, not {_described(fields)}: name another one."
                )
            last = {name: row for row, name in enumerate(ids)}
            for batch in chunked(last.items(), _BATCH):
                names, rows = zip(*batch, strict=True)
                columns = [_values(side, matrix[list(rows)]) for side, matrix in vectors.items()]
                documents = [
                    dict(zip(["id", *vectors], document, strict=True)) for document in zip(names, *columns, strict=True)
                ]
                self._client.upsert(self._name, documents, timeout=_TIMEOUT)
            if (
                self._in_file
            ):  # milvus-lite makes an index of what it has not flushed at every search; a server need not be told
                self._client.flush(self._name, timeout=_TIMEOUT)

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        with self._one_sentence():
            for batch in chunked(ids if self._fields else [], _BATCH):
                named = json.dumps(batch, ensure_ascii=False)
                self._client.delete(self._name, filter=f"id in {named}", timeout=_TIMEOUT)

    def finish(self) -> None:
        """Nothing: the server sees to it."""

    def search(self, side: Side, query: Rows, k: int) -> list[Hit]:
        """See the protocol, and the class for what differs."""
        if (value := self._value(side, query)) is None:
            return []
        limit = min(k, _MOST_HITS)
        with self._one_sentence():
            (found,) = self._client.search(
                self._name, [value], anns_field=side, limit=limit, search_params=_METRIC, output_fields=["id"], timeout=_TIMEOUT
            )  # fmt: skip
        return best([Hit(hit["id"], hit["distance"]) for hit in found], k)

    def hybrid(self, query: Mapping[Side, Rows], k: int, depth: int) -> list[Hit]:
        """See the protocol. One request (``RRFRanker``); Milvus' rankers know no weights for ranks, and squash scores by an arc
        tangent, where ours divide by the best: so all other fusion is not the server's.
        """
        values = {side: self._value(side, rows) for side, rows in query.items()}
        asked = {side: value for side, value in values.items() if value is not None}
        if not asked:
            return []
        requests = [AnnSearchRequest([value], side, _METRIC, min(depth, _MOST_HITS)) for side, value in asked.items()]
        limit = min(depth * len(requests), _MOST_HITS)  # all of them: the server orders equal ones as it likes
        with self._one_sentence():
            (found,) = self._client.hybrid_search(
                self._name, requests, RRFRanker(RANK_OFFSET), limit=limit, output_fields=["id"], timeout=_TIMEOUT
            )
        return best([Hit(hit["id"], hit["distance"]) for hit in found], k)

    def count(self) -> int:
        """See the protocol."""
        if not self._fields:
            return 0
        with self._one_sentence():
            (row,) = self._client.query(self._name, filter="", output_fields=["count(*)"], timeout=_TIMEOUT)
            return int(row["count(*)"])

    def _value(self, side: Side, query: Rows) -> Any:
        """A query as the client takes it; None: it finds nothing."""
        if not self._fields:
            return None
        if side not in self._fields:
            raise UserError(f"Collection '{self._name}' has no {side} side, only {_described(self._fields)}.")
        (value,) = _values(side, query)
        return None if value is _EMPTY else value

    def _create(self, fields: dict[Side, int]) -> None:
        schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=_LONGEST_ID)
        indexes = MilvusClient.prepare_index_params()
        for side, size in fields.items():
            if size:
                schema.add_field(side, DataType.FLOAT_VECTOR, dim=size)
            else:
                schema.add_field(side, DataType.SPARSE_FLOAT_VECTOR)
            indexes.add_index(side, index_type="AUTOINDEX" if size else "SPARSE_INVERTED_INDEX", **_METRIC)
        self._client.create_collection(self._name, schema=schema, consistency_level="Strong", timeout=_TIMEOUT)
        self._client.create_index(self._name, indexes, sync=False, timeout=_TIMEOUT)  # loading waits for them
        self._client.load_collection(self._name, timeout=_TIMEOUT)
        self._fields = fields

    def _read_fields(self) -> dict[Side, int]:
        """Sides of the collection, with the dimensions of a dense one and 0 for others; none if it is not there."""
        if not self._client.has_collection(self._name, timeout=_TIMEOUT):
            return {}
        found = self._client.describe_collection(self._name, timeout=_TIMEOUT)["fields"]
        types = {field["name"]: field["type"] for field in found}
        if types.pop("id", None) != DataType.VARCHAR or any(types[name] != _TYPES.get(name) for name in types):
            raise UserError(
                f"Collection '{self._name}' is not one of ours (fields {', '.join(types)}): name another one."
            )
        self._client.load_collection(self._name, timeout=_TIMEOUT)
        return {field["name"]: int(field["params"].get("dim", 0)) for field in found if field["name"] != "id"}

    @contextmanager
    def _one_sentence(self) -> Iterator[None]:
        try:
            yield
        except MilvusException as error:
            said = " ".join(error.message.split())
            advice = "no other process has it open" if self._in_file else "it runs"
            raise UserError(f"{self._place}: {said.rstrip('.')}. Check that {advice}, or name another URI.") from error


_TYPES = {side: DataType.FLOAT_VECTOR if side == "dense" else DataType.SPARSE_FLOAT_VECTOR for side in get_args(Side)}


def _values(side: Side, rows: Any) -> list[Any]:
    """Vectors as the client takes them: lists of floats, or weights by dimension."""
    if side == "dense":
        return rows.tolist()
    pieces = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    weights = (dict(zip(rows.indices[a:b].tolist(), rows.data[a:b].tolist(), strict=True)) for a, b in pieces)
    return [row if any(row.values()) else _EMPTY for row in weights]


def _described(fields: Mapping[Side, int]) -> str:
    return " and ".join(f"{side} of {size} dimensions" if size else side for side, size in sorted(fields.items()))
