"""The token target loss against hand-computed values and an independent form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.modules import Pooling

from text2token.model.head import DecodingHead
from text2token.targets.loss import pad_targets, token_target_loss
from text2token.training.objective import TokenTargets
from text2token.training.trainer import on_device


def test_by_hand():
    logits = torch.tensor([[0.0, 0.0, 0.0, 0.0], [math.log(3), 0.0, -torch.inf, -torch.inf]])
    ids, weights = pad_targets([[0, 1], [0]], [[0.5, 0.5], [1.0]])
    # KL([.5 .5] ‖ [.25]*4) = log 2; KL([1] ‖ [.75 .25]) = -log .75
    assert token_target_loss(logits, ids, weights).item() == pytest.approx((math.log(2) - math.log(0.75)) / 2)


@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 30))
def test_equals_dense_kl_and_is_zero_at_the_target(seed, batch, size):
    generator = torch.Generator().manual_seed(seed)
    target = torch.rand(batch, size, generator=generator) * (torch.rand(batch, size, generator=generator) > 0.5)
    target[:, 0] += 0.1
    target /= target.sum(1, keepdim=True)
    logits = torch.randn(batch, size, generator=generator)
    rows = [row.nonzero().ravel() for row in target]
    ids, weights = pad_targets(rows, [row[i] for row, i in zip(target, rows, strict=True)])
    dense = torch.nn.functional.kl_div(logits.log_softmax(-1), target, reduction="batchmean")
    loss = token_target_loss(logits, ids, weights)
    torch.testing.assert_close(loss, dense, rtol=1e-4, atol=1e-5)
    assert loss >= -1e-5
    at_target = token_target_loss((target + 1e-12).log(), ids, weights)
    torch.testing.assert_close(at_target, torch.tensor(0.0), rtol=0, atol=1e-4)


def test_gradient_reaches_the_embedding_and_not_the_head():

    head = DecodingHead(torch.randn(7, 3))
    embedding = torch.randn(2, 3, requires_grad=True)
    ids, weights = pad_targets([[1, 2], [3]], [[0.5, 0.5], [1.0]])
    token_target_loss(head(embedding), ids, weights).backward()
    assert embedding.grad is not None
    assert embedding.grad.abs().sum() > 0
    assert head.weight.grad is None


def test_training_elsewhere_leaves_the_head_of_the_embedder_where_it_is():
    objective = TokenTargets(Pooling(4), DecodingHead(torch.ones(9, 4)))
    moved = on_device(objective, torch.device("meta"))
    assert moved.head.weight.device.type == "meta"
    assert objective.head.weight.device.type == "cpu"
    assert on_device(objective, torch.device("cpu")) is objective  # a head has up to a gigabyte
