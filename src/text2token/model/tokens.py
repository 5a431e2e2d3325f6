"""Token ids of texts, without template and special tokens."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from scipy import sparse
from tokenizers import Tokenizer

from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from tokenizers import Encoding
    from transformers import PreTrainedTokenizerBase

_CHARACTERS = 64  # of a text for each counted token; the rest is cut first, so that a book is not tokenised whole
_BATCH = 1024  # texts tokenised at once; enough to keep the tokenizer's threads busy, and little memory

TOKENIZING = RLock()
"""Held while a tokenizer reads texts. Truncation and padding are a state of the tokenizer, which each call sets anew."""


def count_tokens(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], size: int, max_tokens: int | None
) -> sparse.csr_matrix:
    """Count vocabulary entries in texts.

    Args:
        tokenizer: A fast tokenizer; its template and special tokens are left out.
        texts: B texts.
        size: V, the rows of the decoding head.
        max_tokens: Tokens read of each text; None: all.

    Returns:
        Term frequencies, B×V. Tokens without a row, which an embedder can have added to its tokenizer, are left out.
    """
    ids, ends = flat_token_ids(tokenizer, texts, size, max_tokens)
    counts = sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, ends), shape=(len(texts), size))
    counts.sum_duplicates()
    return counts


def flat_token_ids(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], size: int, max_tokens: int | None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids of texts below ``size``, and their ends: those of text ``b`` are at ``ends[b]:ends[b + 1]``.

    Arguments are those of :func:`count_tokens`.
    """
    rows = [ids[ids < size] for ids in tokenise(tokenizer, texts, max_tokens)]
    return np.concatenate([np.empty(0, dtype=np.int32), *rows]), np.cumsum([0, *map(len, rows)])


def tokenise(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], max_tokens: int | None
) -> list[NDArray[np.int32]]:
    """Return the ids of each text; see :func:`count_tokens`."""
    backend = backend_of(tokenizer)
    longest = None if max_tokens is None else _CHARACTERS * max_tokens
    with TOKENIZING:
        truncation = backend.truncation  # transformers leaves the truncation and padding of its last call behind
        if truncation is not None and (max_tokens is None or truncation["max_length"] < max_tokens):
            backend.no_truncation()
        return [
            np.array(_unpadded(encoding)[:max_tokens], dtype=np.int32)  # a tenth of the memory of the encoding itself
            for batch in chunked((text[:longest] for text in texts), _BATCH)
            for encoding in _encodings(backend, batch)
        ]


def first_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return the beginning of each text that its first ``max_tokens`` tokens cover."""
    backend = backend_of(tokenizer)
    beginnings = [text[: _CHARACTERS * max_tokens] for text in texts]
    with TOKENIZING:
        backend.no_truncation()  # the last call of the tokenizer left both on; the next call sets them again
        backend.no_padding()
        encodings = backend.encode_batch(beginnings, add_special_tokens=False)  # encode_batch_fast gives no offsets
    return [
        text[: encoding.offsets[max_tokens - 1][1]] if len(encoding) > max_tokens else text
        for text, encoding in zip(beginnings, encodings, strict=True)
    ]


def backend_of(tokenizer: PreTrainedTokenizerBase | Tokenizer) -> Tokenizer:
    """Return the tokenizer inside a fast tokenizer of transformers. That of a static embedder is returned itself.

    Raises:
        UserError: The tokenizer is written in Python, so there is none inside it.
    """
    backend = find_backend(tokenizer)
    if backend is None:
        raise UserError(
            f"{type(tokenizer).__name__} is no fast tokenizer, which reading tokens needs: choose another model."
        )
    return backend


def find_backend(tokenizer: object) -> Tokenizer | None:
    """Return what :func:`backend_of` returns, and None for a tokenizer that is written in Python."""
    backend: Tokenizer | None = getattr(tokenizer, "backend_tokenizer", None)
    return tokenizer if isinstance(tokenizer, Tokenizer) else backend


def untruncated(tokenizer: PreTrainedTokenizerBase | Tokenizer) -> Tokenizer:
    """Return a copy that neither truncates nor pads; sentence-transformers turns both on while it encodes."""
    whole = copy.deepcopy(backend_of(tokenizer))
    whole.no_truncation()
    whole.no_padding()
    return whole


def _encodings(backend: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Tokenise texts in threads; one text alone without them, since to wake them takes longer than a short text."""
    if len(texts) == 1:
        return [backend.encode(texts[0], add_special_tokens=False)]
    return backend.encode_batch_fast(texts, add_special_tokens=False)


def _unpadded(encoding: Encoding) -> list[int]:
    """Return the ids of a text without padding."""
    mask = encoding.attention_mask
    return encoding.ids if all(mask) else [i for i, real in zip(encoding.ids, mask, strict=True) if real]
