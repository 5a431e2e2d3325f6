"""Texts whose similarity is known by construction, from a corpus alone: spans, and pairs that share a known part (ours)."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor

_WORDS = (6, 14)  # of a text in a pair: a clause to a short sentence
_SPAN = (6, 10)  # of a span to learn from; shorter ones teach more about what to remove (STSBenchmark validation)
_LONGEST_WORD = (
    20  # mean characters between spaces; with more, the script writes none, and characters take the place of words
)


class OverlappingPairs(NamedTuple):
    """N pairs of texts, and the share of its words that the right one has from the left one."""

    left: list[str]
    right: list[str]
    share: NDArray[np.float64]


def spans(texts: Sequence[str], seed: int = 0) -> list[str]:
    """A random span of 6 to 10 words of each text, N; a shorter text is its own.

    Corrections learn from spans and not from whole texts, because much of what they have to remove depends on the length of a
    text: sentences of one length hide it.
    """
    rng = random.Random(seed)
    return [_join(_span(_words(text), rng.randint(*_SPAN), rng)) for text in texts]


def overlapping_pairs(texts: Sequence[str], seed: int = 0) -> OverlappingPairs:
    """For each text a span, and another one that keeps a part of it inside a span of the next text.

    The part is contiguous, and its share of the words uniform between none and all.

    Args:
        texts: N, at least two.
        seed: Of all choices.
    """
    rng = random.Random(seed)
    left, right, shares = [], [], []
    for text, other in zip(texts, [*texts[1:], texts[0]], strict=True):
        words = _span(_words(text), rng.randint(*_WORDS), rng)
        kept = _span(words, round(rng.random() * len(words)), rng)
        filling = _span(_words(other), len(words) - len(kept), rng)
        place = rng.randint(0, len(filling))
        left.append(_join(words))
        right.append(_join(filling[:place] + kept + filling[place:]))
        shares.append(len(kept) / (len(kept) + len(filling)))
    return OverlappingPairs(left, right, np.array(shares))


def overlap_agreement(left: Tensor, right: Tensor, share: NDArray[np.float64]) -> float:
    """Spearman correlation × 100 of the cosines of dense vectors, N×k each, with the share that their texts have in common."""
    cosines = torch.nn.functional.cosine_similarity(left, right)
    return 100 * float(spearmanr(cosines.numpy(), share).statistic)


def _words(text: str) -> list[str]:
    words = text.split()
    if len(text) <= _LONGEST_WORD * len(words):
        return [f"{word} " for word in words]
    return list(text)


def _span(words: list[str], length: int, rng: random.Random) -> list[str]:
    length = min(length, len(words))
    start = rng.randint(0, len(words) - length)
    return words[start : start + length]


def _join(words: list[str]) -> str:
    return "".join(words).strip()
