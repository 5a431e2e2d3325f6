"""The similarity loss, which teaches the similarities of a teacher, and a measure of how well they were learnt."""

from __future__ import annotations

import torch
from scipy.stats import spearmanr
from torch import Tensor

_TEMPERATURE = 0.05  # of the cosines, as in SimCSE; most embedders are trained with a similar one


def similarity_loss(vectors: Tensor, teacher: Tensor) -> Tensor:
    """``KL(t ‖ s)`` of the neighbours of a text, mean over the batch, in float32.

    The neighbours of text i are a distribution over the other texts j of the batch: the softmax of cos(i, j) / 0.05. ``t`` is
    that of the teacher, ``s`` that of the model.

    Both sides are first centred by their mean over the batch. The correction of a finished embedder subtracts a mean, too, but it
    is learnt after the training, and training moves the mean. Without centring, a component that all vectors share makes all
    cosines alike, and the loss would be spent on it. Centring the teacher as well lets the loss reach 0.

    To learn the relations within a batch and not the vectors is relational knowledge distillation (arXiv 1904.05068). To write
    them as probabilities and compare these by KL is probabilistic knowledge transfer (arXiv 1803.10837). The softmax
    with its temperature and the centring are ours.

    Args:
        vectors: Dense vectors of the model, B×k. Their lengths and their mean do not matter.
        teacher: Vectors of the teacher for the same texts, B×t.

    Returns:
        A scalar in nats. It is 0 if the centred cosines are equal, and for a batch of one or two texts, where nothing can differ.
    """
    model_neighbours, teacher_neighbours = _log_neighbours(vectors), _log_neighbours(teacher)
    return (teacher_neighbours.exp() * (teacher_neighbours - model_neighbours)).sum(dim=1).mean()


def agreement(vectors: Tensor, teacher: Tensor) -> float:
    """Spearman's ρ between the centred cosines of all pairs of texts and those of the teacher: 1 if both order the pairs alike.

    The loss is ruled by the nearest neighbours of each text, and so it jumps on a few texts. ρ weighs all pairs alike (ours).

    Args:
        vectors: Dense vectors of the model, N×k.
        teacher: Vectors of the teacher for the same texts, N×t.

    Returns:
        NaN with fewer than 3 texts, which have one pair at most.
    """
    if len(vectors) < 3:
        return float("nan")
    first, second = torch.triu_indices(len(vectors), len(vectors), 1)
    model_pairs, teacher_pairs = (_cosines(side)[first, second].cpu().numpy() for side in (vectors, teacher))
    return float(spearmanr(model_pairs, teacher_pairs).statistic)


def _log_neighbours(vectors: Tensor) -> Tensor:
    """Log probabilities of the other texts of the batch, B×(B − 1)."""
    size = len(vectors)
    others = ~torch.eye(size, dtype=torch.bool, device=vectors.device)
    return torch.log_softmax(_cosines(vectors)[others].view(size, size - 1) / _TEMPERATURE, dim=1)


def _cosines(vectors: Tensor) -> Tensor:
    """Cosines of all texts after centring, B×B, in float32."""
    centred = vectors.float() - vectors.float().mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    return unit @ unit.T
