"""The order of the texts in training."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from more_itertools import chunked

from text2token.training.batches import SimilarLengths


@pytest.mark.parametrize("number", [1, 7, 8, 9, 100])
def test_every_text_comes_once_and_the_same_seed_gives_the_same_order(number):
    lengths = [random.Random(i).randint(5, 60) for i in range(number)]
    order = list(SimilarLengths(lengths, 8, seed=3))
    assert len(SimilarLengths(lengths, 8, seed=3)) == number
    assert sorted(order) == list(range(number))
    assert order == list(SimilarLengths(lengths, 8, seed=3))
    assert number < 100 or order != list(SimilarLengths(lengths, 8, seed=4))


def test_groups_hardly_overlap_in_length_and_come_in_random_order():
    lengths = [random.Random(i).randint(5, 60) for i in range(400)]
    groups = [[lengths[i] for i in group] for group in chunked(SimilarLengths(lengths, 8, seed=0), 8)]
    padded, real = sum(8 * max(group) for group in groups), sum(lengths)
    assert padded / real < 1.03
    assert max(groups[0]) == max(lengths)
    longest = [max(group) for group in groups[1:]]
    falling = sum(left >= right for left, right in pairwise(longest)) / len(longest)
    assert 0.3 < falling < 0.7
