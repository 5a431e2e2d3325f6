"""What each vocabulary entry is, told by its properties and in any alphabet."""

from __future__ import annotations

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
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"\s*(<.+>|\[.+\])\s*")  # "<table>", "[multimodal]": added tokens that no flag calls special
_CHARACTERS = 64  # of a token at most, in the mean over the first of a text: what follows in a book is not looked at
_BATCH = 1024  # texts tokenised at once: keeps the tokenizer's threads busy and little in memory
_REPLACEMENT = "\ufffd"  # what a decoder writes for bytes that are not a whole character


@dataclass(frozen=True)
class Vocabulary:
    """One row an entry, V rows; an entry is meaningful when none of the flags that make it noise is set.

    Attributes:
        surfaces: Text of the entry, with its leading space when it starts a word.
        special: Control tokens, markup among the added tokens, and ids without a token.
        byte_piece: Part of a character only.
        punctuation: No letter, digit or mark in it (spaces, symbols, emoji).
        stop_word: A word of the stop list (case ignored).
        word_start: Begins a word; the rest continue one.
    """

    surfaces: tuple[str, ...]
    special: NDArray[np.bool_]
    byte_piece: NDArray[np.bool_]
    punctuation: NDArray[np.bool_]
    stop_word: NDArray[np.bool_]
    word_start: NDArray[np.bool_]

    @cached_property
    def meaningful(self) -> NDArray[np.bool_]:
        """V booleans: neither special, byte piece, punctuation nor stop word."""
        return ~(self.special | self.byte_piece | self.punctuation | self.stop_word)

    @cached_property
    def fragment(self) -> NDArray[np.bool_]:
        """V booleans: continues a word and is none by itself, as "ilantro" (no " ilantro" is in the vocabulary).

        Only letters with case count; scripts without case often write no spaces, so nothing follows from their absence.
        """
        words = set(self.surface_groups[self.word_start])
        starts = np.isin(self.surface_groups, list(words))
        caseless = np.array([any(unicodedata.category(c) == "Lo" for c in s) for s in self.surfaces])
        return ~starts & ~caseless

    @cached_property
    def surface_groups(self) -> NDArray[np.int64]:
        """V group numbers: entries that differ only in case and leading space (" Cat", "cat") share one."""
        groups: dict[str, int] = {}
        return np.array([groups.setdefault(s.strip().casefold(), len(groups)) for s in self.surfaces], dtype=np.int64)


def read_vocabulary(tokenizer: PreTrainedTokenizerBase | Tokenizer, size: int, stop_words: str = "en") -> Vocabulary:
    """Look at every entry of a tokenizer once.

    Whether an entry starts a word is seen by decoding it behind another token, which works for byte-level BPE,
    SentencePiece and WordPiece alike.

    Args:
        tokenizer: A fast tokenizer of transformers, or the tokenizer inside it, which needs no transformers.
        size: V, the rows of the decoding head (often more than the tokenizer has; the rest count as special).
        stop_words: Comma-separated ISO 639-1 codes of the stop lists, or "none".

    Raises:
        UserError: A language without a stop list.
    """
    stop = stop_list(stop_words)
    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
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
    """Term frequencies, B×V: how often each vocabulary entry stands among the first ``max_tokens`` (None: all) of each text."""
    encode = getattr(tokenizer, "backend_tokenizer", tokenizer).encode_batch_fast
    longest = None if max_tokens is None else _CHARACTERS * max_tokens
    rows = [
        np.array(encoding.ids[:max_tokens], dtype=np.int32)  # a tenth of the memory of the encoding itself
        for batch in chunked((text[:longest] for text in texts), _BATCH)
        for encoding in encode(batch, add_special_tokens=False)
    ]
    flat = np.concatenate(rows) if rows else np.empty(0, dtype=np.int32)
    indptr = np.cumsum([0, *map(len, rows)])
    counts = sparse.csr_matrix((np.ones(len(flat), dtype=np.float32), flat, indptr), shape=(len(rows), size))
    counts.sum_duplicates()
    return counts
