"""Choose a correction without labels, by how its cosines agree with overlaps that are known by construction (ours).

Known overlaps are of words, and reward whatever sharpens words. So the choice is not the best candidate but the gentlest that
is no worse by more than a standard error, the rule by which Breiman et al. (1984) prune trees. The ladder of candidates, the part
of the head's spectrum and the rule were settled on STSBenchmark validation with one backbone; a choice itself sees no label.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.settings.corrections import split_steps
from text2token.training.overlap import overlap_agreement
from text2token.utils.progress import track


class Candidate(NamedTuple):
    """A correction as a recipe has it, and the part of the head's spectrum that its filter keeps."""

    correction: str
    keep: tuple[float, float]

    @property
    def steps(self) -> list[str]:
        """Of :func:`text2token.model.correction.correction`."""
        return split_steps(self.correction)


class Judged(NamedTuple):
    """A candidate and its agreement, see :func:`text2token.training.overlap.overlap_agreement`."""

    candidate: Candidate
    agreement: float


class Evidence(NamedTuple):
    """Embeddings of corpus text that a choice rests on.

    Attributes:
        sample: Of spans, N×d; corrections learn from it.
        left: Of the pairs' left texts, M×d, from other texts than the sample.
        right: Of the right texts.
        share: What they have in common, M.
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
"""From the gentlest to the strongest."""


def judge(embedder: Embedder, evidence: Evidence, some: Sequence[Candidate], *, progress: bool = False) -> list[Judged]:
    """Agreement of each candidate, in their order.

    Args:
        embedder: With a head; its own correction is left as it is.
        evidence: From the same embedder.
        some: What is tried.
        progress: Show a bar.
    """
    judged = []
    for candidate in track(some, "Choosing", unit="corrections", enabled=progress):
        learnt = correction(candidate.steps, evidence.sample, embedder.decoding_head, candidate.keep)
        corrected = Embedder(embedder.encoder, correction=learnt)
        sides = corrected.densify(evidence.left), corrected.densify(evidence.right)
        judged.append(Judged(candidate, overlap_agreement(*sides, evidence.share)))
    return judged


def choose(judged: Sequence[Judged], pairs: int) -> Judged:
    """The first that is within a standard error of the best.

    Args:
        judged: From the gentlest to the strongest.
        pairs: How many the agreement is over; its standard error is that of Bonett and Wright (2000) for Spearman's correlation.
    """
    best = max(row.agreement for row in judged)
    r = best / 100
    error = 100 * (1 - r**2) * math.sqrt((1 + r**2 / 2) / max(pairs - 3, 1))
    return next(row for row in judged if row.agreement >= best - error)
