"""All layers of a decoder as one module of lean layers, where a trial shows that they give the same hidden states."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from text2token.model.last_row import Rows
from text2token.model.lean_attention import Reading
from text2token.model.lean_layer import LeanLayer, lean_activation
from text2token.model.packed_product import Activation, PlainProduct, packed
from text2token.model.shared_prefix import PrefixRows

_TOLERANCE = 1e-4  # of the largest number; float32 sums in another order differ by about 1e-6


class LeanStack(nn.Module):
    """The layers of a decoder one after the other. The mask and the rotation of a pass are prepared once for all of them.

    Args:
        layers: Layers of the decoder.
        activations: Activation of each layer, as :func:`text2token.model.lean_layer.lean_activation` finds it.
        rows: Tells which row of each text will be read.
        kind: Precision of the linear layers. Where the last layer finishes one row of each text, it computes in float32: that
            costs little, and no later layer would correct what it rounds.
        product: Makes the linear layers.
    """

    def __init__(
        self,
        layers: nn.ModuleList,
        activations: Sequence[Activation],
        rows: Rows,
        kind: torch.dtype,
        product: Callable[[Tensor, Tensor | None], PlainProduct] = packed,
    ) -> None:
        super().__init__()
        self._rows = rows
        self._causal = bool(getattr(layers[0].self_attn, "is_causal", True))
        self._layers = [LeanLayer(*own, kind, product) for own in zip(layers, activations, strict=True)]
        self._finishing = list(self._layers)
        if kind != torch.float32:
            self._finishing[-1] = LeanLayer(layers[-1], activations[-1], torch.float32, product)
        self._prefixes = PrefixRows(self._finishing)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_embeddings: Any = None,
        is_causal: bool | None = None,
        **_: Any,
    ) -> Tensor:
        """Return the hidden states after the last layer, as the last layer of the decoder does, whose arguments these are.

        Those of padding are zero. Where one row of each text will be read, all rows are that one, and a causal body computes a
        prefix that all texts share once for all passes.
        """
        is_token = self._rows.is_token
        if is_token is None or is_token.shape != hidden_states.shape[:2]:
            is_token = hidden_states.new_ones(hidden_states.shape[:2], dtype=torch.bool)
        causal = self._causal if is_causal is None else is_causal
        reading = Reading.of(is_token, position_embeddings, attention_mask, causal=causal)
        rows = self._rows.chosen
        layers = self._layers if rows is None else self._finishing
        prefix = self._rows.prefix if reading.causal and rows is not None else ()
        with torch.autocast(hidden_states.device.type, enabled=False):
            shared = self._prefixes.of(prefix, hidden_states, reading) if prefix else [None] * len(layers)
            reading = reading.after(len(prefix))
            hidden = reading.compact(hidden_states[:, len(prefix) :])
            for layer, own in zip(layers[:-1], shared, strict=False):
                hidden = layer(hidden, reading._replace(shared=own))
            rows = None if rows is None else rows - len(prefix)
            hidden = layers[-1](hidden, reading._replace(shared=shared[-1], rows=rows))
        return reading.padded(hidden) if rows is None else hidden[:, None].expand_as(hidden_states)


@torch.no_grad()
def make_lean(body: Any, rows: Rows, kind: torch.dtype) -> bool:
    """Replace the layers of a body by a :class:`LeanStack` if its outputs stay the same; return whether they do.

    Args:
        body: A transformer body on a CPU, in float32 and in evaluation mode.
        rows: Tells which row of each text will be read.
        kind: Precision of the linear layers. They are tried out in float32, before they are packed.
    """
    layers = getattr(body, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not _have_one_mask(body):
        return False
    activations = [own for layer in layers if (own := lean_activation(layer)) is not None]
    if len(activations) < len(layers):
        return False
    try:
        expected = _trial(body)
        body.layers = nn.ModuleList([LeanStack(layers, activations, rows, torch.float32, PlainProduct)])
        found = _trial(body)
        same = all(
            (one - other).abs().max() <= _TOLERANCE * one.abs().max()
            for one, other in zip(expected, found, strict=True)
        )
    except Exception:  # a body that reads no token ids, or layers that are called in another way
        same = False
    body.layers = nn.ModuleList([LeanStack(layers, activations, rows, kind)]) if same else layers
    return same


def _have_one_mask(body: Any) -> bool:
    """Return whether all layers of a body on a CPU get the same mask, and leave scores as they are."""
    config = getattr(body, "config", None)
    kinds = set(getattr(config, "layer_types", None) or ())
    capped = any("softcap" in name and value for name, value in vars(config).items()) if config is not None else False
    return len(kinds) <= 1 and not capped and next(body.parameters()).device.type == "cpu"


def _trial(body: Any) -> list[Tensor]:
    """Return the hidden states of texts of one length, and of two lengths, for the tokens that are not padding."""
    ids = torch.tensor([[2, 3, 4, 5, 6], [5, 4, 3, 2, 1]])
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    return [body(input_ids=ids, attention_mask=read).last_hidden_state[read.bool()] for read in (mask * 0 + 1, mask)]
