"""TSDAE (arXiv 2104.06979): reconstruct a text from the embedding of a copy in which most words are deleted.

The loss of sentence-transformers passes the embedding to a decoder by cross-attention, which decoder language models do not have.
Here the decoder is the body itself, tied as in the paper, and the embedding takes the place of the first token (ours).
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
from text2token.targets.loss import pad_rows
from text2token.training.objective import Objective, pad_texts, pooled

_DELETED = 0.6  # share of the tokens, the best one in the paper
_IGNORE = -100


class DenoisingAutoEncoder(Objective):
    """Cross-entropy of each token, given the embedding and the tokens before it.

    Args:
        pooling: The pooling of the encoder.
        head: The frozen decoding head.
        tokenizer: Its special tokens are never deleted.
        seed: Seed of the deletions.
    """

    def __init__(self, pooling: Pooling, head: DecodingHead, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        super().__init__()
        self.pooling, self.head = pooling, head
        self._special = torch.tensor(tokenizer.all_special_ids)
        self._seed = seed

    def collate(self, rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Tensor]:
        """Delete tokens from the texts. ``labels``, B×L, holds the complete texts."""
        whole = [row["input_ids"] for row in rows]
        return {**pad_texts([self._delete(ids) for ids in whole], pad), "labels": pad_rows(whole, torch.int64, _IGNORE)}

    def forward(self, body: nn.Module, inputs: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Use the body twice, first as encoder and then as decoder."""
        embeddings = pooled(body, self.pooling, inputs)
        labels = inputs["labels"]
        before = body.get_input_embeddings()(labels[:, :-1].clamp(min=0))  # type: ignore[operator]
        read = torch.cat([embeddings[:, None].to(before.dtype), before], dim=1)
        hidden = body(inputs_embeds=read, attention_mask=(labels != _IGNORE).long()).last_hidden_state
        kept = labels != _IGNORE
        return nn.functional.cross_entropy(self.head(hidden[kept]), labels[kept]), embeddings

    def _delete(self, ids: list[int]) -> list[int]:
        """Delete tokens, but keep at least one. The choice depends on seed and text only."""
        random = torch.Generator().manual_seed(self._seed + zlib.crc32(repr(ids).encode()))
        keep = (torch.rand(len(ids), generator=random) >= _DELETED) | torch.isin(torch.tensor(ids), self._special)
        keep[torch.randint(len(ids), (1,), generator=random)] = True
        return [token for token, stays in zip(ids, keep.tolist(), strict=True) if stays]
