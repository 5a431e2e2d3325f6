"""Model-derived token targets: what the frozen backbone itself would say of a text, beyond the words in it.

Text2Token (arXiv 2510.10224) derives targets from the backbone's prior; templates, noise removal and filter are ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.head import mean_logits
from text2token.settings.templates import Template
from text2token.targets.base import Targets, checksum

CommonComponent = Literal["mean", "first-component"]


@dataclass(frozen=True)
class Prior:
    """The frozen backbone's next-token logits for a text, less what it says of every text.

    Attributes:
        embedder: The frozen backbone under an EOL-type template, with last-token pooling.
        mean_logits: V, subtracted from the logits; zeros when the first component is removed instead.
        direction: Unit vector d, projected out of the embedding before it is decoded; zeros when the mean is subtracted.
    """

    embedder: Embedder
    mean_logits: Tensor
    direction: Tensor

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N×V float32 logits."""
        embeddings = self.embedder.embed(texts)
        rest = embeddings - torch.outer(embeddings @ self.direction, self.direction)
        logits: Tensor = self.embedder.decoding_head(rest)
        return logits - self.mean_logits


def estimate_prior(embedder: Embedder, sample: Sequence[str], common: CommonComponent = "mean") -> Prior:
    """Learn the common component of a backbone's priors from a sample of the corpus.

    Args:
        embedder: Untrained, under the template, with last-token pooling.
        sample: Some hundred texts are enough for a component that all texts share.
        common: ``mean``: the corpus-mean logits. ``first-component``: the first right singular vector of the uncentred
            embeddings, the u₁ of arXiv 2406.17378.
    """
    embeddings = embedder.embed(sample)
    zeros = Prior(embedder, torch.zeros(embedder.vocabulary_size), torch.zeros(embeddings.shape[1]))
    if common == "first-component":
        _, directions = torch.linalg.eigh(embeddings.T @ embeddings)
        return Prior(embedder, zeros.mean_logits, directions[:, -1])
    return Prior(embedder, mean_logits(embedder.decoding_head, embeddings, capped=True), zeros.direction)


@dataclass(frozen=True)
class ModelDerived:
    """Build targets from the backbone's priors: batch of texts → :class:`Targets`.

    The logits under all templates are averaged (what one template says by accident the others do not), noise entries are
    filtered out, the top ``top_k`` are kept, and a softmax makes them a distribution. The backbone is opened at the first
    call, since a finished target store needs none.

    Attributes:
        backbone: Opens the untrained backbone with the attention that it was trained with; called before any training.
        weights: SHA-256 of the backbone's weights, for the settings: what a name stands for may change.
        templates: One or more EOL-type templates.
        sample: Texts of the corpus to learn the common component from.
        keep: V booleans, the entries that may be targets.
        common: What is removed, see :func:`estimate_prior`.
        top_k: Tokens a target keeps. 64 (ours): what follows is below the noise.
        temperature: Of the softmax. 1 (ours) keeps the backbone's own sharpness.
        max_length: Tokens of a text that the backbone reads, template included.
    """

    backbone: Callable[[], Embedder]
    weights: str
    templates: tuple[Template, ...]
    sample: tuple[str, ...]
    keep: NDArray[np.bool_]
    common: CommonComponent = "mean"
    top_k: int = 64
    temperature: float = 1.0
    max_length: int = 64

    @property
    def settings(self) -> dict[str, object]:
        """All that the targets depend on but text and tokenizer."""
        return {
            "builder": "model-derived",
            "backbone": self.weights,
            "templates": [asdict(template) for template in self.templates],
            "common": self.common,
            "common_texts": hashlib.sha256("\0".join(self.sample).encode()).hexdigest(),
            "top_k": self.top_k,
            "temperature": self.temperature,
            "max_length": self.max_length,
            "keep": checksum(self.keep),
        }

    @cached_property
    def priors(self) -> list[Prior]:
        """One per template."""
        backbone = self.backbone()
        views = [
            backbone.with_settings(pooling="last", template=template, max_length=self.max_length)
            for template in self.templates
        ]
        return [estimate_prior(replace(view, bf16=True), self.sample, self.common) for view in views]

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Targets of a batch."""
        logits = torch.zeros(len(texts), len(self.keep))
        for prior in self.priors:
            logits += prior(texts) / len(self.priors)
        logits[:, ~torch.from_numpy(self.keep)] = -torch.inf
        top = logits.topk(min(self.top_k, int(self.keep.sum())), dim=1)
        weights = torch.softmax(top.values / self.temperature, dim=1)
        return Targets(list(top.indices.int().numpy()), list(weights.numpy()))
