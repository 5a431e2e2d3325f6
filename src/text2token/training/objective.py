"""The interface of training objectives, and the objective of ``fit``: the token target loss."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from text2token.model.head import DecodingHead
from text2token.targets.loss import pad_rows, pad_targets, token_target_loss


class Objective(nn.Module, ABC):
    """An objective for :func:`text2token.training.trainer.train_stage`. Its own parameters stay frozen."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Make the inputs of a batch, including ``labels``, from rows with ``input_ids`` and the columns of the data set."""

    @abstractmethod
    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the loss of a batch, a scalar, and the embeddings of its texts, B×d."""


class TokenTargets(Objective):
    """The token target loss. Texts are pooled first and decoded once, so logits are B×V and never B×L×V.

    Args:
        pooling: The pooling of the encoder.
        head: The frozen decoding head.
    """

    def __init__(self, pooling: Pooling, head: DecodingHead) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Pad texts and targets. ``labels`` holds the ids of the targets."""
        ids, weights = pad_targets([row["ids"] for row in rows], [row["weights"] for row in rows])
        return {**pad_texts([row["input_ids"] for row in rows], pad), "labels": ids, "weights": weights}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the token target loss."""
        embeddings = pooled(body, self.pooling, inputs)
        return token_target_loss(self.head(embeddings), inputs["labels"], inputs["weights"]), embeddings


def pooled(body: nn.Module, pooling: Pooling, inputs: dict[str, Tensor]) -> Tensor:
    """Compute the embeddings ``h`` of a batch, B×d."""
    mask = inputs["attention_mask"]
    hidden = body(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    embeddings: Tensor = pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    return embeddings


def pad_texts(ids: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Pad token ids on the right, and return ``input_ids`` and ``attention_mask``, B×L each."""
    padded = pad_rows(ids, torch.int64, pad)
    lengths = torch.tensor([len(row) for row in ids])
    return {"input_ids": padded, "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long()}
