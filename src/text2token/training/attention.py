"""Attention in float32 while a body trains in bf16 on a CPU (ours)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from text2token.model import precision

_SDPA = "sdpa"  # the name that transformers gives to torch's scaled_dot_product_attention


@contextmanager
def attention_in_float32(body: nn.Module) -> Iterator[None]:
    """Compute torch's scaled dot-product attention in float32 inside the block, wherever autocast is on and the device is a CPU.

    On a CPU, the backward pass of torch's fused attention is several times slower in bf16 than in float32 for short texts.
    Queries, keys and values are small, so their conversion costs little. Products of the linear layers stay in bf16. Without bf16
    in hardware nothing is on autocast, and nothing changes.

    Args:
        body: The body that trains.
    """
    device = next(body.parameters()).device
    if device.type != "cpu" or not precision.has_bf16(device):
        yield
        return
    plain = ALL_ATTENTION_FUNCTIONS[_SDPA]

    def in_float32(module: nn.Module, *tensors: Any, **settings: Any) -> tuple[Tensor, Any]:
        if not torch.is_autocast_enabled("cpu"):
            return plain(module, *tensors, **settings)
        with torch.autocast("cpu", enabled=False):
            wide = [_float32(value) for value in tensors]
            output, weights = plain(module, *wide, **{name: _float32(value) for name, value in settings.items()})
        return output.to(torch.bfloat16), weights

    ALL_ATTENTION_FUNCTIONS[_SDPA] = in_float32
    try:
        yield
    finally:
        ALL_ATTENTION_FUNCTIONS[_SDPA] = plain


def _float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value
