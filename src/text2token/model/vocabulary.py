"""Classify the entries of a vocabulary by their properties, in any alphabet."""

from __future__ import annotations

import copy
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from more_itertools import chunked
from numpy.typing import NDArray
from scipy import sparse

from text2token.data.stop_words import stop_list

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"\s*(<.+>|\[.+\])\s*")  # "<table>", "[multimodal]": added tokens that no flag calls special
_CHARACTERS = (
    64  # a text is cut to this many characters per token that is counted, so that a book is not tokenised whole
)
_BATCH = 1024  # texts tokenised at once; enough to keep the tokenizer's threads busy, and little memory
_REPLACEMENT = "\ufffd"  # decoders write it for bytes that are no complete character


@dataclass(frozen=True)
class Vocabulary:
    """Properties of V vocabulary entries; an entry is meaningful if it is not special, byte piece, punctuation or stop word.

    Attributes:
        surfaces: Text of the entry, with a leading space if it starts a word.
        special: Control tokens, markup among the added tokens, and ids without a token.
        byte_piece: Only part of a character.
        punctuation: Has no letter, digit or mark (spaces, symbols, emoji).
        stop_word: In the stop list, ignoring case.
        word_start: Begins a word; other entries continue one.
    """

    surfaces: tuple[str, ...]
    special: NDArray[np.bool_]
    byte_piece: NDArray[np.bool_]
    punctuation: NDArray[np.bool_]
    stop_word: NDArray[np.bool_]
    word_start: NDArray[np.bool_]

    @cached_property
    def meaningful(self) -> NDArray[np.bool_]:
        """V booleans: True for entries that are neither special, byte piece, punctuation nor stop word."""
        return ~(self.special | self.byte_piece | self.punctuation | self.stop_word)

    @cached_property
    def fragment(self) -> NDArray[np.bool_]:
        """V booleans: True for entries that continue a word and are no word themselves.

        "ilantro" is one: the vocabulary has no " ilantro". Entries in scripts without case are never fragments: such scripts
        often write no spaces, so a missing space says nothing.
        """
        words = set(self.surface_groups[self.word_start])
        starts = np.isin(self.surface_groups, list(words))
        caseless = np.array([any(unicodedata.category(c) == "Lo" for c in s) for s in self.surfaces])
        return ~starts & ~caseless

    @cached_property
    def surface_groups(self) -> NDArray[np.int64]:
        """V group numbers: entries that differ only in case and leading space (" Cat", "cat") share a group."""
        groups: dict[str, int] = {}
        return np.array([groups.setdefault(s.strip().casefold(), len(groups)) for s in self.surfaces], dtype=np.int64)


def backend_of(tokenizer: PreTrainedTokenizerBase | Tokenizer) -> Tokenizer:
    """Return the tokenizer inside a fast tokenizer of transformers. That of a static embedder is returned itself."""
    backend: Tokenizer = getattr(tokenizer, "backend_tokenizer", tokenizer)
    return backend


def untruncated(tokenizer: PreTrainedTokenizerBase | Tokenizer) -> Tokenizer:
    """Return a copy that neither truncates nor pads; sentence-transformers turns both on while it encodes."""
    whole = copy.deepcopy(backend_of(tokenizer))
    whole.no_truncation()
    whole.no_padding()
    return whole


