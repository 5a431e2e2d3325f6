"""Unsupervised SimCSE (arXiv 2104.08821): a text and the same text under another dropout mask are a pair, the rest of the batch
is not. The loss is sentence-transformers'; temperature and dropout are LLM2Vec's (arXiv 2404.05961, its unsupervised recipe).
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

_SCALE = 20.0  # of cosines: a temperature of 0.05
_DROPOUT = 0.3  # of attention


class SimCSE(Objective):
    """Both views of a text go through the body in one batch of 2B rows; each row draws dropout of its own.

    Args:
        encoder: Transformer and Pooling.
    """

    def __init__(self, encoder: SentenceTransformer) -> None:
        super().__init__()
        self.pooling: Pooling = encoder[1]
        self._contrast = MultipleNegativesRankingLoss(encoder, scale=_SCALE).compute_loss_from_embeddings

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Texts, and the same again."""
        texts = [row["input_ids"] for row in rows]
        return {**pad_texts(texts + texts, pad), "labels": torch.arange(len(texts))}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Cross-entropy of finding a text's other view among those of the batch."""
        first, second = pooled(body, self.pooling, inputs).chunk(2)
        return self._contrast([first, second], None), first


def set_dropout(body: nn.Module) -> None:
    """Give attention a dropout, in place; most language models are trained without any, and then two views are one.

    The configuration is left alone, so that a saved model is as before; dropout is off outside training.

    Raises:
        UserError: Two passes in training mode stay the same: this body has no place for dropout.
    """
    for module in body.modules():
        if "attention_dropout" in vars(module):
            setattr(module, "attention_dropout", _DROPOUT)  # noqa: B010 -- of whatever type the family's attention is
    ids = torch.arange(1, 9, device=next(body.parameters()).device)[None]
    body.train()
    with torch.no_grad():
        views = [body(input_ids=ids).last_hidden_state for _ in range(2)]
    body.eval()
    if torch.equal(*views):
        raise UserError(f"SimCSE needs dropout, and {type(body).__name__} has none: use another backbone.")
