"""The file of a shard: a Parquet table with a row for each document."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from more_itertools import sliced
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.search.batches import Batch, Embedded
from text2token.search.documents import Document
from text2token.utils.errors import UserError, first_line
from text2token.utils.places import explain_unreachable

_FACTS = b"text2token"  # key of the facts in the metadata of the table
_ROW_GROUP = 1024  # documents that a reader decodes at once
_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "title": pa.string(),
        "text": pa.string(),
        "metadata": pa.string(),  # JSON
        "tokens": pa.list_(pa.int32()),  # vocabulary entries that occur in the document
        "counts": pa.list_(pa.int32()),  # how often each of them does
        "embeddings": pa.list_(pa.float32()),  # those of its parts, one after the other
    }
)


def table_bytes(batch: Batch, facts: Mapping[str, Any]) -> memoryview:
    """Return the file of a shard; every page has a checksum.

    Args:
        batch: The documents with their token counts and embeddings.
        facts: What the file says about itself, as JSON.
    """
    file = io.BytesIO()
    schema = _SCHEMA.with_metadata({_FACTS: json.dumps(facts, sort_keys=True)})
    with pq.ParquetWriter(file, schema, compression="zstd", write_page_checksum=True) as writer:
        for places in sliced(range(len(batch.documents)), _ROW_GROUP):
            writer.write_table(pa.table(_columns(batch.select(places)), schema=schema))
    return file.getbuffer()


def _columns(batch: Batch) -> dict[str, Any]:
    if batch.tokens is None or batch.embedded is None:
        raise ValueError("A shard holds token counts and embeddings, and this batch has none.")
    ids, titles, texts, metadata = zip(*batch.documents, strict=True)
    rows = batch.embedded.rows.numpy()
    ends = np.cumsum(np.bincount(batch.embedded.owners, minlength=len(ids))) * rows.shape[1]
    return {
        "id": ids,
        "title": titles,
        "text": texts,
        "metadata": [json.dumps(dict(own), ensure_ascii=False) for own in metadata],
        "tokens": _lists(batch.tokens.indptr, batch.tokens.indices),
        "counts": _lists(batch.tokens.indptr, batch.tokens.data),
        "embeddings": pa.ListArray.from_arrays(np.append(0, ends).astype(np.int32), rows.ravel()),
    }


def _lists(starts: NDArray[Any], values: NDArray[Any]) -> pa.ListArray:
    return pa.ListArray.from_arrays(starts.astype(np.int32), values.astype(np.int32))


def read_facts(file: Path) -> Any:
    """Return what the file of a shard says about itself.

    Raises:
        UserError: The file is damaged.
    """
    with _opened(file) as table:
        return json.loads(table.schema_arrow.metadata[_FACTS])


def read_batches(file: Path, size: int, width: int, dimension: int | None) -> Iterator[Batch]:
    """Yield the documents of a shard in order.

    Args:
        file: The file.
        size: Documents in a batch.
        width: V, columns of the token counts.
        dimension: d, numbers in an embedding; None: leave the embeddings out, which is faster.

    Raises:
        UserError: The file is damaged.
    """
    columns = [name for name in _SCHEMA.names if dimension is not None or name != "embeddings"]
    with _opened(file) as table:
        for rows in table.iter_batches(size, columns=columns):
            texts = [rows[name].to_pylist() for name in ("id", "title", "text")]
            metadata = map(json.loads, rows["metadata"].to_pylist())
            documents = [Document(*own) for own in zip(*texts, metadata, strict=True)]
            starts, tokens = _flat(rows["tokens"])
            counts = _flat(rows["counts"])[1].astype(np.float32)
            matrix = csr_array((counts, tokens, starts), shape=(len(documents), width))
            embedded = None if dimension is None else _embedded(rows["embeddings"], dimension)
            yield Batch(documents, matrix, embedded)


def _flat(lists: pa.ListArray) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Where each list starts, and all values."""
    starts = lists.offsets.to_numpy().astype(np.int64)
    return starts - starts[0], lists.flatten().to_numpy(zero_copy_only=False)


def _embedded(lists: pa.ListArray, dimension: int) -> Embedded:
    starts, values = _flat(lists)
    rows = torch.from_numpy(values.reshape(-1, dimension).copy())
    return Embedded(rows, np.repeat(np.arange(len(lists)), np.diff(starts) // dimension))


@contextmanager
def _opened(file: Path) -> Iterator[pq.ParquetFile]:
    try:
        with (
            explain_unreachable(file),
            file.open("rb") as stream,
            pq.ParquetFile(stream, page_checksum_verification=True) as table,
        ):
            yield table
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.filename):
            raise
        raise UserError(
            f"The shard '{file}' is damaged ({first_line(error)}): delete it and encode it again."
        ) from error
