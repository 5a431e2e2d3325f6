"""The Qdrant engine: a collection on a Qdrant server or cluster, which moves its own shards and replicas."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, get_args
from urllib.parse import quote

import numpy as np
from more_itertools import chunked, constrained_batches
from qdrant_client import QdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException
from scipy.sparse import csr_array

from text2token.search.engines.base import Matrix, ScoredId, best, check_fields, check_has_field
from text2token.search.filters import Filter, Metadata, number_values, text_values
from text2token.settings.search import FieldName
from text2token.utils.errors import UnavailableError, UserError, first_line

_BATCH = 256  # documents in a request
_WEIGHTS = 500_000  # weights in a request of several documents: some 15 MB of JSON; a server takes 32
_TIMEOUT = 60  # seconds for a request
_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_FAILURES = (QdrantException, ApiException)


def connect(uri: str, key: str | None = None) -> QdrantClient:
    """Make a client of a server.

    Args:
        uri: ``http://host:6333``.
        key: API key, if the server asks for one.
    """
    return QdrantClient(url=uri, api_key=key, timeout=_TIMEOUT, check_compatibility=False)


class QdrantEngine:
    """A collection with one named vector for each field; see :class:`text2token.search.engines.base.Engine`.

    The first :meth:`add` makes the collection. Sparse vectors have an exact inverted index. Dense hits are as approximate as the
    server's HNSW index.

    Differences from the protocol: if several hits tie for the last place, the server chooses among them; a document is a hit in a
    sparse field if its score is above 0; ``<`` and ``>`` compare numbers and ISO dates, and no other texts.

    Raises:
        UnavailableError: By every method: the server cannot be reached, or refuses a request.
        UserError: By every method: it has a collection of another kind.
    """

    in_process = False
    max_id_bytes: int | None = None

    def __init__(self, client: QdrantClient, collection: str, place: str) -> None:
        """Read the fields of the collection if it exists.

        Args:
            client: Client of a server; see :func:`connect`.
            collection: Name of the collection.
            place: What messages call the server.
        """
        self._client, self._name, self._place = client, collection, place
        self._fields: dict[FieldName, int] = {}
        self.follow()

    def check(self) -> None:
        """Nothing to do: the server was asked when the engine was opened."""

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """See the protocol. Documents are sent in batches; after an interruption add them again."""
        fields: dict[FieldName, int] = {
            field: rows.shape[1] if field == "dense" else 0 for field, rows in vectors.items()
        }
        with self._user_errors():
            if not self._fields:
                self._create(fields)
            check_fields(f"The collection '{self._name}'", self._fields, fields, "choose another name")
            last, sizes = {name: row for row, name in enumerate(ids)}, _sizes(vectors)
            for batch in constrained_batches(last.items(), _WEIGHTS, _BATCH, lambda item: sizes[item[1]], strict=False):
                points = [
                    models.PointStruct(
                        id=_point(name),
                        vector={
                            field: value
                            for field in vectors
                            if (value := _vector(field, vectors[field][[row]])) is not None
                        },
                        payload={"id": name, **_payload(metadata[row] if metadata else {})},
                    )
                    for name, row in batch
                ]
                self._client.upsert(self._name, points, wait=True)

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        with self._user_errors():
            for batch in chunked(ids if self._fields else [], _BATCH):
                points = models.PointIdsList(points=[_point(name) for name in batch])
                self._client.delete(self._name, points, wait=True)

    def follow(self) -> None:
        """See the protocol. The server is asked until there is a collection."""
        if not self._fields:
            with self._user_errors():
                self._fields = self._read_fields()

    def finish(self) -> None:
        """Nothing to do: the server builds its indexes itself."""

    def search(
        self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = (), lost: list[str] | None = None
    ) -> list[ScoredId]:
        """See the protocol; the class documents the differences."""
        if not self._fields:
            return []
        check_has_field(f"The collection '{self._name}'", self._fields, field)
        vector = _vector(field, query)
        if vector is None:
            return []
        conditions = models.Filter(must=list(map(_condition, filters))) if filters else None
        with self._user_errors():
            found = self._client.query_points(
                self._name, vector, using=field, query_filter=conditions, limit=k, with_payload=["id"]
            )
        hits = [ScoredId(point.payload["id"], point.score) for point in found.points if point.payload]
        return best([hit for hit in hits if field == "dense" or hit.score > 0], k)

    def count(self, lost: list[str] | None = None) -> int:
        """See the protocol."""
        if not self._fields:
            return 0
        with self._user_errors():
            return self._client.count(self._name, exact=True).count

    def close(self) -> None:
        """See the protocol."""
        self._client.close()

    def _create(self, fields: dict[FieldName, int]) -> None:
        dense: dict[str, models.VectorParams] = {
            field: models.VectorParams(size=size, distance=models.Distance.DOT)
            for field, size in fields.items()
            if size
        }
        others: dict[str, models.SparseVectorParams] = {
            field: models.SparseVectorParams() for field, size in fields.items() if not size
        }
        self._client.create_collection(self._name, vectors_config=dense, sparse_vectors_config=others)
        self._fields = fields

    def _read_fields(self) -> dict[FieldName, int]:
        """The fields of the collection, with their dimension if dense and 0 if sparse; none if there is no collection."""
        if not self._client.collection_exists(self._name):
            return {}
        kept = self._client.get_collection(self._name).config.params
        dense = kept.vectors if isinstance(kept.vectors, dict) else {}
        fields: dict[Any, int] = {name: vector.size for name, vector in dense.items()}
        fields |= dict.fromkeys(kept.sparse_vectors or {}, 0)
        if not fields or fields.keys() - get_args(FieldName):
            raise UserError(f"The collection '{self._name}' was not made by text2token: choose another name.")
        return fields

    @contextmanager
    def _user_errors(self) -> Iterator[None]:
        try:
            yield
        except _FAILURES as error:
            said = first_line(error).rstrip(".:")
            raise UnavailableError(
                f"Qdrant at {self._place}: {said}. Check that it runs, or give another `uri`."
            ) from error


def _point(name: str) -> str:
    """The id of a document in the form that Qdrant takes."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, name))


