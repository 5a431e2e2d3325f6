"""The prefix of a template begins every text, so a causal body needs to compute it only once (ours).

A token of a causal body sees earlier tokens only: whatever the text is, the prefix has the same queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.kinds import Model
from text2token.model.lean_attention import Reading
from text2token.model.lean_layer import LeanLayer
from text2token.model.tokens import TOKENIZING

Prefix = tuple[int, ...]
"""Token ids."""


def shared_prefix(model: Model, prompt: str) -> Prefix:
    """Return the first tokens of most texts: those of the template, and of the prompt.

    A tokenizer may join the end of a prompt with the text, so :func:`begins_all` has to hold for a batch.
    """
    tokenizer = getattr(model[0], "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return ()
    try:
        with TOKENIZING:
            one, other = tokenizer([f"{prompt}a", f"{prompt}b"], truncation=True, padding=False)["input_ids"]
    except Exception:  # a tokenizer that does not know these letters
        return ()
    return tuple(first for first, _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False)))


def begins_all(prefix: Prefix, ids: Tensor | None, mask: Tensor | None) -> bool:
    """Return whether each text of a batch is the prefix and at least one more token, without padding between or before.

    Args:
        prefix: Token ids.
        ids: Token ids, B×L.
        mask: B×L, 0 at padding.
    """
    count = len(prefix)
    if not count or ids is None or mask is None or ids.shape != mask.shape or ids.shape[1] <= count:
        return False
    same = ids[:, :count] == torch.tensor(prefix, device=ids.device)
    return bool(same.all() and mask[:, : count + 1].all())


class PrefixRows:
    """Keeps the rows of the last prefix that was read: its queries, keys and values in each layer.

    Args:
        layers: Layers of a causal stack.
    """

    def __init__(self, layers: Sequence[LeanLayer]) -> None:
        self._layers = layers
        self._kept: _Kept | None = None

    def of(self, prefix: Prefix, hidden: Tensor, reading: Reading) -> list[Tensor]:
        """Return the rows of a prefix of P tokens for each layer, as :func:`text2token.model.lean_attention.attend` reads them.

        Args:
            prefix: Token ids; the first of each text.
            hidden: Hidden states before the first layer, B×L×d.
            reading: The facts of the pass.
        """
        first = reading.beginning(len(prefix))
        kept = self._kept
        if kept is None or kept.prefix != prefix or not torch.equal(kept.rotation, first.rotation):
            states = first.compact(hidden[:1, : len(prefix)])
            rows = []
            for layer in self._layers:
                rows.append(layer.projected(states))
                states = layer(states, first)
            kept = self._kept = _Kept(prefix, first.rotation.clone(), rows)
        return kept.rows


class _Kept(NamedTuple):
    prefix: Prefix
    rotation: Tensor
    rows: list[Tensor]
