"""Measures the vocabulary space and the representation space of an embedder at points along its training.

Text2Token (arXiv 2510.10224, abstract) says that training optimises both spaces together. The choice of the numbers that
describe a space is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from text2token.analysis.alignment import AlignmentSettings, align_embeddings
from text2token.analysis.metrics import CATEGORIES
from text2token.analysis.sts import cosine_spearman
from text2token.data.sts import ScoredPairs, read_sts
from text2token.model.embedder import Embedder
from text2token.targets.loss import token_target_loss
from text2token.targets.store import TargetStore

_PAIRS = 150  # drawn from the STS file. Each point encodes them again, so more would slow the training down.
_POSITIVE = 0.8  # share of the range of scores from which a pair is positive: 4 of 5, as SimCSE does (arXiv 2104.08821)


class Quantity(NamedTuple):
    """A measured quantity. ``better`` is 1 if larger values are better, and −1 if smaller ones are."""

    label: str
    better: int


VOCABULARY = {
    "target_loss": Quantity("target loss, nats", -1),
    "hit": Quantity("Hit@10", 1),
    "local": Quantity("local alignment rate", 1),
    "global": Quantity("global alignment rate", 1),
    **{name: Quantity(name, better) for name, better in zip(CATEGORIES, (1, -1, 1, -1), strict=True)},
}
REPRESENTATION = {
    "alignment": Quantity("alignment of positives", -1),
    "uniformity": Quantity("uniformity", -1),
    "first_component": Quantity("u₁ energy", -1),
    "sts": Quantity("STS, Spearman", 1),
}


def measured_pairs(sts: str | None) -> ScoredPairs | None:
    """Read the pairs of an STS file, if one is given: at most 150.

    Raises:
        UserError: The file cannot be read.
    """
    return read_sts(sts, _PAIRS) if sts else None


@dataclass(frozen=True)
class Dynamics:
    """The texts on which an embedder is measured during its training. Embeddings are not corrected.

    Attributes:
        embedder: The embedder in training.
        texts: N held-out texts.
        pairs: Pairs with gold scores. None: the two halves of a text are a positive pair, and ``sts`` is not measured.
        stop_words: Languages of the stop lists for the token categories.
    """

    embedder: Embedder
    texts: Sequence[str]
    pairs: ScoredPairs | None
    stop_words: str

    @property
    def positives(self) -> str:
        """A phrase that says which pairs of texts should lie close together."""
        if self.pairs is None:
            return "both halves of a held-out text"
        return f"{self._positive(self.pairs).sum()} STS pairs with a score of {self._threshold(self.pairs):g} or more"

    def measure(self, targets: TargetStore) -> dict[str, float]:
        """Measure both spaces of the embedder in its present state.

        Args:
            targets: Token targets of ``texts``.

        Returns:
            A number for each quantity of ``VOCABULARY`` and ``REPRESENTATION``; ``sts`` (−1 to 1) only with scored pairs.
        """
        embeddings = self.embedder.embed(self.texts)
        settings = AlignmentSettings(stop_words=self.stop_words)
        alignments = align_embeddings(self.embedder, embeddings, self.texts, settings)
        return {
            "target_loss": float(token_target_loss(self.embedder.decoding_head(embeddings), *targets.padded())),
            **alignments["rates"],
            **alignments["categories"],
            "uniformity": uniformity(embeddings),
            "first_component": first_component_energy(embeddings),
            **self._measure_pairs(),
        }

    def _measure_pairs(self) -> dict[str, float]:
        if self.pairs is None:
            cut = [halves(text) for text in self.texts if len(text) > 1]
            embeddings = self.embedder.embed([half for both in cut for half in both])
            return {"alignment": alignment(embeddings[::2], embeddings[1::2])} if cut else {}
        close = torch.from_numpy(self._positive(self.pairs))
        one, other = self.embedder.embed(self.pairs.first), self.embedder.embed(self.pairs.second)
        return {
            "alignment": alignment(one[close], other[close]),
            "sts": cosine_spearman(one, other, self.pairs.scores),
        }

    @staticmethod
    def _threshold(pairs: ScoredPairs) -> float:
        return float(pairs.scores.min() + _POSITIVE * np.ptp(pairs.scores))

    def _positive(self, pairs: ScoredPairs) -> NDArray[np.bool_]:
        return pairs.scores >= self._threshold(pairs)


def alignment(first: Tensor, second: Tensor) -> float:
    """Mean squared distance of positive pairs on the unit sphere, 0 to 4 (Wang & Isola, arXiv 2005.10242, α = 2).

    Args:
        first: Embeddings of the first text of each pair, N×d. Their length does not matter.
        second: Embeddings of the second text of each pair, N×d.
    """
    return float((normalize(first) - normalize(second)).square().sum(dim=1).mean())


def uniformity(embeddings: Tensor) -> float:
    """``log mean exp(−2‖x − y‖²)`` over all pairs on the unit sphere, −8 to 0 (the same paper, t = 2).

    0 means that all embeddings point in the same direction.
    """
    return float(torch.pdist(normalize(embeddings)).square().mul(-2).exp().mean().log())


def first_component_energy(embeddings: Tensor) -> float:
    """Share of the first principal component in the squared length of embeddings N×d; uncentred, as in arXiv 2406.17378."""
    energies = torch.linalg.svdvals(embeddings).square()
    return float(energies[0] / energies.sum())


def halves(text: str) -> tuple[str, str]:
    """Cut a text of at least two characters at the space nearest to its middle, or in the middle if it has no space."""
    middle = len(text) // 2
    spaces = [place for place, character in enumerate(text) if character == " "]
    cut = min(spaces, key=lambda place: abs(place - middle), default=middle)
    return text[:cut].strip(), text[cut:].strip()
