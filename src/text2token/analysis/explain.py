"""Explains vectors by tokens: why two texts are similar, and what an instruction changes in the vector of a text.

The questions are those of arXiv 2406.17378. The way they are computed is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from text2token.data.text import check_texts
from text2token.model.decoding import AlignedToken
from text2token.model.embedder import Embedder
from text2token.model.vocabulary import spell
from text2token.utils.errors import UserError, check_count


class TokenPart(NamedTuple):
    """A token's weight in each of two vectors, and its part of a sum over all tokens.

    Weights are logits above their corpus mean, or plain logits if the embedder has no corpus mean.
    """

    token: str
    first: float
    second: float
    part: float


class PairExplanation(NamedTuple):
    """Why two texts are as similar as they are. ``a`` and ``b`` are their logit vectors of length V.

    Attributes:
        dot: ``a·b``.
        cosine: ``a·b / ‖a‖‖b‖``.
        alike: Tokens with the largest parts ``a_v·b_v / ‖a‖‖b‖``. Over all V tokens the parts sum to the cosine.
        in_first: Tokens that weigh more in the first text, with the largest parts ``½(a_v/‖a‖ − b_v/‖b‖)²``.
        in_second: The same for the second text. The parts of both lists, over all V tokens, sum to 1 − cosine.
    """

    dot: float
    cosine: float
    alike: list[TokenPart]
    in_first: list[TokenPart]
    in_second: list[TokenPart]


class InstructionExplanation(NamedTuple):
    """A text with an instruction before it.

    Attributes:
        tokens: Aligned tokens, as :meth:`Embedder.explain` returns them.
        rose: Tokens whose weight rises most against the text without instruction; ``part`` is the rise.
        fell: Tokens whose weight falls most; ``part`` is the fall.
    """

    tokens: list[AlignedToken]
    rose: list[TokenPart]
    fell: list[TokenPart]


def explain_pair(
    embedder: Embedder, pair: tuple[str, str], *, k: int = 10, filtered: bool = False, stop_words: str = "en"
) -> PairExplanation:
    """Find the tokens that make two texts similar or different to an embedder.

    The sums run over the whole vocabulary and are exact; ``k`` tokens of each list are returned.

    Args:
        embedder: Has a decoding head. Without a corpus mean it reads plain logits, whose common part then dominates the cosine.
        pair: Two texts.
        k: Tokens per list.
        filtered: List meaningful tokens only. The sums do not change.
        stop_words: Languages of the words that ``filtered`` leaves out.

    Raises:
        UserError: The embedder has no decoding head, or ``pair`` is not two texts.
    """
    check_texts(pair)
    if len(pair) != 2:
        raise UserError(f"A pair is two texts, not {len(pair)}: write (first, second).")
    first, second = embedder.logits(embedder.embed(pair)).double()
    alike, apart = similarity_parts(first, second), difference_parts(first, second)
    leaning = normalize(first, dim=0) - normalize(second, dim=0)
    keep = embedder.displayed_tokens(filtered, stop_words)
    return PairExplanation(
        float(first @ second),
        float(alike.sum()),
        _heaviest(embedder, first, second, alike, keep, k),
        _heaviest(embedder, first, second, apart, keep & (leaning > 0), k),
        _heaviest(embedder, first, second, apart, keep & (leaning < 0), k),
    )


def similarity_parts(first: Tensor, second: Tensor) -> Tensor:
    """Split the cosine of two logit vectors of length V into one part per token; the parts sum to the cosine."""
    return normalize(first, dim=0) * normalize(second, dim=0)


def difference_parts(first: Tensor, second: Tensor) -> Tensor:
    """Split 1 − cosine of two logit vectors into one part per token: half the squared difference at unit length."""
    return (normalize(first, dim=0) - normalize(second, dim=0)).square() / 2


def explain_instructions(
    embedder: Embedder,
    text: str,
    instructions: Sequence[str],
    *,
    k: int = 10,
    filtered: bool = False,
    stop_words: str = "en",
) -> dict[str, InstructionExplanation]:
    """Explain a text without an instruction (under the key "") and with each instruction.

    An instruction stands before the text, followed by a space. It is passed as ``prompt=`` of sentence-transformers, so the
    result explains ``encode(text, prompt=…)``. It stands in place of a default prompt of the model, and the text without an
    instruction is read without that prompt, too. The template of the embedder surrounds both. To the template, the instruction
    is the beginning of the text, so tokens of the instruction itself may rise.

    Args:
        embedder: Has a decoding head.
        text: One text.
        instructions: Without a space at the end.
        k: Tokens per list. ``rose`` and ``fell`` consider only the ``top_k`` tokens of either sparse vector, because logits far
            below them move without meaning.
        filtered: List meaningful tokens only.
        stop_words: Languages of the words that ``filtered`` leaves out.

    Raises:
        UserError: The embedder has no decoding head, or ``instructions`` is no list of texts.
    """
    check_texts(instructions)
    keep = embedder.displayed_tokens(filtered, stop_words)
    prompts = {instruction: f"{instruction} " if instruction else "" for instruction in ("", *instructions)}
    logits = {name: embedder.logits(embedder.embed([text], prompt=prompt))[0] for name, prompt in prompts.items()}
    bare, explanations = logits[""], {}
    for name, instructed in logits.items():
        aligned = _heaviest(embedder, bare, instructed, instructed, keep, k, threshold=embedder.alignment_threshold)
        seen = keep & (_among_top(bare, embedder) | _among_top(instructed, embedder))
        explanations[name] = InstructionExplanation(
            [AlignedToken(token.token, token.second) for token in aligned],
            _heaviest(embedder, bare, instructed, instructed - bare, seen, k),
            _heaviest(embedder, bare, instructed, bare - instructed, seen, k),
        )
    return explanations


def _among_top(logits: Tensor, embedder: Embedder) -> Tensor:
    """Return a mask of V booleans: the tokens that a sparse vector with these logits keeps."""
    return (logits >= logits.topk(min(embedder.top_k, len(logits))).values[-1]) & (
        logits > embedder.alignment_threshold
    )


def _heaviest(
    embedder: Embedder, first: Tensor, second: Tensor, parts: Tensor, keep: Tensor, k: int, threshold: float = 0.0
) -> list[TokenPart]:
    """The ``k`` tokens in ``keep`` with the largest parts above ``threshold``."""
    check_count("k", k)
    best = parts.masked_fill(~keep, -torch.inf).topk(min(k, len(parts)))
    found = [(i, part) for i, part in zip(best.indices.tolist(), best.values.tolist(), strict=True) if part > threshold]
    texts = spell(embedder.tokenizer, [i for i, _ in found])
    return [
        TokenPart(text, float(first[i]), float(second[i]), part) for text, (i, part) in zip(texts, found, strict=True)
    ]
