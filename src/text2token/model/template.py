"""The prompt template around a text, kept inside the tokenizer so that it travels with the saved model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tokenizers.processors import TemplateProcessing

from text2token.settings.templates import Template
from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_FEWEST = 4  # tokens of a text


def bake(
    tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, ending: list[int] | None = None
) -> None:
    """Make ``tokenizer`` put ``template`` around every text it is given, in place.

    Special tokens that the tokenizer adds by itself (``<bos>``, ``[CLS]`` … ``[SEP]``) are kept outside the template.
    Truncation shortens the text and never the template. Padding goes to the right, where neither absolute positions nor
    a causal mask are touched by it, so a vector does not depend on the batch it was computed in.

    Args:
        tokenizer: A fast tokenizer.
        template: Prefix and suffix, tokenised apart from the text.
        max_length: Tokens a text may have, template included.
        ending: Ids that stand after the template, in place of those that the tokenizer adds there; None: these.

    Raises:
        UserError: The template leaves fewer than 4 tokens for the text.
    """
    before, after = own_special_tokens(tokenizer)
    prefix = before + tokenizer(template.prefix, add_special_tokens=False)["input_ids"]
    suffix = tokenizer(template.suffix, add_special_tokens=False)["input_ids"] + (after if ending is None else ending)
    named = [(f"[p{i}]", token) for i, token in enumerate(prefix)] + [
        (f"[s{i}]", token) for i, token in enumerate(suffix)
    ]
    pieces = [name for name, _ in named[: len(prefix)]] + ["$A"] + [name for name, _ in named[len(prefix) :]]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=pieces, special_tokens=named)
    room_for_text(tokenizer, max_length)
    tokenizer.model_max_length = max_length
    tokenizer.padding_side = "right"
    tokenizer.truncation_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token or tokenizer.convert_ids_to_tokens(0)


def room_for_text(tokenizer: PreTrainedTokenizerBase, max_length: int) -> int:
    """How many tokens of a text fit beside the template.

    Args:
        tokenizer: With the template baked in.
        max_length: Of both.

    Raises:
        UserError: Fewer than 4.
    """
    around = len(tokenizer("")["input_ids"])
    if max_length < around + _FEWEST:
        raise UserError(
            f"The template takes {around} tokens, which leaves no room for text in {max_length}: "
            "raise --max-length (or --train-length), or shorten the template."
        )
    return max_length - around


def own_special_tokens(tokenizer: PreTrainedTokenizerBase) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer adds before and after a text by itself."""
    bare = tokenizer("a", add_special_tokens=False)["input_ids"]
    full = tokenizer("a")["input_ids"]
    start = next(i for i in range(len(full)) if full[i : i + len(bare)] == bare)
    return full[:start], full[start + len(bare) :]
