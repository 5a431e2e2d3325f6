"""Attention for encoding on a CPU: two batched products, in which the heads that share keys and values form one matrix.

The flash kernel of torch works through small blocks and converts each of them. For short texts, whose scores fit into the cache,
two products with a softmax between them take a fraction of its time.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "text2token_grouped"
"""Name under which transformers finds this attention."""

_LONGEST = 128  # tokens; for longer texts, whose scores do not fit into the cache, the flash kernel is as fast
_OTHER = ("softcap", "position_bias", "s_aux", "cache")  # extras of single families, which torch's attention knows


def grouped_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Return the attention outputs B×L×H×D, as ``sdpa_attention_forward`` of transformers does, whose arguments these are.

    Scores and softmax are float32; the product with the values has the precision of the values.

    Args:
        module: The attention layer.
        query: B×H×L×D.
        key: B×G×L×D, where each of the G groups serves H/G heads.
        value: B×G×L×D.
        attention_mask: B×1×L×L, boolean (True: attend) or added to the scores; None: causal or full, as ``is_causal`` says.
        dropout: 0 in an encoder.
        scaling: Factor of the scores; None: D^-½.
        is_causal: None: as the layer says.
        kwargs: Extras of single families.
    """
    batch, heads, length, width = query.shape
    groups = key.shape[1]
    plain = not dropout and heads % groups == 0 and all(kwargs.get(name) is None for name in _OTHER)
    if not plain or length > _LONGEST or key.shape[2] != length:
        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout, scaling, is_causal=is_causal, **kwargs
        )
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    with torch.autocast(query.device.type, enabled=False):
        scaled = query.float() * (width**-0.5 if scaling is None else scaling)
        rows = scaled.reshape(batch, groups, -1, width)
        scores = (rows @ key.float().transpose(-1, -2)).view(batch, heads, length, length)
        if attention_mask is not None or causal:
            scores += _added(attention_mask, length, query.device)
        weights = scores.softmax(-1).to(value.dtype).view(batch, groups, -1, length)
        outputs = (weights @ value).view(batch, heads, length, -1)
    return outputs.transpose(1, 2).contiguous(), None


def _added(mask: Tensor | None, length: int, device: torch.device) -> Tensor:
    """Return a mask that is added to the scores. Rows without any token to attend to get a mean instead of NaN."""
    if mask is None:
        mask = torch.ones(length, length, dtype=torch.bool, device=device).tril()
    if mask.dtype != torch.bool:
        return mask.float()
    return torch.zeros((), device=device).where(mask, torch.finfo(torch.float32).min)


AttentionInterface.register(NAME, grouped_attention)
AttentionMaskInterface.register(NAME, sdpa_mask)