def _sizes(vectors: Mapping[FieldName, Matrix]) -> list[int]:
    """How many weights each document has in all fields."""
    each = [np.diff(rows.indptr) if isinstance(rows, csr_array) else np.full(*rows.shape) for rows in vectors.values()]
    return np.sum(each, axis=0).tolist()


def _vector(field: FieldName, row: Matrix) -> Any:
    """One row in the form of the client; None for a sparse row without weights."""
    if field == "dense":
        return row[0].tolist()
    kept = csr_array(row, copy=True)
    kept.eliminate_zeros()
    return models.SparseVector(indices=kept.indices.tolist(), values=kept.data.tolist()) if kept.nnz else None


def _payload(metadata: Metadata) -> dict[str, dict[str, Any]]:
    """Metadata as text, and as numbers where they are numbers."""
    quoted = {quote(name): value for name, value in metadata.items()}
    return {"metadata": text_values(quoted), "numbers": number_values(quoted)}


def _condition(condition: Filter) -> models.FieldCondition:
    """A filter in the language of Qdrant, which quotes a name that is not a word."""
    column, number = f'"{quote(condition.column)}"', condition.number
    if condition.operator == "=":
        return models.FieldCondition(key=f"metadata.{column}", match=models.MatchValue(value=condition.value))
    bound = _RANGES[condition.operator]
    if number is not None:
        return models.FieldCondition(key=f"numbers.{column}", range=models.Range(**{bound: number}))
    try:
        date = datetime.fromisoformat(condition.value)
    except ValueError:
        raise UserError(
            f"Qdrant compares numbers and dates such as 2021-06-01, and '{condition.value}' is neither: use '=', "
            "or another engine."
        ) from None
    return models.FieldCondition(key=f"metadata.{column}", range=models.DatetimeRange(**{bound: date}))
