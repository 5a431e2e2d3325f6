"""Vectors on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from text2token.atomic import replacing
from text2token.embedder import Embedder


def kept_vectors(folder: Path, name: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of ``compute``, kept as ``name.npy`` in ``folder``, so that a stopped run does not compute it again."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as stream:
            np.save(stream, compute().numpy())
    return torch.from_numpy(np.load(file))


def write_dense(embedder: Embedder, texts: Sequence[str], file: Path, *, batch_size: int = 32) -> None:
    """Dense vectors, N×k float32: a NumPy array for ``.npy``, else Parquet with ``text`` and ``vector``."""
    vectors = embedder.encode(texts, batch_size=batch_size, progress=True)
    with replacing(file) as part:
        if file.suffix == ".npy":
            with part.open("wb") as stream:
                np.save(stream, vectors)
        else:
            column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1])
            pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "vector": column}), part)


def write_sparse(embedder: Embedder, texts: Sequence[str], file: Path, *, batch_size: int = 32) -> None:
    """Sparse vectors as Parquet: ``text``, ``ids`` and ``weights`` of the tokens with weight, heaviest first."""
    vectors = embedder.encode_sparse(texts, batch_size=batch_size, progress=True)
    used = [weights > 0 for weights in vectors.weights]
    table = {
        "text": pa.array(texts, pa.string()),
        "ids": pa.array([row[mask] for row, mask in zip(vectors.ids, used, strict=True)], pa.list_(pa.int32())),
        "weights": pa.array(
            [row[mask] for row, mask in zip(vectors.weights, used, strict=True)], pa.list_(pa.float32())
        ),
    }
    with replacing(file) as part:
        pq.write_table(pa.table(table), part)
