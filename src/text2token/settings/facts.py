"""What a record says of the parts of a run: its corpus, models, targets, measurements and examples."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Number = int | float | None
"""A measured number. NaN and infinity are written as null and read as None."""
Row = dict[str, Number]
"""Measured numbers by name."""
Measure = Literal[
    "target_loss_stage_1", "target_loss_stage_2", "teacher_agreement", "overlap", "pair_cosine", "pair_cosine_dense"
]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CorpusFacts(_Part):
    """The corpus of a run.

    Attributes:
        name: The name shown to people.
        fingerprint: SHA-256 of the cleaned texts in order.
        texts: Number of texts in the corpus. Format 1 has the drawn texts for ``adapt``, and no number for ``baseline``.
    """

    name: str
    fingerprint: str
    texts: int | None = None


class BackboneFacts(_Part):
    """The untrained language model that a run started from.

    Attributes:
        name: The name in the recipe.
        source: The language model whose decoding head the run has, with a path that holds in any directory. It is not ``name``
            if that is a model that was fitted before.
        dimension: Width of an embedding, d.
        vocabulary: Rows of the decoding head, V.
        sha256: Checksum of all weights, decoding head included.
    """

    name: str
    source: str
    dimension: int
    vocabulary: int
    sha256: str


class TeacherFacts(_Part):
    """The finished embedder that a model learnt from.

    Attributes:
        name: The name that the user gave.
        fingerprint: SHA-256 of what its vectors depend on.
    """

    name: str
    fingerprint: str


class TargetFacts(_Part):
    """The targets of one training stage."""

    stage: int
    builder: str
    texts: int
    mass_beyond_text: Number


class DynamicsFacts(_Part):
    """Measurements along a training.

    Attributes:
        positives: Says which pairs of texts should lie close together.
        rows: One row per point, with ``stage`` and ``step``. Empty when the recipe asked for none.
    """

    positives: str
    rows: list[Row]


class Example(_Part):
    """A held-out text and its aligned tokens with their weights, before and after the run."""

    text: str
    before: list[tuple[str, Number]]
    after: list[tuple[str, Number]]


class CandidateFacts(_Part):
    """A correction that ``adapt`` compared.

    Attributes:
        correction: Its steps, as a recipe writes them.
        keep: The kept part of the decoding head's spectrum. None without a filter.
        overlap: Spearman's ρ between cosines and known overlaps, −1 … 1.
    """

    correction: str
    keep: tuple[float, float] | None
    overlap: Number
