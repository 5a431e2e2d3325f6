"""The target builders of a recipe's stages."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from text2token.model.embedder import Embedder
from text2token.model.template import room_for_text
from text2token.model.vocabulary import read_vocabulary
from text2token.settings.recipe import Recipe
from text2token.targets.base import TargetBuilder
from text2token.targets.combine import Combined
from text2token.targets.data_driven import CorpusStatistics, DataDriven, form_sharing
from text2token.targets.model_derived import ModelDerived


def make_builders(
    embedder: Embedder, statistics: CorpusStatistics, texts: Sequence[str], recipe: Recipe, weights: str
) -> dict[int, TargetBuilder]:
    """Stage 1: data-driven. Stage 2: model-derived, mixed with ``recipe.mixing`` of data-driven.

    Args:
        embedder: Untrained; gives tokenizer and vocabulary size.
        statistics: Of the corpus.
        texts: A sample of the corpus, for the common component of the priors.
        recipe: Weighting, filters, templates.
        weights: SHA-256 of the backbone's weights, :func:`text2token.model.fingerprint.backbone_checksum`.
    """
    size = embedder.vocabulary_size
    vocabulary = read_vocabulary(embedder.tokenizer, size, recipe.stop_words)
    frequent = statistics.document_frequency > recipe.max_document_share * statistics.texts
    if recipe.merge_forms:  # a form shares its weight with the others, so that none of a frequent one's is a target
        frequent = np.isin(vocabulary.surface_groups, vocabulary.surface_groups[frequent & vocabulary.meaningful])
    keep = vocabulary.meaningful & ~frequent
    data_driven = DataDriven(
        embedder.tokenizer,
        statistics,
        keep,
        vocabulary.special,
        form_sharing(vocabulary) if recipe.merge_forms else None,
        recipe.weighting,
        room_for_text(embedder.tokenizer, recipe.train_length),
    )
    if recipe.mixing == 1:
        return {1: data_driven, 2: data_driven}
    model_derived = ModelDerived(
        lambda: embedder if recipe.attention == "own" else Embedder.open(recipe.backbone),
        weights,
        tuple(recipe.prior_text_templates()),
        tuple(texts[: recipe.prior_texts]),
        keep & ~vocabulary.fragment,
        recipe.common,
        recipe.top_k,
        recipe.temperature,
        recipe.train_length,
    )
    if recipe.mixing == 0:
        return {1: data_driven, 2: model_derived}
    return {1: data_driven, 2: Combined(data_driven, model_derived, recipe.mixing, size)}
