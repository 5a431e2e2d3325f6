"""Choose the target builder of each training stage, and mix two builders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from text2token.model.embedder import Embedder
from text2token.model.template import room_for_text
from text2token.model.vocabulary import read_vocabulary
from text2token.settings.choices import Weighting
from text2token.settings.templates import named_templates
from text2token.targets.base import TargetBuilder, Targets, from_matrix, to_matrix
from text2token.targets.data_driven import CorpusStatistics, DataDriven, form_sharing
from text2token.targets.model_derived import ModelDerived


@dataclass(frozen=True)
class TargetSettings:
    """The settings that targets depend on. Names, defaults and meanings are those of :class:`text2token.Recipe`."""

    backbone: str
    attention: str
    stop_words: str
    max_document_share: float
    weighting: Weighting
    merge_forms: bool
    prior_templates: str
    prior_texts: int
    top_k: int
    temperature: float
    mixing: float
    train_length: int


def make_builders(
    embedder: Embedder, statistics: CorpusStatistics, texts: Sequence[str], settings: TargetSettings, weights: str
) -> dict[int, TargetBuilder]:
    """The builder of stage 1 is data-driven. That of stage 2 mixes ``mixing`` data-driven with model-derived targets.

    Args:
        embedder: Untrained. Gives the tokenizer and the vocabulary size.
        statistics: Token counts of the corpus.
        texts: A sample of the corpus. The last ``prior_texts`` show what all priors have in common. They belong to the last
            stage, whose targets need their priors anyway.
        settings: Weighting, filters and templates.
        weights: SHA-256 of the backbone's weights, :func:`text2token.model.fingerprint.backbone_checksum`.
    """
    size = embedder.vocabulary_size
    vocabulary = read_vocabulary(embedder.tokenizer, size, settings.stop_words)
    frequent = statistics.document_frequency > settings.max_document_share * statistics.texts
    if settings.merge_forms:  # Surface forms share one weight. If one form is too frequent, exclude the whole group.
        frequent = np.isin(vocabulary.surface_groups, vocabulary.surface_groups[frequent & vocabulary.meaningful])
    allowed = vocabulary.meaningful & ~frequent
    data_driven = DataDriven(
        embedder.tokenizer,
        statistics,
        allowed,
        vocabulary.special,
        form_sharing(vocabulary) if settings.merge_forms else None,
        settings.weighting,
        room_for_text(embedder.tokenizer, settings.train_length),
    )
    if settings.mixing == 1:
        return {1: data_driven, 2: data_driven}
    model_derived = ModelDerived(
        lambda: embedder if settings.attention == "own" else _with_own_attention(settings),
        weights,
        named_templates(settings.prior_templates),
        tuple(texts[-settings.prior_texts :]),
        allowed & ~vocabulary.fragment,
        settings.top_k,
        settings.temperature,
        settings.train_length,
    )
    if settings.mixing == 0:
        return {1: data_driven, 2: model_derived}
    return {1: data_driven, 2: Combined(data_driven, model_derived, settings.mixing, size)}


@dataclass(frozen=True)
class Combined:
    """Mix the targets of two builders: ``mixing · first + (1 − mixing) · second``.

    If one builder has no target for a text, the target of the other one is used alone.

    Attributes:
        first: Usually the data-driven builder.
        second: Usually the model-derived builder.
        mixing: Share of the first builder, 0 … 1.
        vocabulary_size: V.
    """

    first: TargetBuilder
    second: TargetBuilder
    mixing: float
    vocabulary_size: int

    @property
    def settings(self) -> dict[str, object]:
        """Everything except text and tokenizer that the targets depend on."""
        return {
            "builder": "combined",
            "mixing": self.mixing,
            "first": self.first.settings,
            "second": self.second.settings,
        }

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Build the targets of a batch."""
        first, second = (to_matrix(builder(texts), self.vocabulary_size) for builder in (self.first, self.second))
        return from_matrix((self.mixing * first + (1 - self.mixing) * second).tocsr())


def _with_own_attention(settings: TargetSettings) -> Embedder:
    """Open the backbone with the attention that it was trained with."""
    template = named_templates(settings.prior_templates)[0]
    return Embedder.open(settings.backbone, pooling="last", template=template, max_length=settings.train_length)
