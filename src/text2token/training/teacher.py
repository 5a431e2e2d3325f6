"""The objective with a teacher: token targets, and the similarities of the teacher within each batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from text2token.targets.similarity import similarity_loss
from text2token.training.objective import Objective, TokenTargets


class FollowTeacher(Objective):
    """The token target loss plus the weighted similarity loss (ours).

    The similarities are those of dense vectors, ``correction · h``, because users compare these. Each process compares the texts
    of its own batch.

    Args:
        tokens: The token target loss. It computes the embeddings of a batch once, for both losses.
        correction: Linear part of the correction of dense vectors, k×d. The loss itself subtracts a mean.
        weight: Weight of the similarity loss; that of the token target loss is 1. The default is 1, too: both losses then have
            gradients of about the same size on the embeddings of an untrained backbone.
    """

    def __init__(self, tokens: TokenTargets, correction: Tensor, weight: float) -> None:
        super().__init__()
        self.tokens, self.weight = tokens, weight
        self.correction = nn.Parameter(correction, requires_grad=False)

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Add ``teacher``, the vectors of the teacher, B×t, to the inputs of the token target loss."""
        vectors = torch.tensor([row["teacher"] for row in rows], dtype=torch.float16)
        return {**self.tokens.collate(rows, pad), "teacher": vectors}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute both losses."""
        loss, embeddings = self.tokens(body, inputs)
        return loss + self.weight * similarity_loss(embeddings @ self.correction.T, inputs["teacher"]), embeddings
