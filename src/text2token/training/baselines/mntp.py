"""Masked next-token prediction, the first step of LLM2Vec (arXiv 2404.05961, section 2): a decoder that has been made
bidirectional predicts a masked token from the position before it, where its head was trained to predict.
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

_MASKED = 0.2  # of the tokens, as LLM2Vec for all backbones but Mistral
_KEPT, _RANDOM = 0.1, 0.1  # of those, as BERT
_IGNORE = -100


class MaskedNextToken(Objective):
    """Cross-entropy of the masked tokens, decoded at the position before each.

    Args:
        pooling: For the embeddings that are watched; not trained by this objective.
        head: The frozen decoding head.
        tokenizer: Its mask token, or the underscore as LLM2Vec has it, stands for what is masked.
        seed: Of the masks.
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
        """Texts with a fifth of the tokens masked; ``labels`` B×L hold the original there."""
        inputs = pad_texts([row["input_ids"] for row in rows], pad)
        ids, real = inputs["input_ids"], inputs["attention_mask"].bool()
        real &= ~torch.isin(ids, self._special)
        real[:, 0] = False  # nothing stands before it
        # of the seed and the texts alone, so that a resumed run and each look at held-out texts draw the same masks
        random = torch.Generator().manual_seed(self._seed + zlib.crc32(ids.numpy().tobytes()))
        masked = real & (torch.rand(ids.shape, generator=random) < _MASKED)
        fate = torch.rand(ids.shape, generator=random)
        noise = torch.randint(len(self.head.weight), ids.shape, generator=random)
        hidden = torch.where(fate < _RANDOM, noise, self._mask)
        changed = torch.where(masked & (fate < 1 - _KEPT), hidden, ids)
        return {**inputs, "input_ids": changed, "labels": torch.where(masked, ids, _IGNORE)}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Only masked positions are decoded: logits are masked tokens × V."""
        mask, labels = inputs["attention_mask"], inputs["labels"]
        hidden = body(input_ids=inputs["input_ids"], attention_mask=mask).last_hidden_state
        rows, places = (labels != _IGNORE).nonzero(as_tuple=True)
        logits = self.head(hidden[rows, places - 1])
        loss = nn.functional.cross_entropy(logits, labels[rows, places]) if len(rows) else hidden.sum() * 0
        return loss, self.pooling({"token_embeddings": hidden, "attention_mask": mask})["sentence_embedding"]
