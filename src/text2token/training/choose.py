"""Choose a correction without labels (ours).

We make pairs of texts that share a known part of their words. A correction is better if the cosines of its vectors rank these
pairs by that part. This measure also rewards corrections that only make words more distinct. So we choose the weakest candidate
that is at most one standard error worse than the best one, as Breiman et al. (1984) prune trees.

The order of the candidates, the part of the head's spectrum and this rule were chosen on STSBenchmark validation with one
backbone. A choice itself uses no labels.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from text2token.analysis.sts import cosine_spearman
from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.model.spans import draw_span, join_words, split_words
from text2token.settings.corrections import split_steps
from text2token.utils.progress import track

_PAIR_WORDS = (6, 14)  # words of a text in a pair: a clause to a short sentence


class Candidate(NamedTuple):
    """A correction as a recipe writes it, and the part of the head's spectrum that its filter keeps."""

    correction: str
    keep: tuple[float, float]

    @property
    def steps(self) -> list[str]:
        """The steps for :func:`text2token.model.correction.correction`."""
        return split_steps(self.correction)


class CandidateScore(NamedTuple):
    """A candidate and its agreement: Spearman's ρ, −1 … 1, between cosines and shares of common words."""

    candidate: Candidate
    agreement: float


class OverlappingPairs(NamedTuple):
    """N pairs of texts, and for each pair the share of the right text's words that it has from the left text."""

    left: list[str]
    right: list[str]
    share: NDArray[np.float64]


class SelectionData(NamedTuple):
    """Embeddings of corpus text that a choice is based on.

    Attributes:
        sample: Embeddings that corrections learn from, N×d.
        left: Embeddings of the left texts of M pairs, M×d. The pairs come from other texts than the sample.
        right: Embeddings of the right texts, M×d.
        share: The share of common words, M.
    """

    sample: Tensor
    left: Tensor
    right: Tensor
    share: NDArray[np.float64]


_KEPT = (0.2, 0.9)
CANDIDATES = (
    Candidate("none", (0.0, 1.0)),
    Candidate("centre", (0.0, 1.0)),
    Candidate("centre+filter", _KEPT),
    Candidate("centre+first-component+filter", _KEPT),
    Candidate("whiten-0.7+filter", _KEPT),
    Candidate("whiten-0.5+filter", _KEPT),
    Candidate("whiten-0.3+filter", _KEPT),
    Candidate("whiten-0.1+filter", _KEPT),
)
"""The candidates, from the weakest to the strongest correction."""


def score_candidates(
    embedder: Embedder, data: SelectionData, candidates: Sequence[Candidate], *, progress: bool = False
) -> list[CandidateScore]:
    """Learn each candidate from the sample and compute its agreement on the pairs.

    Args:
        embedder: Has a decoding head. Its own correction stays as it is.
        data: Embeddings of the same embedder.
        candidates: The corrections to compare.
        progress: Show a progress bar.
    """
    scores = []
    for candidate in track(candidates, "Choosing", unit="corrections", enabled=progress):
        learnt = correction(candidate.steps, data.sample, embedder.decoding_head, candidate.keep)
        corrected = Embedder(embedder.encoder, correction=learnt)
        vectors = corrected.densify(data.left), corrected.densify(data.right)
        scores.append(CandidateScore(candidate, cosine_spearman(*vectors, data.share)))
    return scores


def choose(scores: Sequence[CandidateScore], pairs: int) -> CandidateScore:
    """Return the first candidate within a standard error of the best one.

    Args:
        scores: From the weakest to the strongest correction.
        pairs: Number of pairs behind each agreement. The standard error is that of Spearman's correlation by Bonett and
            Wright (2000).
    """
    best = max(score.agreement for score in scores)
    error = (1 - best**2) * math.sqrt((1 + best**2 / 2) / max(pairs - 3, 1))
    return next(score for score in scores if score.agreement >= best - error)


def overlapping_pairs(texts: Sequence[str], seed: int = 0) -> OverlappingPairs:
    """Make one pair per text: a span of the text, and a span of the next text in which a part of the first span is inserted.

    The part is contiguous. Its share of the words is drawn uniformly between none and all.

    Args:
        texts: N texts, at least two.
        seed: Seed of all choices.
    """
    rng = random.Random(seed)
    left, right, shares = [], [], []
    for text, other in zip(texts, [*texts[1:], texts[0]], strict=True):
        words = draw_span(split_words(text), rng.randint(*_PAIR_WORDS), rng)
        part = draw_span(words, round(rng.random() * len(words)), rng)
        filling = draw_span(split_words(other), len(words) - len(part), rng)
        place = rng.randint(0, len(filling))
        left.append(join_words(words))
        right.append(join_words(filling[:place] + part + filling[place:]))
        shares.append(len(part) / (len(part) + len(filling)))
    return OverlappingPairs(left, right, np.array(shares))
