"""Combined token targets: a mixture of two builders' targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from text2token.targets.base import TargetBuilder, Targets, from_matrix, to_matrix


@dataclass(frozen=True)
class Combined:
    """``mixing · first + (1 − mixing) · second``: batch of texts → :class:`Targets`.

    Where one of the two has no target for a text the other's counts alone.

    Attributes:
        first: A builder, usually data-driven.
        second: Another, usually model-derived.
        mixing: Share of the first, 0 … 1.
        vocabulary_size: V.
    """

    first: TargetBuilder
    second: TargetBuilder
    mixing: float
    vocabulary_size: int

    @property
    def settings(self) -> dict[str, object]:
        """All that the targets depend on but text, corpus and tokenizer."""
        return {
            "builder": "combined",
            "mixing": self.mixing,
            "first": self.first.settings,
            "second": self.second.settings,
        }

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Targets of a batch."""
        first, second = (to_matrix(builder(texts), self.vocabulary_size) for builder in (self.first, self.second))
        return from_matrix((self.mixing * first + (1 - self.mixing) * second).tocsr())
