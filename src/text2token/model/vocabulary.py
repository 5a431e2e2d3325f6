"""Classify the entries of a vocabulary by their properties, in any alphabet."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from text2token.data.stop_words import stop_list
from text2token.model.tokens import TOKENIZING, backend_of, tokenise

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerBase

_MARKUP = re.compile(r"\s*(<.+>|\[.+\])\s*")  # "<table>", "[multimodal]": added tokens that no flag calls special
_REPLACEMENT = "\ufffd"  # decoders write it for bytes that are no complete character


@dataclass(frozen=True)
class Vocabulary:
    """Properties of V vocabulary entries; an entry is meaningful if it is not special, byte piece, punctuation or stop word.

    Attributes:
        exists: Has a token; a decoding head can have rows beyond those of the tokenizer.
        surfaces: Text of the entry, with a leading space if it starts a word.
        special: Control tokens, markup among the added tokens, and ids without a token.
        byte_piece: Only part of a character.
        punctuation: Has no letter, digit or mark (spaces, symbols, emoji).
        stop_word: In the stop list, ignoring case.
        word_start: Begins a word; other entries continue one.
    """

    exists: NDArray[np.bool_]
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
        return self.exists & ~starts & ~caseless

    @cached_property
    def surface_groups(self) -> NDArray[np.int64]:
        """V group numbers: entries that differ only in case and leading space (" Cat", "cat") share a group.

        Each byte piece has a group of its own, since all of them have the same surface, and so has each id without a token.
        """
        entries = enumerate(zip(self.surfaces, self.byte_piece | ~self.exists, strict=True))
        forms = [place if alone else surface.strip().casefold() for place, (surface, alone) in entries]
        groups: dict[str | int, int] = {}
        return np.array([groups.setdefault(form, len(groups)) for form in forms], dtype=np.int64)


def spell(tokenizer: PreTrainedTokenizerBase | Tokenizer, ids: Sequence[int]) -> list[str]:
    """Return the text of vocabulary entries, with a leading space if an entry starts a word.

    Each entry is decoded after another token, which shows the space. This works for byte-level BPE, SentencePiece and WordPiece.
    """
    backend = backend_of(tokenizer)
    with TOKENIZING:
        (anchor,) = (first.tolist() for first in tokenise(backend, ["a"], 1))
        anchor_text = backend.decode(anchor)
        decoded = backend.decode_batch([[*anchor, i] for i in ids], skip_special_tokens=False)
    return [text.removeprefix(anchor_text) for text in decoded]


def same_tokens(first: PreTrainedTokenizerBase | Tokenizer, second: PreTrainedTokenizerBase | Tokenizer) -> bool:
    """Return whether each id that two tokenizers share names the same token. Added tokens are not compared."""
    one, other = (backend_of(tokenizer).get_vocab(with_added_tokens=False) for tokenizer in (first, second))
    names = {i: token for token, i in other.items()}
    return all(names.get(i, token) == token for token, i in one.items())


def existing_entries(tokenizer: PreTrainedTokenizerBase | Tokenizer, size: int) -> NDArray[np.bool_]:
    """Return ``size`` booleans: True for ids that have a token. Calls share the array."""
    backend = backend_of(tokenizer)
    return _existing(backend, size, backend.get_vocab_size())


@lru_cache(maxsize=8)
def _existing(backend: Tokenizer, size: int, _entries: int) -> NDArray[np.bool_]:
    """Ask for every id, which takes 20 ms; ``_entries`` tells a tokenizer to which tokens were added from what it was."""
    return np.array([backend.id_to_token(i) is not None for i in range(size)])


def read_vocabulary(tokenizer: PreTrainedTokenizerBase | Tokenizer, size: int, stop_words: str = "en") -> Vocabulary:
    """Classify every entry of a tokenizer.

    Args:
        tokenizer: A fast tokenizer of transformers, or the tokenizer inside it, which needs no transformers.
        size: V, the rows of the decoding head; rows beyond the tokenizer's entries count as special.
        stop_words: Comma-separated ISO 639-1 codes of the stop lists, or "none".

    Raises:
        UserError: A language has no stop list.
    """
    stop = stop_list(stop_words)
    backend = backend_of(tokenizer)
    exists = existing_entries(tokenizer, size)
    known = np.flatnonzero(exists).tolist()
    surfaces = [""] * size
    for i, text in zip(known, spell(tokenizer, known), strict=True):
        surfaces[i] = text
    special = ~exists
    for i, token in backend.get_added_tokens_decoder().items():
        if i < size and (token.special or _MARKUP.fullmatch(token.content)):
            special[i] = True
    return Vocabulary(
        exists=exists,
        surfaces=tuple(surfaces),
        special=special,
        byte_piece=np.array([_REPLACEMENT in s for s in surfaces]),
        punctuation=np.array([not any(unicodedata.category(c)[0] in "LNM" for c in s) for s in surfaces]),
        stop_word=np.array([s.strip().casefold() in stop for s in surfaces]),
        word_start=np.array([s[:1].isspace() for s in surfaces]),
    )
