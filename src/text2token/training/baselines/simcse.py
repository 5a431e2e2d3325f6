"""Unsupervised SimCSE (arXiv 2104.08821).

A text and the same text under another dropout mask are a positive pair. All other texts of the batch are negatives. The loss
is that of sentence-transformers. Temperature and dropout are those of LLM2Vec's unsupervised recipe (arXiv 2404.05961).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn

from text2token.training.objective import Objective, pad_texts, pooled
from text2token.utils.errors import UserError

_SCALE = 20.0  # factor of the cosines, a temperature of 0.05
_DROPOUT = 0.3  # dropout of attention


class SimCSE(Objective):
    """Contrastive loss between two views of each text. Both views are in one batch of 2B rows, and each row has its own dropout.

    Args:
        encoder: Transformer and Pooling.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        super().__init__()
        self.pooling: Pooling = encoder[1]
        self._contrast = MultipleNegativesRankingLoss(encoder, scale=_SCALE).compute_loss_from_embeddings

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Pad the texts twice, one copy after the other."""
        texts = [row["input_ids"] for row in rows]
        return {**pad_texts(texts + texts, pad), "labels": torch.arange(len(texts))}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Compute the cross-entropy of finding each text's second view in the batch."""
        first, second = pooled(body, self.pooling, inputs).chunk(2)
        return self._contrast([first, second], None), first


def set_dropout(body: nn.Module) -> None:
    """Set the dropout of attention, in place. Most language models are trained without dropout, so two views would be equal.

    The configuration does not change, so a saved model has no dropout. Outside training, dropout is off.

    Raises:
        UserError: Two passes in training mode are still equal, because this body has no dropout in its attention.
    """
    for module in body.modules():
        if "attention_dropout" in vars(module):
            setattr(module, "attention_dropout", _DROPOUT)  # noqa: B010 -- the type differs by family
    ids = torch.arange(1, 9, device=next(body.parameters()).device)[None]
    body.train()
    with torch.no_grad():
        views = [body(input_ids=ids).last_hidden_state for _ in range(2)]
    body.eval()
    if torch.equal(*views):
        raise UserError(f"SimCSE needs dropout, and {type(body).__name__} has none: use another backbone.")
