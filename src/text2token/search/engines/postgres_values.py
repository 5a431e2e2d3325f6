"""The columns of a table in the forms that PostgreSQL and pgvector read: binary for many documents, text for one query."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from struct import pack
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.search.engines.base import Matrix
from text2token.search.filters import Metadata, number_values, text_values
from text2token.settings.search import FieldName

WORDS = 10**9
"""Columns of a BM25 vector, whose words grow in number: pgvector's largest size, because two vectors must have the same."""
MAX_SPARSE = 16_000  # non-zeros of a sparsevec
DOCUMENT_TOKENS = 32
"""A sparse search with filters scores documents that have a token of the query among so many strongest ones of their own."""
_INT4 = 23  # PostgreSQL's number for the type


def vector_columns(field: FieldName, rows: Matrix) -> dict[str, Iterable[bytes]]:
    """The columns of a table that a field fills, in binary form."""
    if field == "dense":
        return {"dense": dense_binary(rows)}
    kept = strongest(csr_array(rows), MAX_SPARSE)
    if field == "sparse":
        return {
            "sparse": _sparse_binary(kept, rows.shape[1]),
            "tokens": _terms_binary(strongest(kept, DOCUMENT_TOKENS)),
        }
    return {"bm25": _sparse_binary(kept, WORDS), "words": _terms_binary(kept)}


def metadata_columns(values: Sequence[Metadata]) -> dict[str, Iterable[bytes]]:
    """The columns of a table that metadata fills, in binary form: as text, and as numbers where they are numbers."""
    return {
        "metadata": map(_json_binary, map(text_values, values)),
        "numbers": map(_json_binary, map(number_values, values)),
    }


def strongest(rows: csr_array, number: int) -> csr_array:
    """Rows in canonical form with at most ``number`` weights each: the largest, and no zeros."""
    kept = csr_array(rows, copy=True)
    kept.sum_duplicates()
    kept.eliminate_zeros()
    for start, end in zip(kept.indptr[:-1], kept.indptr[1:], strict=True):
        if end - start > number:
            kept.data[start:end][np.argsort(-kept.data[start:end], kind="stable")[number:]] = 0
    kept.eliminate_zeros()
    return kept


def _sparse_binary(rows: csr_array, width: int) -> Iterator[bytes]:
    """Each row as pgvector's ``sparsevec``: size, number of weights, columns from 0, weights. Rows are in canonical form."""
    columns, weights = rows.indices.astype(">i4"), rows.data.astype(">f4")
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        yield pack(">iii", width, end - start, 0) + columns[start:end].tobytes() + weights[start:end].tobytes()


def _terms_binary(rows: csr_array) -> Iterator[bytes]:
    """The columns of each row as an ``int[]``: dimensions, no nulls, type, size, first index; then each length and value."""
    values = np.stack([np.full_like(rows.indices, 4), rows.indices], axis=1).astype(">i4")
    for start, end in zip(rows.indptr[:-1], rows.indptr[1:], strict=True):
        head = pack(">iiiii", 1, 0, _INT4, end - start, 1) if end > start else pack(">iii", 0, 0, _INT4)
        yield head + values[start:end].tobytes()


def dense_binary(rows: Matrix) -> Iterator[bytes]:
    """Each row as pgvector's ``vector``: size, then 32 bits a number."""
    for row in np.asarray(rows).astype(">f4"):
        yield pack(">HH", len(row), 0) + row.tobytes()


def _json_binary(value: Metadata) -> bytes:
    return b"\x01" + json.dumps(value, ensure_ascii=False).encode()  # the version of the format, then text


def query_text(field: FieldName, query: Matrix) -> str:
    """The vector of a query in the text form of its type; of a sparse field one row as :func:`strongest` returns it.

    pgvector's text numbers the columns from 1.
    """
    if field == "dense":
        return str(np.asarray(query)[0].tolist())
    row = csr_array(query)
    pairs = zip((row.indices + 1).tolist(), row.data.tolist(), strict=True)
    width = WORDS if field == "bm25" else query.shape[1]
    return f"{{{','.join(f'{column}:{weight}' for column, weight in pairs)}}}/{width}"


def array_text(values: NDArray[Any]) -> str:
    """Numbers in the text form of an array. psycopg looks at each item of a list, which takes longer than the text."""
    return f"{{{','.join(map(str, values.tolist()))}}}"
