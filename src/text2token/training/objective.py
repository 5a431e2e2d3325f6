"""What a training stage learns: the token target loss, and the shape that any other objective has."""

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
    """An objective of :func:`text2token.training.trainer.train_stage`; its own parameters, if it has any, stay frozen."""

    @abstractmethod
    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Inputs of a batch, ``labels`` among them, from rows with ``input_ids`` and the columns of the data set."""

    @abstractmethod
    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The loss of a batch, a scalar, and the embeddings of its texts, B×d."""


class TokenTargets(Objective):
    """Pool first, decode once, compare with the target.

    Args:
        pooling: Of the encoder.
        head: The frozen decoding head.
    """

    def __init__(self, pooling: Pooling, head: DecodingHead) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Texts, and the targets in ``ids`` and ``weights``."""
        ids, weights = pad_targets([row["ids"] for row in rows], [row["weights"] for row in rows])
        return {**pad_texts([row["input_ids"] for row in rows], pad), "labels": ids, "weights": weights}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """The token target loss."""
        embeddings = pooled(body, self.pooling, inputs)
        return token_target_loss(self.head(embeddings), inputs["labels"], inputs["weights"]), embeddings


def pooled(body: nn.Module, pooling: Pooling, inputs: dict[str, Tensor]) -> Tensor:
    """Embeddings ``h`` of a batch, B×d."""
    mask = inputs["attention_mask"]
    hidden = body(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
    embeddings: Tensor = pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
    return embeddings


def pad_texts(ids: Sequence[Sequence[int]], pad: int) -> dict[str, Tensor]:
    """Token ids as ``input_ids`` and ``attention_mask``, B×L, padded on the right."""
    padded = pad_rows(ids, torch.int64, pad)
    lengths = torch.tensor([len(row) for row in ids])
    return {"input_ids": padded, "attention_mask": (torch.arange(padded.shape[1]) < lengths[:, None]).long()}
