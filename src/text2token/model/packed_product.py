"""Products with a weight matrix that is packed once, in float32 or bfloat16."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

Activation: TypeAlias = tuple[str, str]
"""Name of an activation in oneDNN, and its variant."""

_BATCH = 1024  # rows that the packed layout is chosen for; other numbers of rows give the same result
# oneDNN keeps a compiled kernel for each number of rows, up to 1,024 of them by default, which takes hundreds of MB. All layers
# share the few dozen kernels of a batch.
_KERNELS = 256
_KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # of oneDNN and of torch's layer around it
# Activations that oneDNN applies inside a product.
ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    ("swish", ""): functional.silu,
    ("gelu", "none"): functional.gelu,
    ("gelu", "tanh"): lambda inputs: functional.gelu(inputs, approximate="tanh"),
    ("relu", ""): functional.relu,
}


class PlainProduct:
    """The product with a weight matrix, in its precision.

    Args:
        weight: Out × in.
        bias: Out numbers; or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        self._weight, self._bias, self._kind = weight, bias, weight.dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the product."""
        return functional.linear(inputs.to(self._kind), self._weight, self._bias)

    def activated(self, inputs: Tensor, activation: Activation) -> Tensor:
        """Return the activation of the product."""
        return ACTIVATIONS[activation](self(inputs))

    def times(self, inputs: Tensor, other: Tensor) -> Tensor:
        """Return the product, multiplied number by number with ``other``."""
        return self(inputs).mul_(other)


class PackedProduct(PlainProduct):
    """The same product, computed by oneDNN on a CPU.

    A copy of the weights is in the order in which the product reads them. In float32 a product of a few rows, as of a query, then
    takes half the time. In bfloat16 activations and factors are part of the product; in float32 they take longer so.

    Args:
        weight: Out × in, in a precision that the processor computes in.
        bias: Out numbers; or None.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__(torch.ops.mkldnn._reorder_linear_weight(weight, _BATCH), bias)
        self._kind = weight.dtype

    def __call__(self, inputs: Tensor) -> Tensor:
        """Return the product."""
        return self._product(inputs, ("none", ""))

    def activated(self, inputs: Tensor, activation: Activation) -> Tensor:
        """Return the activation of the product."""
        if self._kind == torch.float32:
            return super().activated(inputs, activation)
        return self._product(inputs, activation)

    def _product(self, inputs: Tensor, activation: Activation) -> Tensor:
        name, algorithm = activation
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.to(self._kind), self._weight, self._bias, name, [], algorithm
        )
        return outputs

    def times(self, inputs: Tensor, other: Tensor) -> Tensor:
        """Return the product, multiplied number by number with ``other``."""
        if self._kind == torch.float32:
            return super().times(inputs, other)
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(
            inputs.to(self._kind), other, self._weight, self._bias, "mul"
        )
        return outputs


def packed(weight: Tensor, bias: Tensor | None) -> PlainProduct:
    """Return a packed product where the hardware has one, else a plain one."""
    can = weight.device.type == "cpu" and can_pack(weight.dtype)
    return PackedProduct(weight, bias) if can else PlainProduct(weight, bias)


def can_pack(kind: torch.dtype) -> bool:
    """Return whether this torch has oneDNN, and oneDNN has products in float32 or bfloat16 on this CPU."""
    if not torch.backends.mkldnn.is_available():
        return False
    return kind != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def limit_kernels(number: int = _KERNELS) -> None:
    """Let torch keep at most ``number`` kernels. A limit that the user or an earlier call has set stays.

    The libraries read it at the first product of the process that oneDNN computes.
    """
    for name in _KERNEL_CACHES:
        os.environ.setdefault(name, str(number))
