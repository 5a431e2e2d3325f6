"""A decoder layer in few operations: one product for queries, keys and values, norms of four operations, no casts between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from text2token.model.half_layers import HalfGated
from text2token.model.lean_attention import Heads, Reading, attend
from text2token.model.packed_product import Activation, PlainProduct, packed

_PARTS = {"input_layernorm", "self_attn", "post_attention_layernorm", "mlp"}
_PROJECTIONS = {"q_proj", "k_proj", "v_proj", "o_proj"}


def lean_activation(layer: Any) -> Activation | None:
    """Return the activation of a layer that has the parts of one of the Llama family, and no others; None for any other layer.

    What the parts compute is not tried out, except for the gated feed-forward layer.
    """
    attention = getattr(layer, "self_attn", nn.Identity())
    has_parts = (
        {name for name, _ in layer.named_children()} == _PARTS
        and {name for name, part in attention.named_children() if type(part) is nn.Linear} == _PROJECTIONS
        and len(list(attention.children())) == len(_PROJECTIONS)
        and not list(attention.parameters(recurse=False))
        and isinstance(getattr(attention, "head_dim", None), int)
    )
    return HalfGated.of(layer.mlp) if has_parts else None


class LeanLayer:
    """A decoder layer of the Llama family: norm, rotary attention in groups of heads, norm, gated feed-forward layer.

    Norms, scores, softmax and the sum that runs through the layers are float32.

    Args:
        layer: A layer for which :func:`lean_activation` finds an activation. Its weights are read now.
        activation: What it finds.
        kind: Precision of the linear layers.
        product: Makes them.
    """

    def __init__(
        self,
        layer: Any,
        activation: Activation,
        kind: torch.dtype,
        product: Callable[[Tensor, Tensor | None], PlainProduct] = packed,
    ) -> None:
        attention, gated = layer.self_attn, layer.mlp
        width = attention.head_dim
        groups = attention.k_proj.out_features // width
        self._heads = Heads(groups, attention.q_proj.out_features // width // groups, width)
        self._activation = activation
        self._norms = _Norm(layer.input_layernorm, kind), _Norm(layer.post_attention_layernorm, kind)
        linears = (attention.o_proj, gated.gate_proj, gated.up_proj, gated.down_proj)
        self._projected, self._mixed, self._gate, self._up, self._down = (
            product(weight.detach().to(kind), None if bias is None else bias.detach().to(kind))
            for weight, bias in (
                _joined(attention, self._heads),
                *((linear.weight, linear.bias) for linear in linears),
            )
        )

    def __call__(self, hidden: Tensor, reading: Reading) -> Tensor:
        """Return the hidden states after the layer, N×d float32, or B×d where the reading asks for one row of each text.

        Args:
            hidden: N×d float32. They are changed in place.
            reading: The facts of the pass.
        """
        attended = self._mixed(attend(self.projected(hidden), self._heads, reading))
        hidden = reading.finished(hidden).add_(attended)
        normed = self._norms[1](hidden)
        return hidden.add_(self._down(self._up.times(normed, self._gate.activated(normed, self._activation))))

    def projected(self, hidden: Tensor) -> Tensor:
        """Return queries, keys and values of hidden states N×d, as :func:`text2token.model.lean_attention.attend` reads them."""
        return self._projected(self._norms[0](hidden))


class _Norm:
    """RMS norm: each row over the root of the mean of its squares, times the weights; then in the precision of what reads it."""

    def __init__(self, norm: Any, kind: torch.dtype) -> None:
        self._weight, self._kind = norm.weight.detach(), kind
        epsilon = getattr(norm, "variance_epsilon", getattr(norm, "eps", 0.0))
        self._epsilon = torch.tensor(epsilon, device=self._weight.device)

    def __call__(self, hidden: Tensor) -> Tensor:
        size = torch.linalg.vector_norm(hidden, dim=-1, keepdim=True)
        scale = torch.addcmul(self._epsilon, size, size, value=1 / hidden.shape[-1]).rsqrt_()
        return (hidden * scale).mul_(self._weight).to(self._kind)


def _joined(attention: Any, heads: Heads) -> tuple[Tensor, Tensor | None]:
    """Return weights and bias of one linear layer that gives what :func:`attend` reads: scaled queries, keys, values by group.

    Rotary embeddings rotate number i of a head with number i + D/2; here the two stand side by side.
    """
    width = heads.width
    pairs = torch.arange(width).view(2, -1).t().flatten()
    scaling = getattr(attention, "scaling", width**-0.5)

    def by_group(read: Any) -> Tensor:
        queries, keys, values = (
            read(part).detach().view(heads.groups, -1, width, *read(part).shape[1:])
            for part in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        return torch.cat([scaling * queries[:, :, pairs], keys[:, :, pairs], values], dim=1).flatten(0, 2)

    biases = [part.bias is None for part in (attention.q_proj, attention.k_proj, attention.v_proj)]
    return by_group(lambda part: part.weight), None if all(biases) else by_group(lambda part: part.bias)
