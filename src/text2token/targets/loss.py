"""The token target loss, and padding of ragged rows to tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def token_target_loss(logits: Tensor, ids: Tensor, weights: Tensor) -> Tensor:
    """``KL(q ‖ softmax(z))``, mean over the batch, in float32.

    The loss follows the abstract of Text2Token (arXiv 2510.10224). Its sparse form is ours: only the logits at the target's ids
    are gathered, so a target costs K numbers per text instead of V.

    Args:
        logits: Token logits ``z``, B×V.
        ids: Vocabulary ids of the targets, B×K, int64. Padding may be any valid id.
        weights: Target probabilities ``q``, B×K. Each row sums to 1. Padding has weight 0.

    Returns:
        A scalar. It is 0 if the prediction equals the target.
    """
    log_p = torch.log_softmax(logits.float(), dim=-1).gather(1, ids)
    weights = weights.float()
    return (torch.xlogy(weights, weights) - weights * log_p).sum(dim=1).mean()


def pad_targets(ids: Sequence[Any], weights: Sequence[Any]) -> tuple[Tensor, Tensor]:
    """Pad ragged targets to the two B×K tensors of :func:`token_target_loss`. Padding has id 0 and weight 0."""
    return pad_rows(ids, torch.int64, 0), pad_rows(weights, torch.float32, 0)


def pad_rows(rows: Sequence[Any], dtype: torch.dtype, value: int) -> Tensor:
    """Pad rows of different lengths on the right to B×L."""
    tensors = [torch.as_tensor(row, dtype=dtype) for row in rows]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True, padding_value=value)
