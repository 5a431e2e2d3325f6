"""Vectors that are kept while a run lasts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from text2token.atomic import replacing


def kept_vectors(folder: Path, name: str, compute: Callable[[], Tensor]) -> Tensor:
    """The tensor of ``compute``, kept as ``name.npy`` in ``folder``, so that a stopped run does not compute it again."""
    file = folder / f"{name}.npy"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(file) as part, part.open("wb") as stream:
            np.save(stream, compute().numpy())
    return torch.from_numpy(np.load(file))
