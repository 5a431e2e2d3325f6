"""Masked next-token prediction, the first step of LLM2Vec (arXiv 2404.05961, section 2).

A decoder with attention in both directions predicts a masked token from the position before it, because its head was trained to
predict the next token.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer.modules import Pooling
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from text2token.model.head import DecodingHead
from text2token.training.objective import Objective, pad_texts

_MASKED = 0.2  # share of the tokens, as in LLM2Vec for all backbones except Mistral
_KEPT, _RANDOM = 0.1, 0.1  # shares of the masked tokens that stay or become random, as in BERT
_IGNORE = -100


class MaskedNextToken(Objective):
    """Cross-entropy of the masked tokens, each decoded at the position before it.

    Args:
        pooling: Makes the embeddings for the log. This objective does not train them.
        head: The frozen decoding head.
        tokenizer: Gives the mask token. Without one, the underscore is used, as in LLM2Vec.
        seed: Seed of the masks.
    """

    def __init__(self, pooling: Pooling, head: DecodingHead, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head
        self._mask = tokenizer.mask_token_id
        if self._mask is None:
            self._mask = tokenizer.backend_tokenizer.encode("_", add_special_tokens=False).ids[0]
        self._special = torch.tensor(tokenizer.all_special_ids)
        self._seed = seed

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Mask a fifth of the tokens. ``labels``, B×L, holds the original tokens there."""
        inputs = pad_texts([row["input_ids"] for row in rows], pad)
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        real &= ~torch.isin(ids, self._special)
        real[:, 0] = False  # no position before it
        # Masks depend on seed and texts only, so a resumed run and every evaluation draw the same ones.
        random = torch.Generator().manual_seed(self._seed + zlib.crc32(ids.numpy().tobytes()))
        masked = real & (torch.rand(ids.shape, generator=random) < _MASKED)
        fate = torch.rand(ids.shape, generator=random)
        noise = torch.randint(len(self.head.weight), ids.shape, generator=random)
        hidden = torch.where(fate < _RANDOM, noise, self._mask)
        changed = torch.where(masked & (fate < 1 - _KEPT), hidden, ids)
        return {**inputs, "input_ids": changed, "labels": torch.where(masked, ids, _IGNORE)}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Decode the masked positions only: logits are masked tokens × V."""
        mask, labels = inputs["attention_mask"], inputs["labels"]
        hidden = body(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        rows, places = (labels != _IGNORE).nonzero(as_tuple=True)
        logits = self.head(hidden[rows, places - 1])
        loss = nn.functional.cross_entropy(logits, labels[rows, places]) if len(rows) else hidden.sum() * 0
        return loss, self.pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
