"""The similarity loss: the texts of a batch should lie to each other as they do for a teacher."""

from __future__ import annotations

import torch
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
    them as probabilities and compare these by KL is probabilistic knowledge transfer (arXiv 1803.10837, section 3). The softmax
    with its temperature and the centring are ours.

    Args:
        vectors: Dense vectors of the model, B×k. Their lengths and their mean do not matter.
        teacher: Vectors of the teacher for the same texts, B×t.

    Returns:
        A scalar in nats. It is 0 if the centred cosines are equal, and for a batch of one or two texts, where nothing can differ.
    """
    model_neighbours, teacher_neighbours = _log_neighbours(vectors), _log_neighbours(teacher)
    return (teacher_neighbours.exp() * (teacher_neighbours - model_neighbours)).sum(dim=1).mean()


def _log_neighbours(vectors: Tensor) -> Tensor:
    """Log probabilities of the other texts of the batch, B×(B − 1)."""
    size = len(vectors)
    centred = vectors.float() - vectors.float().mean(dim=0)
    unit = torch.nn.functional.normalize(centred, dim=1)
    others = ~torch.eye(size, dtype=torch.bool, device=vectors.device)
    cosines = (unit @ unit.T)[others].view(size, size - 1)
    return torch.log_softmax(cosines / _TEMPERATURE, dim=1)
