"""Model-derived token targets: the tokens that the frozen backbone itself predicts for a text.

Text2Token (arXiv 2510.10224, abstract) derives targets from the backbone's prior. The templates, the removal of the common
component and the filter are ours.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.head import mean_logits
from text2token.settings.templates import Template
from text2token.targets.base import Targets, checksum, texts_checksum


@dataclass(frozen=True)
class Prior:
    """The frozen backbone's next-token logits for a text, minus their mean over the corpus.

    Attributes:
        embedder: The frozen backbone under an EOL-type template, with last-token pooling.
        mean_logits: V logits, the mean over a sample of the corpus.
        known: Embeddings of the texts of that sample, d numbers each.
    """

    embedder: Embedder
    mean_logits: Tensor
    known: Mapping[str, Tensor]

    @torch.no_grad()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """N×V float32 logits."""
        new = [text for text in dict.fromkeys(texts) if text not in self.known]
        embeddings = {**self.known, **dict(zip(new, self.embedder.embed(new), strict=True))}
        logits: Tensor = self.embedder.decoding_head(torch.stack([embeddings[text] for text in texts]))
        return logits - self.mean_logits


@torch.no_grad()
def estimate_prior(embedder: Embedder, sample: Sequence[str]) -> Prior:
    """Learn the mean logits of a backbone from a sample of the corpus.

    Args:
        embedder: Untrained, under the template, with last-token pooling.
        sample: Some hundred texts are enough, because all texts share the mean.
    """
    embeddings = embedder.embed(sample)
    known = dict(zip(sample, embeddings, strict=True))
    return Prior(embedder, mean_logits(embedder.decoding_head, embeddings, capped=True), known)


@dataclass(frozen=True)
class ModelDerived:
    """Builds targets from the backbone's priors.

    The logits are averaged over all templates, which removes what a single template adds. Tokens that are not allowed are
    removed. A softmax over the ``top_k`` largest logits gives the weights. The backbone is opened at the first call, because a
    complete target store never calls the builder.

    Attributes:
        backbone: Opens the untrained backbone with the attention that it was trained with. It is called before any training.
        weights: SHA-256 of the backbone's weights. It belongs to the settings because a name can come to mean other weights.
        templates: One or more EOL-type templates.
        sample: Texts of the corpus for the mean logits.
        keep: V booleans, the tokens that may be targets.
        top_k: Tokens per target. 64 (ours): the tokens after it are noise.
        temperature: Temperature of the softmax. 1 (ours) keeps the backbone's own sharpness.
        max_length: Tokens of a text that the backbone reads, template included.
    """

    backbone: Callable[[], Embedder]
    weights: str
    templates: tuple[Template, ...]
    sample: tuple[str, ...]
    keep: NDArray[np.bool_]
    top_k: int = 64
    temperature: float = 1.0
    max_length: int = 64

    @property
    def settings(self) -> dict[str, object]:
        """Everything except text and tokenizer that the targets depend on."""
        return {
            "builder": "model-derived",
            "backbone": self.weights,
            "templates": [asdict(template) for template in self.templates],
            "mean_of": texts_checksum(self.sample),
            "top_k": self.top_k,
            "temperature": self.temperature,
            "max_length": self.max_length,
            "keep": checksum(self.keep),
        }

    @cached_property
    def priors(self) -> list[Prior]:
        """One prior per template."""
        backbone = self.backbone()
        views = [
            backbone.with_settings(pooling="last", template=template, max_length=self.max_length)
            for template in self.templates
        ]
        return [estimate_prior(replace(view, bf16=True), self.sample) for view in views]

    def __call__(self, texts: Sequence[str]) -> Targets:
        """Build the targets of a batch."""
        logits = torch.zeros(len(texts), len(self.keep))
        for prior in self.priors:
            logits += prior(texts) / len(self.priors)
        logits[:, ~torch.from_numpy(self.keep)] = -torch.inf
        top = logits.topk(min(self.top_k, int(self.keep.sum())), dim=1)
        weights = torch.softmax(top.values / self.temperature, dim=1)
        return Targets(list(top.indices.int().numpy()), list(weights.numpy()))
