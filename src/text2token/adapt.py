"""Training-free linear corrections of an embedding, as one affine map ``x = A(h − m)`` that any folder can carry."""

from __future__ import annotations

import torch
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor

from text2token.head import DecodingHead


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
    centred = head.weight.double() - head.weight.double().mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending eigenvalues, a column a direction
    ranked = directions.flip(1).T.float()
    return ranked[round(low * dimension) : round(high * dimension)].clone()


def correction_module(rows: Tensor, bias: Tensor) -> Dense:
    """``x = rows · (h + bias)`` as a sentence-transformers module; rows k×d, bias d (minus the corpus mean centres)."""
    return Dense(
        rows.shape[1], rows.shape[0], bias=True, activation_function=torch.nn.Identity(),
        init_weight=rows, init_bias=rows @ bias,
    )  # fmt: skip
