"""Cuts long texts into parts that a model reads whole."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from functools import cached_property
from threading import Thread

import regex
from more_itertools import pairwise
from semantic_text_splitter import TextSplitter
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase

from text2token.model.tokens import untruncated

_MOST_TOKENS_PER_BYTE = 2  # a token has a byte or more; a normaliser may write some characters out
_LONG_RUN = regex.compile(r"[^\s\p{P}]{10000}")  # the splitter takes quadratic time where it finds no boundary
_LONG_TEXT = 50_000  # characters; the splitter takes about half a second for them, and Ctrl-C waits for its end


class PartSplitter:
    """Cuts a text at its largest boundaries: paragraphs, lines, sentences.

    A sentence that is longer than a part is cut between words, or between letters. Only white space at the cuts is lost.

    Args:
        tokenizer: Counts tokens.
        size: Largest number of tokens in a part.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase | Tokenizer, size: int) -> None:
        self._tokenizer, self._size = tokenizer, size

    @cached_property
    def _splitter(self) -> TextSplitter:
        """It copies the tokenizer, which takes a quarter of a second, and a short query does not need it."""
        return TextSplitter.from_huggingface_tokenizer(untruncated(self._tokenizer), self._size)

    def parts(self, text: str) -> list[str]:
        """The parts of a text, in order. A short text is one part."""
        if _MOST_TOKENS_PER_BYTE * len(text.encode()) <= self._size:
            return [text] if (text := text.strip()) else []
        if len(text) > _LONG_TEXT:
            return _interruptible(lambda: self._cut(text))
        return self._cut(text)

    def _cut(self, text: str) -> list[str]:
        cuts = [0, *(run.end() for run in _LONG_RUN.finditer(text)), len(text)]
        return [part for start, end in pairwise(cuts) for part in self._splitter.chunks(text[start:end])]


def _interruptible(call: Callable[[], list[str]]) -> list[str]:
    """Call a function in a thread of its own. Ctrl-C then ends the wait for it, even while compiled code runs."""
    future: Future[list[str]] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result()
