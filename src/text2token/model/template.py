"""Put a prompt template around every text, inside the tokenizer, so that it is saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tokenizers.processors import TemplateProcessing

from text2token.settings.templates import Template
from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FEWEST_TOKENS = 4  # minimum number of tokens that the template must leave for the text


def bake(
    tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, ending: list[int] | None = None
) -> None:
    """Make ``tokenizer`` put ``template`` around every text, in place.

    Special tokens that the tokenizer adds by itself (``<bos>``, ``[CLS]``, ``[SEP]``) stay outside the template. Truncation
    shortens the text and never the template.

    Args:
        tokenizer: A fast tokenizer.
        template: Prefix and suffix; they are tokenised apart from the text.
        max_length: Maximum number of tokens, template included.
        ending: Token ids after the template, in place of those that the tokenizer adds there; None keeps the tokenizer's own.

    Raises:
        UserError: The template leaves fewer than 4 tokens for the text.
    """
    before, after = own_special_tokens(tokenizer)
    prefix = before + token_ids(tokenizer, template.prefix)
    suffix = token_ids(tokenizer, template.suffix) + (after if ending is None else ending)
    arrange(tokenizer, [prefix, suffix], max_length)
    tokenizer.padding_side = "right"  # then padding moves no position, and a causal mask hides it
    tokenizer.truncation_side = "right"


def arrange(tokenizer: PreTrainedTokenizerBase, fixed: Sequence[list[int]], max_length: int) -> None:
    """Make ``tokenizer`` write ``fixed[0]``, the text, ``fixed[1]``, the text again, ``fixed[2]``, and so on, in place.

    Args:
        tokenizer: A fast tokenizer.
        fixed: Token ids between the copies of the text, n + 1 lists for n copies. Copy i has token type i.
        max_length: Maximum number of tokens in all; each copy gets an equal share of what ``fixed`` leaves.

    Raises:
        UserError: A copy gets fewer than 4 tokens.
    """
    copies, taken = len(fixed) - 1, sum(map(len, fixed))
    share = (max_length - taken) // copies
    if share < _FEWEST_TOKENS:
        raise _no_room(taken, max_length)
    letters = [
        "p",
        *(f"m{number}." for number in range(1, copies)),
        "s",
    ]  # saved in tokenizer.json; a fingerprint reads them
    names = [[f"[{letter}{i}]" for i in range(len(ids))] for letter, ids in zip(letters, fixed, strict=True)]
    pieces = list(names[0])
    for copy, after in enumerate(names[1:]):
        pieces += [f"$A:{copy}", *after]
    named = [pair for group, ids in zip(names, fixed, strict=True) for pair in zip(group, ids, strict=True)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=pieces, special_tokens=named)
    tokenizer.model_max_length = taken + share  # truncation counts the text once


def room_for_text(tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "") -> int:
    """Return how many tokens of a text fit into ``max_length`` beside a prompt and the template of ``tokenizer``.

    Raises:
        UserError: Fewer than 4.
    """
    around = len(tokenizer(prompt)["input_ids"])
    if max_length < around + _FEWEST_TOKENS:
        raise _no_room(around, max_length)
    return max_length - around


def token_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Return the token ids of ``text`` alone, without template and special tokens."""
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def own_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Return the ids that the tokenizer adds before and after a text by itself."""
    bare, full = token_ids(tokenizer, "a"), tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]


def _no_room(taken: int, max_length: int) -> UserError:
    return UserError(
        f"What stands around a text takes {taken} tokens and leaves no room for text in {max_length}: "
        "raise max_length (or train_length), or shorten the template or prompt."
    )
