"""The order of the texts in training: each step has texts of similar length, and the steps come in random order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Sampler


class SimilarLengths(Sampler[int]):
    """Draw each text once, in groups of similar length.

    All texts are sorted by length, so that nearly no padding is left, and cut into groups of one step each. Texts of equal length
    are shuffled, and so are the groups. transformers' own sampler sorts within sections of 50 batches or fewer, from long to
    short. The group with the longest text comes first, where a lack of memory shows at once, and an incomplete group last.

    Args:
        lengths: Number of tokens of each text.
        size: Texts of a step.
        seed: The order depends on it alone, so that it is the same in every process and after a resume.
    """

    def __init__(self, lengths: Sequence[int] | NDArray[np.int32], size: int, seed: int) -> None:
        self._lengths, self._size, self._seed = torch.as_tensor(lengths), size, seed

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = torch.Generator().manual_seed(self._seed)
        shuffled = torch.randperm(len(self), generator=random)
        by_length = shuffled[self._lengths[shuffled].argsort(descending=True, stable=True)]
        longest, *groups = by_length.split(self._size)
        whole = [group for group in groups if len(group) == self._size]
        order = [longest, *(whole[i] for i in torch.randperm(len(whole), generator=random)), *groups[len(whole) :]]
        for group in order:
            yield from group.tolist()
