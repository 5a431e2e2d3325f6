"""Choose a correction without labels: the one whose cosines agree best with overlaps that are known by construction (ours)."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from text2token.adapt.affine import correction
from text2token.adapt.overlap import overlap_agreement
from text2token.adapt.steps import parse_steps
from text2token.embedder import Embedder
from text2token.progress import track

_CHAINS = ("none", "centre", "centre+first-component", "centre+remove-8", "centre+remove-32",
           "whiten-0.1", "whiten-0.3", "whiten-0.5", "whiten-0.7")  # fmt: skip
_KEPT = ((0.0, 1.0), (0.02, 0.9), (0.1, 0.9), (0.2, 0.9))  # of the head's spectrum; the first is no filter


class Candidate(NamedTuple):
    """A correction as a recipe has it, and the part of the head's spectrum that its filter keeps."""

    correction: str
    keep: tuple[float, float]

    @property
    def steps(self) -> list[str]:
        """Of :func:`text2token.adapt.affine.correction`."""
        return _steps(self.correction)


class Judged(NamedTuple):
    """A candidate and its agreement, see :func:`text2token.adapt.overlap.overlap_agreement`."""

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


def candidates(dimension: int) -> list[Candidate]:
    """Every chain alone and with each filter, the simplest first; none that removes all of the dimensions."""
    fitting = [chain for chain in _CHAINS if all((step.value or 0) < dimension for step in parse_steps(_steps(chain)))]
    return [
        Candidate(chain, keep) if keep == (0.0, 1.0) else Candidate("+".join([*_steps(chain), "filter"]), keep)
        for keep, chain in product(_KEPT, fitting)
    ]


def judge(embedder: Embedder, evidence: Evidence, some: list[Candidate], *, progress: bool = False) -> list[Judged]:
    """Agreement of each candidate, the best first; of equals the simpler one is.

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
    return sorted(judged, key=lambda row: -row.agreement)


def _steps(chain: str) -> list[str]:
    return [] if chain == "none" else chain.split("+")
