"""Attention of a lean layer on a CPU: rotation and batched products over a few texts and queries at a time.

The flash kernel of torch works through small blocks and converts each of them. Products over the heads that share keys and
values, in parts whose scores fit into the cache, take two thirds of its time, also for texts of hundreds of tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

_TOKENS = 512  # tokens of the texts that are read together
_QUERIES = 64  # queries of a text that are compared together; those of a causal text leave later keys out
_SHORT = 64  # tokens; a product of so few takes less time in float32 than a cast and a product in bfloat16
_LOWEST = torch.finfo(torch.float32).min


class Heads(NamedTuple):
    """G groups of S heads that share a key and a value, of D numbers each."""

    groups: int
    shared: int
    width: int


class Reading(NamedTuple):
    """What all layers of a pass have in common, for B texts of at most L tokens, N without padding.

    Attributes:
        shape: B and L.
        tokens: Places of the N tokens among B·L; None: there is no padding.
        rotation: Complex numbers B×1×1×L×D/2, or one text for all, which rotate queries and keys by their positions.
        mask: B×1×L×L, or one text for all, added to the scores; None: every token attends to every other.
        causal: No token attends to later ones.
        rows: The one row of each text that the last layer is to finish, B numbers below L; None: all rows.
        shared: P×G·(S+2)·D, as ``projected`` of :func:`attend`: the P tokens that stand before the L tokens of each text. The
            rotation and the last axis of the mask then have P+L numbers. None: P is 0.
    """

    shape: tuple[int, int]
    tokens: Tensor | None
    rotation: Tensor
    mask: Tensor | None
    causal: bool
    rows: Tensor | None = None
    shared: Tensor | None = None

    @classmethod
    def of(
        cls, is_token: Tensor, position_embeddings: tuple[Tensor, Tensor], mask: Tensor | None, *, causal: bool
    ) -> Reading:
        """Prepare a pass.

        Args:
            is_token: B×L, false at padding.
            position_embeddings: Cosines and sines, B×L×D, whose second halves repeat the first.
            mask: As transformers makes it for torch's attention: boolean (True: attend), or added; None: see ``causal``.
            causal: Without a mask a token attends to earlier ones only.
        """
        batch, length = is_token.shape
        cos, sin = (part[:, None, None, :, : part.shape[-1] // 2].float() for part in position_embeddings)
        if mask is None and causal:
            mask = torch.ones(length, length, dtype=torch.bool, device=cos.device).tril()[None, None]
        elif mask is not None:
            causal = mask.dtype == torch.bool and not mask.triu(1).any()
        if mask is not None and mask.dtype == torch.bool:
            # A row without any token to attend to gets a mean instead of NaN.
            mask = torch.zeros((), device=cos.device).where(mask, _LOWEST)
        tokens = None if is_token.all() else is_token.flatten().nonzero().flatten()
        return cls((batch, length), tokens, torch.complex(cos, sin), mask, causal)

    def compact(self, hidden: Tensor) -> Tensor:
        """Return a float32 copy of the rows of tokens, N×d, of B×L×d."""
        flat = hidden.flatten(0, 1).float()
        return flat.clone() if self.tokens is None else flat.index_select(0, self.tokens)

    def padded(self, rows: Tensor) -> Tensor:
        """Return rows of tokens N×d as B×L×d with zeros at padding."""
        if self.tokens is not None:
            places = self.shape[0] * self.shape[1]
            rows = rows.new_zeros(places, rows.shape[1]).index_copy_(0, self.tokens, rows)
        return rows.view(*self.shape, -1)

    def finished(self, hidden: Tensor) -> Tensor:
        """Return the rows that the last layer is to finish, B×d, of N×d."""
        if self.rows is None:
            return hidden
        places = torch.arange(self.shape[0], device=hidden.device) * self.shape[1] + self.rows
        if self.tokens is not None:  # a text without any token gets a row that nobody reads
            places = torch.searchsorted(self.tokens, places).clamp_(max=len(self.tokens) - 1)
        return hidden[places]

    def beginning(self, count: int) -> Reading:
        """Return the facts about the first tokens of the first text."""
        mask = None if self.mask is None else self.mask[:1, :, :count, :count]
        return Reading((1, count), None, self.rotation[:1, :, :, :count], mask, self.causal)

    def after(self, count: int) -> Reading:
        """Return the facts about all tokens but the first ones of each text, which are tokens, not padding."""
        if not count:
            return self
        batch, length = self.shape
        tokens = self.tokens
        if tokens is not None:
            tokens = tokens[tokens % length >= count]
            tokens = tokens - count * (tokens // length + 1)
        mask = None if self.mask is None else self.mask[:, :, count:]
        return self._replace(shape=(batch, length - count), tokens=tokens, mask=mask)

    def part(self, texts: slice) -> Reading:
        """Return the facts about some of the texts that attention needs."""
        one = slice(None)
        return self._replace(
            rotation=self.rotation[texts if len(self.rotation) > 1 else one],
            mask=self.mask if self.mask is None else self.mask[texts if len(self.mask) > 1 else one],
            rows=None if self.rows is None else self.rows[texts],
        )


def attend(projected: Tensor, heads: Heads, reading: Reading) -> Tensor:
    """Return the outputs of attention, N×G·S·D, or B×G·S·D where only one row of each text is finished.

    Scores and softmax are float32; the product with the values is that, too, for short texts, else it has the precision of
    ``projected``.

    Args:
        projected: N×G·(S+2)·D: for each group the queries of its heads, its key and its value. The numbers of a query, which is
            scaled already, and of a key are in pairs that are rotated together.
        heads: G, S and D.
        reading: The facts of the pass.
    """
    batch, length = reading.shape
    padded = reading.padded(projected)
    rows = length if reading.rows is None else 1
    outputs = projected.new_empty(batch, rows, heads.groups * heads.shared, heads.width)
    texts = max(1, _TOKENS // length)
    for start in range(0, batch, texts):
        chosen = slice(start, start + texts)
        _attend(padded[chosen], heads, reading if texts >= batch else reading.part(chosen), outputs[chosen])
    flat = outputs.view(batch * rows, -1)
    return flat if reading.tokens is None or rows < length else flat.index_select(0, reading.tokens)


def _attend(projected: Tensor, heads: Heads, reading: Reading, outputs: Tensor) -> None:
    """Write the outputs for a few texts."""
    batch, length, _ = projected.shape
    first = 0 if reading.shared is None else len(reading.shared)
    parts = projected.new_empty(batch, heads.groups, heads.shared + 2, first + length, heads.width, dtype=torch.float32)
    if reading.shared is not None:
        parts[:, :, :, :first].copy_(_by_head(reading.shared[None], heads))
    parts[:, :, :, first:].copy_(_by_head(projected, heads))
    torch.view_as_complex(parts[:, :, :-1].unflatten(-1, (-1, 2))).mul_(reading.rotation)
    keys, values = parts[:, :, -2].flatten(0, 1), parts[:, :, -1].flatten(0, 1)
    if first + length > _SHORT:
        values = values.to(projected.dtype)
    if reading.rows is not None:
        texts = torch.arange(batch, device=projected.device)
        queries = parts[texts, :, :-2, first + reading.rows, :].unsqueeze(3)
        mask = reading.mask
        if mask is not None:
            mask = mask.expand(batch, -1, -1, -1)[texts, :, reading.rows].unsqueeze(2)
        _compare(queries, keys, values, mask, outputs)
        return
    for start in range(0, length, _QUERIES):
        chosen = slice(start, start + _QUERIES)
        seen = first + (chosen.stop if reading.causal else length)
        mask = None if reading.mask is None else reading.mask[:, :, chosen, :seen]
        queries = parts[:, :, :-2, first + start : first + chosen.stop]
        _compare(queries, keys[:, :seen], values[:, :seen], mask, outputs[:, chosen])


def _by_head(projected: Tensor, heads: Heads) -> Tensor:
    """Return B×L×G·(S+2)·D as B×G×(S+2)×L×D."""
    return projected.unflatten(2, (heads.groups, heads.shared + 2, heads.width)).permute(0, 2, 3, 1, 4)


def _compare(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, outputs: Tensor) -> None:
    """Write the outputs of queries B×G×S×Q×D over keys and values BG×K×D."""
    batch, _, _, count, width = queries.shape
    scores = torch.bmm(queries.flatten(0, 1).flatten(1, 2), keys.mT)
    if mask is not None:
        scores.view(batch, -1, count, keys.shape[1]).add_(mask)
    weighted = torch.bmm(scores.softmax(-1).to(values.dtype), values)
    outputs.copy_(weighted.view(batch, -1, count, width).transpose(1, 2))
