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
_LOWEST = torch.finfo(torch.float32).min


class Heads(NamedTuple):
    """G groups of S heads that share a key and a value, of D numbers each."""

    groups: int
    shared: int
    width: int


class Reading(NamedTuple):
    """What all layers of a pass have in common.

    Attributes:
        rotation: Complex numbers B×1×1×L×D/2, or one text for all, which rotate queries and keys by their positions.
        mask: B×1×L×L, or one text for all, added to the scores; None: every token attends to every other.
        causal: The mask forbids what comes later, and nothing else.
        rows: The one row of each text that the last layer is to finish; None: all rows.
    """

    rotation: Tensor
    mask: Tensor | None
    causal: bool
    rows: Tensor | None

    @classmethod
    def of(
        cls,
        position_embeddings: tuple[Tensor, Tensor],
        mask: Tensor | None,
        length: int,
        *,
        causal: bool,
        rows: Tensor | None,
    ) -> Reading:
        """Prepare a pass.

        Args:
            position_embeddings: Cosines and sines, B×L×D, whose second halves repeat the first.
            mask: As transformers makes it for torch's attention: boolean (True: attend), or added; None: see ``causal``.
            length: L.
            causal: Without a mask a token attends to earlier ones only.
            rows: See above.
        """
        cos, sin = (part[:, None, None, :, : part.shape[-1] // 2].float() for part in position_embeddings)
        causal = causal and mask is None
        if causal:
            mask = torch.ones(length, length, dtype=torch.bool, device=cos.device).tril()[None, None]
        if mask is not None and mask.dtype == torch.bool:
            # A row without any token to attend to gets a mean instead of NaN.
            mask = torch.zeros((), device=cos.device).where(mask, _LOWEST)
        return cls(torch.complex(cos, sin), mask, causal, rows)

    def part(self, texts: slice) -> Reading:
        """Return the facts about some of the texts."""
        one = slice(None)
        return Reading(
            self.rotation[texts if len(self.rotation) > 1 else one],
            self.mask if self.mask is None else self.mask[texts if len(self.mask) > 1 else one],
            self.causal,
            None if self.rows is None else self.rows[texts],
        )


def attend(projected: Tensor, heads: Heads, reading: Reading) -> Tensor:
    """Return the outputs of attention, B×L×G·S·D, or B×1×G·S·D where only one row of each text is finished.

    Scores and softmax are float32; the product with the values has the precision of ``projected``.

    Args:
        projected: B×L×G·(S+2)·D: for each group the queries of its heads, its key and its value. The numbers of a query, which is
            scaled already, and of a key are in pairs that are rotated together.
        heads: G, S and D.
        reading: The facts of the pass.
    """
    batch, length, _ = projected.shape
    rows = length if reading.rows is None else 1
    outputs = projected.new_empty(batch, rows, heads.groups * heads.shared, heads.width)
    texts = max(1, _TOKENS // length)
    for start in range(0, batch, texts):
        chosen = slice(start, start + texts)
        _attend(projected[chosen], heads, reading if texts >= batch else reading.part(chosen), outputs[chosen])
    return outputs.flatten(2)


def _attend(projected: Tensor, heads: Heads, reading: Reading, outputs: Tensor) -> None:
    """Write the outputs for a few texts."""
    batch, length, _ = projected.shape
    parts = projected.new_empty(batch, heads.groups, heads.shared + 2, length, heads.width, dtype=torch.float32)
    parts.copy_(projected.unflatten(2, (heads.groups, heads.shared + 2, heads.width)).permute(0, 2, 3, 1, 4))
    torch.view_as_complex(parts[:, :, :-1].unflatten(-1, (-1, 2))).mul_(reading.rotation)
    keys, values = parts[:, :, -2].flatten(0, 1), parts[:, :, -1].flatten(0, 1).to(projected.dtype)
    if reading.rows is not None:
        texts = torch.arange(batch, device=projected.device)
        queries = parts[texts, :, :-2, reading.rows, :].unsqueeze(3)
        mask = reading.mask
        if mask is not None:
            mask = mask.expand(batch, -1, -1, -1)[texts, :, reading.rows].unsqueeze(2)
        _compare(queries, keys, values, mask, outputs)
        return
    for start in range(0, length, _QUERIES):
        chosen = slice(start, start + _QUERIES)
        seen = start + _QUERIES if reading.causal else length
        mask = None if reading.mask is None else reading.mask[:, :, chosen, :seen]
        _compare(parts[:, :, :-2, chosen], keys[:, :seen], values[:, :seen], mask, outputs[:, chosen])


def _compare(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, outputs: Tensor) -> None:
    """Write the outputs of queries B×G×S×Q×D over keys and values BG×K×D."""
    batch, _, _, count, width = queries.shape
    scores = torch.bmm(queries.flatten(0, 1).flatten(1, 2), keys.mT)
    if mask is not None:
        scores.view(batch, -1, count, keys.shape[1]).add_(mask)
    weighted = torch.bmm(scores.softmax(-1).to(values.dtype), values)
    outputs.copy_(weighted.view(batch, -1, count, width).transpose(1, 2))
