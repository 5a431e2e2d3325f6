"""Encodes texts of any length with a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.tokens import backend_of
from text2token.search.splitting import PartSplitter
from text2token.search.vectors import TokenSpace
from text2token.utils.errors import UserError

Role = Literal["document", "query"]
_PROMPTS: dict[Role, tuple[str, ...]] = {"document": ("document", "passage", "corpus"), "query": ("query",)}

_DECODE_BATCH = 128  # parts decoded at once: 128 × V float32 logits are 25 to 134 MB
# Changes of a logit when the same text is encoded in another batch, as a share of the largest logit. We measured up to 1.3e-6 and
# 2e-3; the largest logit above the mean of another text has a share of 0.17 or more.
_ROUNDING = {"fp32": 1e-5, "bf16": 1e-2}


class TextEncoder:
    """Encodes texts of any length, part by part.

    A part is as long as the model reads, with its template and prompt around it; see
    :class:`text2token.search.splitting.PartSplitter`.

    Args:
        embedder: Encodes the parts.
        role: Decides which prompt of the model is put before each part, as ``encode_document`` and ``encode_query`` do in
            sentence-transformers.

    Raises:
        UserError: The prompt leaves no room for text.
    """

    def __init__(self, embedder: Embedder, role: Role = "document") -> None:
        self._embedder = embedder
        prompts = embedder.encoder.prompts
        self._prompt = next((prompts[name] for name in _PROMPTS[role] if name in prompts), "")
        taken = sum(backend_of(embedder.tokenizer).encode(self._prompt).attention_mask)  # its template included
        room = embedder.max_length - taken
        if room < 1:
            raise UserError(f"The prompt of the model, '{self._prompt}', leaves no room for text: shorten it.")
        self._splitter = PartSplitter(embedder.tokenizer, room)

    def parts(self, text: str) -> list[str]:
        """The parts of a text, in order. A short text is one part."""
        return self._splitter.parts(text)

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> tuple[Tensor, NDArray[np.int64]]:
        """Embeddings of all parts, P×d, and for each part the number of its text, P."""
        parts = [self.parts(text) for text in texts]
        owners = np.repeat(np.arange(len(texts)), np.array([len(own) for own in parts], np.int64))
        flat = [part for own in parts for part in own]
        return self._embedder.embed(flat, prompt=self._prompt, progress=progress), owners

    def dense(self, embeddings: Tensor, owners: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """Dense vectors of ``count`` texts: the mean of the vectors of their parts.

        The result is normalised to length 1, except for a model that was made for dot products.
        """
        vectors = self._embedder.densify(embeddings)
        sums = torch.zeros(count, vectors.shape[1]).index_add_(0, torch.from_numpy(owners), vectors)
        if self._embedder.similarity == "dot":
            return (sums / torch.from_numpy(np.bincount(owners, minlength=count)).clamp(min=1)[:, None]).numpy()
        return torch.nn.functional.normalize(sums, dim=1).numpy()

    def aligned(
        self, space: TokenSpace, embeddings: Tensor, owners: NDArray[np.int64], count: int, k: int
    ) -> csr_array:
        """The ``k`` aligned tokens of each of ``count`` texts, N×C, with weights from 0 to 1.

        A weight is the token logit above the corpus mean, divided by the largest one of the text, since the range of logits
        differs between models and lengths of text. A text has the largest logit of its parts. Only meaningful vocabulary entries
        count. A text at the corpus mean, where only rounding errors lie above it, has no aligned tokens.

        Args:
            space: Columns of the result.
            embeddings: Embeddings of all parts, P×d.
            owners: Number of the text of each part, P.
            count: Number of texts, N.
            k: Columns kept for each text.
        """
        meaningful = torch.from_numpy(space.vocabulary.meaningful)
        columns = torch.from_numpy(space.columns)
        pooled = torch.zeros(count, space.width)
        batches = zip(embeddings.split(_DECODE_BATCH), torch.from_numpy(owners).split(_DECODE_BATCH), strict=True)
        for rows, texts in batches:
            logits = self._embedder.logits(rows).relu() * meaningful
            in_columns = torch.zeros(len(rows), space.width).scatter_reduce(
                1, columns.expand_as(logits), logits, "amax"
            )
            pooled.scatter_reduce_(0, texts[:, None].expand_as(in_columns), in_columns, "amax")
        top = pooled.topk(min(k, space.width), dim=1)
        largest = top.values[:, :1]
        weights = torch.where(largest > self._rounding_error, top.values / largest, 0.0)
        rows_of = np.repeat(np.arange(count), top.indices.shape[1])
        found = csr_array((weights.numpy().ravel(), (rows_of, top.indices.numpy().ravel())), shape=(count, space.width))
        found.eliminate_zeros()
        return found

    @property
    def _rounding_error(self) -> float:
        """Largest logit above the corpus mean that a text at the mean may have."""
        # The mean of W·h, also in a saved model, whose corpus mean is a part of the bias.
        mean = self._embedder.require_calibration() - self._embedder.decoding_head.bias
        return _ROUNDING[self._embedder.precision] * float(mean.abs().max())
