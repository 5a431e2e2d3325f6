"""The similarity loss against a hand-computed value, and what it must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from text2token.targets.similarity import agreement, similarity_loss


def cross(cosine):
    """Two opposite vectors, and two more at an angle to them; their mean is zero."""
    first, second = torch.tensor([1.0, 0.0]), torch.tensor([cosine, math.sqrt(1 - cosine**2)])
    return torch.stack([first, -first, second, -second])


def test_by_hand():
    # cos / 0.05 is ±ln(3) / 2 for the teacher and 0 for the model, and -20 for an opposite vector, which hardly counts:
    # KL([3/4 1/4] ‖ [1/2 1/2]) in each of the four rows
    wanted = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    teacher, model = cross(0.05 * math.log(3) / 2), cross(0.0)
    assert similarity_loss(model, teacher).item() == pytest.approx(wanted, abs=1e-5)
    assert similarity_loss(7 * model + torch.tensor([3.0, -2.0]), teacher).item() == pytest.approx(wanted, abs=1e-5)
    assert similarity_loss(model, teacher.half()).item() == pytest.approx(wanted, abs=1e-3)


@given(st.integers(0, 2**31), st.integers(3, 9))
def test_it_depends_on_relations_alone(seed, size):
    generator = torch.Generator().manual_seed(seed)
    vectors, teacher = torch.randn(size, 5, generator=generator), torch.randn(size, 4, generator=generator)
    rotation = torch.linalg.qr(torch.randn(5, 5, generator=generator)).Q
    moved = 3 * vectors @ rotation + torch.randn(5, generator=generator)
    order = torch.randperm(size, generator=generator)
    loss = similarity_loss(vectors, teacher)
    assert loss > 0
    torch.testing.assert_close(similarity_loss(moved, teacher), loss, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(similarity_loss(vectors[order], teacher[order]), loss, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(similarity_loss(moved, vectors), torch.tensor(0.0), rtol=0, atol=1e-3)


@pytest.mark.parametrize("size", [1, 2])
def test_too_few_texts_give_neither_loss_nor_gradient(size):
    vectors = torch.randn(size, 3, requires_grad=True)
    loss = similarity_loss(vectors, torch.randn(size, 2))
    loss.backward()
    assert loss == 0
    assert torch.equal(vectors.grad, torch.zeros(size, 3))


def test_agreement_by_hand():
    square = cross(0.0)
    assert agreement(square, 3 * square + 1) == pytest.approx(1)
    # cosines of the six pairs: -1 0 0 0 0 -1; with the second and the third point exchanged: 0 -1 0 0 -1 0
    assert agreement(square, square[[0, 2, 1, 3]]) == pytest.approx(-0.5)
    assert math.isnan(agreement(square[:2], square[:2]))
