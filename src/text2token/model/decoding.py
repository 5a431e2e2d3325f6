"""Turn the token logits of embeddings into sparse vectors, or into tokens with weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.vocabulary import existing_entries, read_vocabulary, spell
from text2token.utils.errors import check_count
from text2token.utils.progress import track

_DECODE_BATCH = 256  # embeddings decoded at once: 256 × V float32 logits are 50 to 270 MB


class SparseVectors(NamedTuple):
    """Sparse vectors of N texts: token ids N×K by falling weight, and weights N×K ≥ 0; unused places have weight 0."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]


class AlignedToken(NamedTuple):
    """A vocabulary token that an embedding aligns with, and its weight (a token logit above the corpus mean)."""

    token: str
    weight: float


def sparse_vectors(
    embeddings: Tensor, logits: Callable[[Tensor], Tensor], k: int, *, progress: bool = False
) -> SparseVectors:
    """Keep the ``k`` largest positive token logits of each embedding.

    Args:
        embeddings: N×d.
        logits: Maps embeddings B×d to token logits B×V.
        k: Tokens in a sparse vector, at most V.
        progress: Show a progress bar on a terminal.
    """
    batches = track(embeddings.split(_DECODE_BATCH), "Decoding", unit="rows", each=_DECODE_BATCH, enabled=progress)
    parts = [logits(part).relu().topk(k, dim=1) for part in batches]
    return SparseVectors(
        torch.cat([part.indices for part in parts]).int().numpy(),
        torch.cat([part.values for part in parts]).numpy(),
    )


def aligned_tokens(
    embeddings: Tensor,
    logits: Callable[[Tensor], Tensor],
    tokenizer: PreTrainedTokenizerBase,
    k: int,
    *,
    shown: Tensor,
    threshold: float,
) -> list[list[AlignedToken]]:
    """Return at most ``k`` tokens of each embedding, those with the largest logits first.

    Args:
        embeddings: N×d.
        logits: Maps embeddings B×d to token logits B×V.
        tokenizer: Gives the text of a token, see :func:`text2token.model.vocabulary.spell`.
        k: Tokens of an embedding.
        shown: V booleans, the tokens that may be returned.
        threshold: Only tokens with a larger logit are returned.

    Raises:
        UserError: ``k`` is below 1.
    """
    check_count("k", k)
    explained = []
    for part in embeddings.split(_DECODE_BATCH):
        best = logits(part).masked_fill(~shown, -torch.inf).topk(min(k, len(shown)), dim=1)
        for ids, weights in zip(best.indices.tolist(), best.values.tolist(), strict=True):
            aligned = [(i, weight) for i, weight in zip(ids, weights, strict=True) if weight > threshold]
            texts = spell(tokenizer, [i for i, _ in aligned])
            explained.append([AlignedToken(text, weight) for text, (_, weight) in zip(texts, aligned, strict=True)])
    return explained


def displayed_tokens(
    tokenizer: PreTrainedTokenizerBase, size: int, *, filtered: bool, stop_words: str = "en"
) -> Tensor:
    """Return a mask of V booleans: the tokens that an explanation may show.

    Args:
        tokenizer: The backbone's tokenizer.
        size: V, the rows of the decoding head.
        filtered: False shows every token of the tokenizer. True leaves out stop words, punctuation, special tokens and parts of
            characters.
        stop_words: Languages of the stop lists, see :func:`text2token.model.vocabulary.read_vocabulary`.
    """
    if filtered:
        return torch.from_numpy(read_vocabulary(tokenizer, size, stop_words).meaningful)
    return torch.from_numpy(existing_entries(tokenizer, size))
