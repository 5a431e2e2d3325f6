"""Training-free linear corrections of an embedding, as one affine map ``x = A(h − m)`` that any folder can carry."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor

from text2token.head import DecodingHead

_ROWS = 16_384


def spectral_filter(head: DecodingHead, low: float, high: float) -> Tensor:
    """Rows that keep the middle of the decoding head's spectrum: its principal directions, ranked, from ``low`` to ``high``.

    The first directions carry token frequency, the last hardly reach any token; both are noise to a cosine
    (after EmbedFilter, arXiv 2606.07502, which filters uncentred; centring the rows of W first is ours).

    Args:
        head: The backbone's; its matrix is V×d.
        low: Share of directions cut at the large end, 0 … 1.
        high: Share at which the small end is cut; ``high - low`` of all directions stay.

    Returns:
        Orthonormal rows, k×d with k = (high − low)·d. The identity where the head has a transform before its matrix,
        since the spectrum then is not of the embedding's own space.
    """
    dimension = head.weight.shape[1]
    if len(head.transform):
        return torch.eye(dimension)
    mean = head.weight.mean(dim=0, dtype=torch.float64)
    gram = torch.zeros(dimension, dimension, dtype=torch.float64)
    for rows in head.weight.split(_ROWS):  # not all of V×d in float64 at once
        gram += (rows.double() - mean).T @ (rows.double() - mean)
    _, directions = torch.linalg.eigh(gram)  # ascending eigenvalues, a column a direction
    ranked = directions.flip(1).T.float()
    return ranked[round(low * dimension) : round(high * dimension)].clone()


def correction(
    steps: Sequence[str], embeddings: Tensor, head: DecodingHead, keep: tuple[float, float] = (0.0, 1.0)
) -> Dense | None:
    """Learn corrections from a sample of embeddings, one after another, and fold them into one module.

    Args:
        steps: In order. ``centre`` subtracts the mean; ``first-component`` projects out the first right singular
            vector of the (uncentred, as in arXiv 2406.17378, unless centred before) embeddings; ``filter`` is
            :func:`spectral_filter`, and comes last since it changes the dimension.
        embeddings: Sample, N×d.
        head: The backbone's.
        keep: Of the spectral filter.

    Returns:
        ``x = A·h + c`` as a sentence-transformers module, A k×d; None without steps.
    """
    if not steps:
        return None
    dimension = embeddings.shape[1]
    matrix, offset = torch.eye(dimension), torch.zeros(dimension)
    for step in steps:
        if step == "centre":
            offset = offset - (embeddings @ matrix.T + offset).mean(dim=0)
            continue
        rows = spectral_filter(head, *keep) if step == "filter" else _without_first(embeddings @ matrix.T + offset)
        matrix, offset = rows @ matrix, rows @ offset
    return Dense(
        dimension, len(matrix), bias=True, activation_function=torch.nn.Identity(), init_weight=matrix, init_bias=offset
    )  # fmt: skip


def _without_first(embeddings: Tensor) -> Tensor:
    """The projector I − u₁u₁ᵀ, d×d."""
    _, directions = torch.linalg.eigh(embeddings.double().T @ embeddings.double())
    first = directions[:, -1].float()
    return torch.eye(len(first)) - torch.outer(first, first)