def read_vocabulary(tokenizer: PreTrainedTokenizerBase | Tokenizer, size: int, stop_words: str = "en") -> Vocabulary:
    """Classify every entry of a tokenizer.

    Each entry is decoded after another token: a leading space then shows that it starts a word. This works for byte-level BPE,
    SentencePiece and WordPiece.

    Args:
        tokenizer: A fast tokenizer of transformers, or the tokenizer inside it, which needs no transformers.
        size: V, the rows of the decoding head; rows beyond the tokenizer's entries count as special.
        stop_words: Comma-separated ISO 639-1 codes of the stop lists, or "none".

    Raises:
        UserError: A language has no stop list.
    """
    stop = stop_list(stop_words)
    backend = backend_of(tokenizer)
    anchor = backend.encode("a", add_special_tokens=False).ids[:1]
    anchor_text = backend.decode(anchor)
    known = [i for i in range(size) if backend.id_to_token(i) is not None]
    decoded = backend.decode_batch([[*anchor, i] for i in known], skip_special_tokens=False)
    surfaces = [""] * size
    for i, text in zip(known, decoded, strict=True):
        surfaces[i] = text.removeprefix(anchor_text)
    special = np.ones(size, dtype=bool)
    special[known] = False
    for i, token in backend.get_added_tokens_decoder().items():
        if i < size and (token.special or _MARKUP.fullmatch(token.content)):
            special[i] = True
    return Vocabulary(
        surfaces=tuple(surfaces),
        special=special,
        byte_piece=np.array([_REPLACEMENT in s for s in surfaces]),
        punctuation=np.array([not any(unicodedata.category(c)[0] in "LNM" for c in s) for s in surfaces]),
        stop_word=np.array([s.strip().casefold() in stop for s in surfaces]),
        word_start=np.array([s[:1].isspace() for s in surfaces]),
    )


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
        Term frequencies, B×V.
    """
    ids, ends = token_ids(tokenizer, texts, max_tokens)
    counts = sparse.csr_matrix((np.ones(len(ids), dtype=np.float32), ids, ends), shape=(len(texts), size))
    counts.sum_duplicates()
    return counts


def token_ids(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], max_tokens: int | None
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Return the ids of texts, and their ends: those of text ``b`` are at ``ends[b]:ends[b + 1]``; see :func:`count_tokens`."""
    rows = tokenise(tokenizer, texts, max_tokens)
    return np.concatenate([np.empty(0, dtype=np.int32), *rows]), np.cumsum([0, *map(len, rows)])


def tokenise(
    tokenizer: PreTrainedTokenizerBase | Tokenizer, texts: Sequence[str], max_tokens: int | None
) -> list[NDArray[np.int32]]:
    """Return the ids of each text; see :func:`count_tokens`."""
    backend = backend_of(tokenizer)
    truncation = backend.truncation  # transformers leaves the truncation and padding of its last call behind
    if truncation is not None and (max_tokens is None or truncation["max_length"] < max_tokens):
        backend.no_truncation()
    longest = None if max_tokens is None else _CHARACTERS * max_tokens
    return [
        np.array(_unpadded(encoding)[:max_tokens], dtype=np.int32)  # a tenth of the memory of the encoding itself
        for batch in chunked((text[:longest] for text in texts), _BATCH)
        for encoding in _encodings(backend, batch)
    ]


def first_tokens(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_tokens: int) -> list[str]:
    """Return the beginning of each text that its first ``max_tokens`` tokens cover."""
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()  # the last call of the tokenizer left truncation and padding on; the next call sets them again
    backend.no_padding()
    beginnings = [text[: _CHARACTERS * max_tokens] for text in texts]
    encodings = backend.encode_batch(beginnings, add_special_tokens=False)  # encode_batch_fast gives no offsets
    return [
        text[: encoding.offsets[max_tokens - 1][1]] if len(encoding) > max_tokens else text
        for text, encoding in zip(beginnings, encodings, strict=True)
    ]


def _encodings(backend: Tokenizer, texts: list[str]) -> list[Encoding]:
    """Tokenise texts in threads; one text alone without them, since to wake them takes longer than a short text."""
    if len(texts) == 1:
        return [backend.encode(texts[0], add_special_tokens=False)]
    return backend.encode_batch_fast(texts, add_special_tokens=False)


def _unpadded(encoding: Encoding) -> list[int]:
    """Return the ids of a text without padding."""
    mask = encoding.attention_mask
    return encoding.ids if all(mask) else [i for i, real in zip(encoding.ids, mask, strict=True) if real]
