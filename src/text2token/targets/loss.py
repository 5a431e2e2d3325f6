"""The token target loss, and ragged targets as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def token_target_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """``KL(q ‖ softmax(z))``, mean over the batch, in float32 (Text2Token, arXiv 2510.10224: abstract; sparse form ours).

    Only the logits at the target's ids are gathered, so a target costs K numbers a text and not V.

    Args:
        logits: Token logits ``z``, B×V.
        ids: Vocabulary ids of the targets, B×K, int64; padding may be any valid id.
        weights: Target probabilities ``q``, B×K, each row sums to 1; padding has weight 0.

    Returns:
        A scalar, 0 where the prediction equals the target.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1).gather(1, ids)
    weights = weights.float()
    return (torch.xlogy(weights, weights) - weights * log_p).sum(dim=1).mean()


def pad_targets(ids: Sequence[Any], weights: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Ragged targets as the two B×K tensors of :func:`token_target_loss`; padding has id 0 and weight 0."""
    return pad_rows(ids, torch.int64, 0), pad_rows(weights, torch.float32, 0)


def pad_rows(rows: Sequence[Any], dtype: torch.dtype, value: int) -> Tensor:
    """Rows of any lengths, padded on the right to B×L."""
    tensors = [torch.as_tensor(row, dtype=dtype) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
