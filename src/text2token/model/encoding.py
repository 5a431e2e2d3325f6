"""Encode texts in batches: equal padded size, each distinct text once, smaller batches when memory runs out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate, takewhile
from weakref import WeakKeyDictionary

import torch
from more_itertools import chunked
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.data.text import check_texts
from text2token.model.kinds import Model
from text2token.model.tokens import TOKENIZING
from text2token.utils.errors import PassingError, UserError, check_count, first_line, is_lack_of_memory
from text2token.utils.progress import progress_bar

_TOKENS_PER_TEXT = 128  # a batch of 32 texts has 4,096 padded tokens: enough to keep a CPU busy, little in memory
_PADDING = 128  # padded tokens that cost a CPU about as much time as one more batch: its calls, and reading the weights
_TOKENISED_AT_ONCE = 1024
_LIMITS: WeakKeyDictionary[Model, int] = WeakKeyDictionary()  # padded tokens a batch may have, where memory ran out
_LOGGER = logging.getLogger(__name__)


def default_prompt(model: Model) -> str:
    """Return the text that a model puts before each text if nothing else is asked for; empty for most models."""
    return model.prompts.get(model.default_prompt_name) or ""


def encode_in_batches(
    model: Model,
    texts: Sequence[str],
    encode: Callable[[list[str]], Tensor],
    *,
    prompt: str | None = None,
    batch_size: int = 32,
    progress: bool = False,
) -> Tensor:
    """Apply ``encode`` to batches of texts of similar length; identical texts are encoded once.

    Texts are sorted by their number of tokens, and a batch holds as many as fit into ``batch_size`` × 128 padded tokens, at least
    one; on a CPU a batch also ends where padding would cost more time than another batch. When memory runs out, the batch is
    halved and repeated, later batches of this model stay that small, and one warning says so. A text without a single token gets
    the zero vector, whatever its batch: there is nothing to pool.

    Args:
        model: Gives the tokenizer.
        texts: N texts.
        encode: Maps a list of texts to vectors, one row a text.
        prompt: Text that ``encode`` puts before each text; it counts as tokens.
        batch_size: Size of a batch in texts of 128 tokens. 32 needs little memory beside the model; a GPU takes more.
        progress: Show a progress bar on a terminal.

    Returns:
        N rows on the CPU, float32, in the order of ``texts``.

    Raises:
        UserError: ``texts`` is no list of strings, one cannot be tokenised, ``batch_size`` is below 1, or memory is too small
            for a single text.
    """
    check_texts(texts)
    check_count("batch_size", batch_size)
    distinct = list(dict.fromkeys(texts))
    lengths = count_text_tokens(model, distinct, prompt or "")
    rows = [torch.empty(0)] * len(distinct)
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task("Encoding", total=len(distinct), unit="texts", note="")
        for batch, vectors in _encoded_batches(model, distinct, lengths, encode, batch_size * _TOKENS_PER_TEXT):
            for place, vector in zip(batch, vectors.float().cpu(), strict=True):
                rows[place] = vector
            bar.advance(task, len(batch))
    width = max(map(len, rows), default=0) or model.get_embedding_dimension()
    by_text = dict(zip(distinct, rows, strict=True))
    found = [by_text[text] if len(by_text[text]) else torch.zeros(width) for text in texts]
    return torch.stack(found) if found else torch.zeros(0, width)


def count_text_tokens(model: Model, texts: Sequence[str], prompt: str = "") -> list[int]:
    """Return the number of tokens of each text with its template and special tokens, truncated as the model truncates it.

    A model without a tokenizer of transformers counts four characters as a token.

    Raises:
        UserError: The tokenizer fails on a text; the sentence gives its position.
    """
    tokenizer = getattr(model[0], "tokenizer", None)
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return [len(text) // 4 + 1 for text in texts]

    def count(part: Sequence[str]) -> list[int]:
        with TOKENIZING:
            ids = tokenizer([prompt + text for text in part], truncation=True, padding=False)["input_ids"]
        return [len(row) for row in ids]

    try:
        return [length for part in chunked(texts, _TOKENISED_AT_ONCE) for length in count(part)]
    except Exception as error:  # the tokenizers package raises bare exceptions, and does not say at which text
        for place, text in enumerate(texts):
            try:
                count([text])
            except Exception as cause:
                raise UserError(
                    f"The model's tokenizer cannot read text {place} ({text[:40]!r}): {first_line(cause)}. Remove the text, "
                    "or use a model whose tokenizer has an unknown token."
                ) from cause
        raise UserError(f"The model's tokenizer fails: {first_line(error)}.") from error


def _encoded_batches(
    model: Model, texts: list[str], lengths: list[int], encode: Callable[[list[str]], Tensor], budget: int
) -> Iterator[tuple[list[int], Tensor]]:
    """Yield positions and vectors batch by batch, longest texts first, so that a lack of memory shows at once."""
    waiting = sorted((place for place in range(len(texts)) if lengths[place]), key=lambda place: -lengths[place])
    while waiting:
        longest = lengths[waiting[0]]
        size = max(1, min(budget, _LIMITS.get(model, budget)) // longest)
        if model.device.type == "cpu":
            size = _little_padding([lengths[place] for place in waiting[:size]])
        batch = waiting[:size]
        vectors = _encode_or_shrink(model, [texts[place] for place in batch], longest, encode)
        if vectors is not None:
            yield batch, vectors
            waiting = waiting[size:]


def _little_padding(lengths: Sequence[int]) -> int:
    """Return how many texts of a batch, longest first, are read together, so that padding costs less than another batch."""
    padding = accumulate(lengths[0] - length for length in lengths)
    return sum(1 for _ in takewhile(lambda wasted: wasted <= _PADDING, padding))


def _encode_or_shrink(
    model: Model, texts: list[str], longest: int, encode: Callable[[list[str]], Tensor]
) -> Tensor | None:
    """Encode a batch; None if memory ran out, after the limit for batches of this model was set to half of this one."""
    try:
        return encode(texts)
    except (MemoryError, RuntimeError) as error:  # torch's own OutOfMemoryError is a RuntimeError
        if not is_lack_of_memory(error):
            raise
        reason = first_line(error)
    # Out of the except block the tensors of the failed attempt are free.
    if len(texts) == 1:
        raise PassingError(f"There is too little memory for a text of {longest} tokens ({reason}): lower max_length.")
    if model not in _LIMITS:
        _LOGGER.warning("Memory ran out in a batch of %d texts; encoding goes on in smaller batches.", len(texts))
    _LIMITS[model] = len(texts) // 2 * longest
    return None
