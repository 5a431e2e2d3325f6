"""Write the vectors of a corpus to a file, in the order of its texts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from more_itertools import peekable
from numpy.typing import NDArray
from torch import Tensor

from text2token.data.corpus import Corpus
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.utils.progress import track
from text2token.utils.run_folder import RunFolder

_CHUNK = 1024  # texts in a file of the work folder; a kill loses at most one chunk, about a minute on a laptop


def encode_file(
    embedder: Embedder,
    texts: Sequence[str],
    output: Path,
    *,
    sparse: bool = False,
    batch_size: int = 32,
    overwrite: bool = False,
    progress: bool = False,
) -> None:
    """Write the vectors of ``texts`` to a file; a killed call continues when it is repeated.

    Vectors go to disk chunk by chunk, so memory holds the texts and one chunk.

    Args:
        embedder: Sparse vectors need its decoding head and corpus mean.
        texts: N texts, at least one.
        output: ``.npy``: N×k float32. ``.parquet``: ``text`` and ``vector``, or ``ids`` and ``weights``; its metadata
            hold the ``precision`` of the encoding.
        sparse: Write aligned tokens with positive weight, heaviest first, instead of dense vectors; needs Parquet.
        batch_size: Size of a batch in texts of 128 tokens.
        overwrite: Replace an existing ``output``.
        progress: Show a bar with texts/s and time left on a terminal.

    Raises:
        UserError: The model has no head or corpus mean for sparse vectors; ``output`` exists; or another process, or an
            unfinished call with other arguments, is writing it.
    """
    if sparse:
        embedder.require_calibration()  # before the work, not after it
    run = RunFolder.open(output, overwrite=overwrite, is_file=True)
    content = Corpus.from_texts(texts).fingerprint()
    with run.session({"model": embedder_fingerprint(embedder), "texts": content, "bf16": embedder.bf16}):
        chunks = [texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK)]
        embed = [
            partial(run.cached, f"{number}.npy", partial(embedder.embed, chunk, batch_size=batch_size))
            for number, chunk in enumerate(chunks)
        ]
        for embeddings in track(embed, "Encoding", unit="texts", each=_CHUNK, enabled=progress):
            embeddings()  # kept from now on
        kept = (embeddings() for embeddings in embed)
        if output.suffix == ".npy":
            _write_array(run.result, peekable(embedder.densify(part).numpy() for part in kept), len(texts))
        else:
            columns = _sparse_columns if sparse else _dense_columns
            rows = zip(chunks, kept, strict=True)
            about = {"precision": embedder.precision}
            tables = (
                pa.table({"text": pa.array(own, pa.string()), **columns(embedder, part)}, metadata=about)
                for own, part in rows
            )
            _write_tables(run.result, peekable(tables))
        run.publish()


def _write_array(file: Path, parts: peekable[NDArray[np.float32]], count: int) -> None:
    """Write an array of ``count`` rows like :func:`numpy.save`, part by part."""
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, parts.peek().shape[1])}
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for part in parts:
            stream.write(part.astype("<f4").tobytes())


def _write_tables(file: Path, tables: peekable[pa.Table]) -> None:
    with pq.ParquetWriter(file, tables.peek().schema) as writer:
        for table in tables:
            writer.write_table(table)


def _dense_columns(embedder: Embedder, embeddings: Tensor) -> dict[str, pa.Array]:
    vectors = embedder.densify(embeddings).numpy()
    return {"vector": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])}


def _sparse_columns(embedder: Embedder, embeddings: Tensor) -> dict[str, pa.Array]:
    vectors = embedder.sparsify(embeddings)
    used = [weights > 0 for weights in vectors.weights]
    return {
        name: pa.array([row[mask] for row, mask in zip(rows, used, strict=True)], pa.list_(kind))
        for name, rows, kind in (("ids", vectors.ids, pa.int32()), ("weights", vectors.weights, pa.float32()))
    }
