"""Cosines of dense vectors, whatever similarity a model was made for."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import normalize

from text2token.model.embedder import Embedder


def cosines(embedder: Embedder, embeddings: Tensor) -> Tensor:
    """Return the cosines, N, between the dense vector of the first of N+1 embeddings and those of the others."""
    dense = normalize(embedder.correct(embeddings))
    return (dense[1:] @ dense[0]).clamp(-1, 1)  # rounding can lead a little beyond
