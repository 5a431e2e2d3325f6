"""The sample that a correction is learnt from: random spans of texts (ours).

Every command that learns a correction uses this sample: ``fit``, ``adapt``, ``evaluate`` and ``index``. Much of what a correction
has to remove depends on the length of a text. Texts of one length hide it, short spans show it.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from text2token.data.corpus import sample

_SPAN_WORDS = (6, 10)  # words of a span; longer spans do worse (STSBenchmark validation)
_SPANS_PER_TEXT = 2  # a covariance needs several times more vectors than it has dimensions
_LONGEST_WORD = 20  # mean characters between spaces; in a script with more, characters take the place of words


def correction_sample(texts: Sequence[str], seed: int = 0) -> list[str]:
    """Draw two random spans of 6 to 10 words from each distinct text. A shorter text is returned whole.

    The spans do not depend on the order of the texts, so two commands that learn from the same texts learn the same correction.

    Args:
        texts: Texts of a corpus, N of them distinct.
        seed: Seed of the spans.

    Returns:
        2N spans: one of each text, then another one of each.
    """
    rng = random.Random(seed)
    shuffled = sample(texts, None, seed)  # the order in which `fit` and `adapt` draw their texts
    return [
        join_words(draw_span(split_words(text), rng.randint(*_SPAN_WORDS), rng)) for text in shuffled * _SPANS_PER_TEXT
    ]


def split_words(text: str) -> list[str]:
    """Split a text into words, each with a space after it. A text without spaces is split into characters."""
    words = text.split()
    if len(text) <= _LONGEST_WORD * len(words):
        return [f"{word} " for word in words]
    return list(text)


def draw_span(words: list[str], length: int, rng: random.Random) -> list[str]:
    """Draw contiguous words, ``length`` of them or all if there are fewer."""
    length = min(length, len(words))
    start = rng.randint(0, len(words) - length)
    return words[start : start + length]


def join_words(words: list[str]) -> str:
    """Join what :func:`split_words` has split."""
    return "".join(words).strip()
