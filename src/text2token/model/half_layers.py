"""Layers that compute in bfloat16 with weights that were cast and packed once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from text2token.model.packed_product import ACTIVATIONS, Activation, packed


def half_parameters(layer: Any) -> tuple[Tensor, Tensor | None]:
    """Return copies in bfloat16 of the weights of a linear layer of torch or transformers, out × in, and of its bias."""
    weight = layer.weight.detach()
    weight = (weight.t() if isinstance(layer, Conv1D) else weight).to(torch.bfloat16).contiguous()
    return weight, None if layer.bias is None else layer.bias.detach().to(torch.bfloat16)


def replace_layers(module: nn.Module) -> None:
    """Replace the linear layers below ``module``, and the gated feed-forward layers that are made of them, in place."""
    for name, child in module.named_children():
        if type(child) in (nn.Linear, Conv1D):
            setattr(module, name, HalfLinear(child))
            continue
        gated = HalfGated.of(child)
        replace_layers(child)
        if gated is not None:
            setattr(module, name, HalfGated(child, gated))


class HalfLinear(nn.Linear):
    """A linear layer in bfloat16. It keeps the float32 parameters of the layer that it stands for, and adds a packed copy.

    Args:
        layer: Its weights are read now; later changes do not reach this layer.
    """

    def __init__(self, layer: Any) -> None:
        nn.Module.__init__(self)
        self.weight, self.bias = layer.weight, layer.bias
        weight, bias = half_parameters(layer)
        self.out_features, self.in_features = weight.shape
        self.product = packed(weight, bias)  # no buffer: nobody saves or hashes it

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the product in bfloat16."""
        return self.product(inputs)


class HalfGated(nn.Module):
    """A gated feed-forward layer, ``down(act(gate(x)) · up(x))``, whose activation and gate are computed inside the products.

    Args:
        layer: Its three linear layers are :class:`HalfLinear` already.
        activation: Name of the activation.
    """

    def __init__(self, layer: Any, activation: Activation) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = layer.gate_proj, layer.up_proj, layer.down_proj
        self._activation = activation

    def forward(self, hidden: Tensor) -> Tensor:
        """Return the output in bfloat16."""
        hidden = hidden.to(torch.bfloat16)
        gate = self.gate_proj.product.activated(hidden, self._activation)
        outputs: Tensor = self.down_proj(self.up_proj.product.times(hidden, gate))
        return outputs

    @staticmethod
    def of(layer: Any) -> Activation | None:
        """Return the activation of a gated feed-forward layer on a CPU; None if ``layer`` is none, which is tried out."""
        linears: list[Any] = [getattr(layer, name, None) for name in ("gate_proj", "up_proj", "down_proj")]
        if not all(type(linear) is nn.Linear for linear in linears) or not torch.backends.mkldnn.is_available():
            return None
        gate, up, down = linears
        if gate.weight.device.type != "cpu" or gate.weight.shape != up.weight.shape:
            return None
        inputs = torch.linspace(-2, 2, 2 * gate.in_features).view(2, -1)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            expected = layer(inputs)
            for name, activation in _matching(getattr(layer, "act_fn", None)):
                difference = down(activation(gate(inputs)) * up(inputs)) - expected
                if difference.abs().max() <= 1e-4 * expected.abs().max():
                    return name
        return None


def _matching(activation: Any) -> Iterator[tuple[Activation, Callable[[Tensor], Tensor]]]:
    """Yield the fused activations that give the values of ``activation``."""
    points = torch.linspace(-6, 6, 49)
    for name, fused in ACTIVATIONS.items():
        if callable(activation) and torch.allclose(activation(points), fused(points), atol=1e-5):
            yield name, fused
