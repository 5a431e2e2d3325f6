"""Adapted linear layers in bf16, each as one operation: the frozen matrix is converted once, and it gets no gradient (ours).

Under autocast alone, PEFT's layer converts its input three times, adds three results in passes of their own, and keeps a float32
copy of some of them for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from peft.tuners.lora.layer import Linear as LoraLinear
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from text2token.model import precision
from text2token.model.half_layers import half_parameters


@contextmanager
def adapters_in_bf16(body: nn.Module) -> Iterator[None]:
    """Compute the adapted linear layers of ``body`` in bf16 inside the block, wherever autocast is on.

    Adapters and the gradients that reach them stay float32, and so do the frozen matrices: the bf16 copies belong to this block.
    A layer that is not a plain LoRA layer is left to PEFT, and without bf16 in hardware every layer is.

    Args:
        body: A body with LoRA adapters, or without any.
    """
    device = next(body.parameters()).device
    layers = [module for module in body.modules() if isinstance(module, LoraLinear) and _is_plain(module)]
    layers = layers if precision.has_bf16(device) else []
    shared = _SharedInput()
    for layer in layers:
        layer.forward = _Bf16Forward(layer, shared)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(layer: LoraLinear) -> bool:
    """Whether the layer adds one adapter without dropout, bias or variant to a linear layer of torch or transformers."""
    return (
        isinstance(layer.get_base_layer(), nn.Linear | Conv1D)
        and len(layer.active_adapters) == 1
        and not layer.lora_variant
        and not any(layer.lora_bias.values())
        and isinstance(layer.lora_dropout[layer.active_adapters[0]], nn.Identity)
    )


class _SharedInput:
    """The last input in bf16. Several layers read the same tensor, for example query, key and value: it is converted once."""

    def __init__(self) -> None:
        self._last: tuple[Tensor, int, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        if x.is_inference():  # of a measurement along the training; it does not tell whether it was changed in place
            return x.to(torch.bfloat16)
        if self._last is None or self._last[0] is not x or self._last[1] != x._version:
            self._last = x, x._version, x.to(torch.bfloat16)
        return self._last[2]


class _Bf16Forward:
    """Stands in for the ``forward`` of an adapted layer."""

    def __init__(self, layer: LoraLinear, shared: _SharedInput) -> None:
        base, name = layer.get_base_layer(), layer.active_adapters[0]
        self._weight, self._bias = half_parameters(base)
        self._down, self._up, self._scale = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
        self._plain = layer.forward
        self._shared = shared

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled(x.device.type):
            return cast(Tensor, self._plain(x))
        arguments = self._weight, self._bias, self._down, self._up, self._scale
        return cast(Tensor, _AdaptedLinear.apply(self._shared(x), *arguments))


class _AdaptedLinear(torch.autograd.Function):
    """``y = x·Wᵀ + b + s·(x·Aᵀ)·Bᵀ`` in bf16 (LoRA, arXiv 2106.09685, equation 3). Only x, A and B get gradients."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float
    ) -> Tensor:
        """Return y, ... × out.

        Args:
            ctx: The context of autograd.
            x: ... × in, bf16.
            weight: W, out × in, bf16, frozen.
            bias: b, out, bf16, frozen; None: there is none.
            down: A, r × in, float32.
            up: B, out × r, float32.
            scale: s.
        """
        rows, low, scaled = x.flatten(0, -2), down.to(x.dtype), (scale * up).to(x.dtype)
        inner = rows @ low.T
        y = nn.functional.linear(rows, weight, bias).addmm_(inner, scaled.T)
        ctx.save_for_backward(rows, inner, weight, low, scaled)
        ctx.scale = scale
        return y.unflatten(0, x.shape[:-1])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of the arguments of :meth:`forward`."""
        rows, inner, weight, low, scaled = ctx.saved_tensors
        of_y = gradient.flatten(0, -2)
        of_inner = of_y @ scaled
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (of_y @ weight).addmm_(of_inner, low).unflatten(0, gradient.shape[:-1])
        of_down = (of_inner.T @ rows).float()
        of_up = ctx.scale * (of_y.T @ inner).float()
        return of_x, None, None, of_down, of_up, None
