"""The protocol of an engine. An engine keeps the vectors of documents by id, and ranks documents in one field for a query."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName
from text2token.utils.errors import UnavailableError, UserError

Matrix: TypeAlias = csr_array | NDArray[np.float32]
"""Vectors of N texts, one row each: an array for the dense field, a sparse matrix in CSR form for the other fields."""


class LostShardError(UnavailableError):
    """No server of a shard answers."""


class ScoredId(NamedTuple):
    """The id of a document and its score; a larger score is better.

    Attributes:
        id: Id of the document.
        score: Score of the document.
        shares: What each field contributed to a fused score; empty in a search of one field.
    """

    id: str
    score: float
    shares: Mapping[FieldName, float] = MappingProxyType({})


def best(hits: Sequence[ScoredId], k: int) -> list[ScoredId]:
    """The ``k`` hits with the largest scores. Equal scores are ordered by id."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.id))[:k]


def described(fields: Mapping[FieldName, int]) -> str:
    """Fields and their dimensions in words, for messages. A size of 0 is left out."""
    return " and ".join(f"{field} of {size} dimensions" if size else field for field, size in sorted(fields.items()))


def check_fields(place: str, held: Mapping[FieldName, int], given: Mapping[FieldName, int], advice: str) -> None:
    """Check that vectors have the fields and dimensions of a collection.

    Args:
        place: What messages call the collection.
        held: Its fields, with their dimensions.
        given: Those of the vectors.
        advice: What the message tells the user to do.

    Raises:
        UserError: They differ.
    """
    if given != held:
        raise UserError(f"{place} holds {described(held)}, not {described(given)}: {advice}.")


def check_has_field(place: str, held: Mapping[FieldName, int], field: FieldName) -> None:
    """Check that a collection can be searched in a field; the arguments are those of :func:`check_fields`.

    Raises:
        UserError: It has no such field.
    """
    if field not in held:
        raise UserError(f"{place} has no {field} field, only {described(held)}.")


class Engine(Protocol):
    """Keeps vectors and searches them. A score is the inner product of a query vector and a document vector.

    Every method raises an ``UnavailableError`` if the server of the engine does not answer or refuses a request.

    Attributes:
        in_process: Whether a search computes in this process. Several fields are then searched at the same time, in threads.
        max_id_bytes: Largest size of an id in UTF-8; None: any.
    """

    in_process: bool
    max_id_bytes: int | None

    def check(self) -> None:
        """Check that documents can be added, before a long work begins.

        Raises:
            UnavailableError: The engine's server does not answer.
            UserError: It lacks something.
        """

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """Add documents, or replace those whose id is known. Of an id that is given twice the last one counts.

        When this returns, a killed process loses none of them.

        Args:
            ids: N ids.
            vectors: Vectors of all fields, N rows each.
            metadata: Values of each document that filters compare; None: no document has any.
        """

    def delete(self, ids: Sequence[str]) -> None:
        """Delete documents. Unknown ids are ignored."""

    def follow(self) -> None:
        """Take up what other processes have written since the engine was opened, or since this was called last."""

    def finish(self) -> None:
        """Prepare added documents for fast searches. Call it once after many additions."""

    def search(
        self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = (), lost: list[str] | None = None
    ) -> list[ScoredId]:
        """The ``k`` best documents of one field that meet all filters, best first. Equal scores are ordered by id.

        In the sparse and BM25 fields a document that shares no term with the query is not a hit.

        Args:
            field: The field to search.
            query: Vector of the query, one row.
            k: Largest number of hits.
            filters: Conditions on the metadata. They are applied before documents are ranked.
            lost: Ask for a partial answer if a shard does not answer: its name is added to this list. None: that is an error.
        """

    def count(self, lost: list[str] | None = None) -> int:
        """Number of documents.

        Args:
            lost: As in :meth:`search`: count without the shards that do not answer.
        """

    def close(self) -> None:
        """Close connections. The engine cannot be used afterwards."""
