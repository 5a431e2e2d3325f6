"""Explain: what an instruction changes in the vector of a text, and which tokens two texts have or do not have in common.

The analyses of arXiv 2406.17378 (interpretability section) as numbers; how they are computed is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from text2token.model.embedder import AlignedToken, Embedder


class TokenPart(NamedTuple):
    """A token's weights (logits, above their corpus mean where it is known) in two vectors, and what it contributes."""

    token: str
    first: float
    second: float
    part: float


class PairReading(NamedTuple):
    """Why two texts are as similar as they are; ``a`` and ``b`` are their logit vectors of V tokens.

    Attributes:
        dot: ``a·b``.
        cosine: ``a·b / ‖a‖‖b‖``.
        alike: Tokens whose part ``a_v·b_v / ‖a‖‖b‖`` is largest; over all V tokens the parts sum to the cosine, and times
            ``‖a‖‖b‖`` to the dot product.
        in_first: Tokens of larger share in the first text, whose part ``½(a_v/‖a‖ − b_v/‖b‖)²`` is largest.
        in_second: The same of the second; the parts of both together sum to 1 − cosine over all V tokens.
    """

    dot: float
    cosine: float
    alike: list[TokenPart]
    in_first: list[TokenPart]
    in_second: list[TokenPart]


class InstructedReading(NamedTuple):
    """A text under an instruction.

    Attributes:
        tokens: Aligned tokens, as :meth:`Embedder.explain` gives them.
        rose: Tokens whose weight is most above that without instruction; ``part`` is by how much.
        fell: Those whose weight is most below; ``part`` is by how much.
    """

    tokens: list[AlignedToken]
    rose: list[TokenPart]
    fell: list[TokenPart]


def explain_pair(
    embedder: Embedder, pair: tuple[str, str], *, k: int = 10, filtered: bool = False, stop_words: str = "en"
) -> PairReading:
    """Which tokens make two texts similar or different to an embedder.

    The sums are exact: they run over the whole vocabulary, of which ``k`` tokens are shown. Only vectors of length V are made.

    Args:
        embedder: With a decoding head. Where it knows no corpus mean, plain logits are read, whose common part dominates.
        pair: Two texts.
        k: Tokens of each list.
        filtered: Show meaningful tokens only; the sums stay over all.
        stop_words: Languages of the words that have no meaning.

    Raises:
        UserError: The embedder has no decoding head.
    """
    first, second = embedder.logits(embedder.embed(pair)).double()
    alike, apart = similarity_parts(first, second), difference_parts(first, second)
    leaning = normalize(first, dim=0) - normalize(second, dim=0)
    keep = embedder.shown(filtered, stop_words)
    return PairReading(
        float(first @ second),
        float(alike.sum()),
        _heaviest(embedder, first, second, alike, keep, k),
        _heaviest(embedder, first, second, apart, keep & (leaning > 0), k),
        _heaviest(embedder, first, second, apart, keep & (leaning < 0), k),
    )


def similarity_parts(first: Tensor, second: Tensor) -> Tensor:
    """What each token adds to the cosine of two logit vectors of length V; the parts sum to it."""
    return normalize(first, dim=0) * normalize(second, dim=0)


def difference_parts(first: Tensor, second: Tensor) -> Tensor:
    """What each token takes from a cosine of 1: half the squared distance at unit length, so the parts sum to 1 − cosine."""
    return (normalize(first, dim=0) - normalize(second, dim=0)).square() / 2


def explain_instructions(
    embedder: Embedder,
    text: str,
    instructions: Sequence[str],
    *,
    k: int = 10,
    filtered: bool = False,
    stop_words: str = "en",
) -> dict[str, InstructedReading]:
    """The same text under different instructions; the first entry, under "", is the text without one.

    An instruction stands before the text, with a space between. It is handed over as sentence-transformers' ``prompt=``, so
    what is explained is what ``encode(text, prompt=…)`` gives. A template of the embedder stands around both: to it, the
    instruction is the beginning of the text, and tokens of the instruction itself may rise.

    Args:
        embedder: With a decoding head.
        text: One text.
        instructions: Without a space at their end.
        k: Tokens shown of each list. What rises and falls is looked for among the ``top_k`` tokens of either sparse vector,
            since far below them logits move without meaning.
        filtered: Meaningful tokens only.
        stop_words: Languages of the words that have no meaning.

    Raises:
        UserError: The embedder has no decoding head.
    """
    keep = embedder.shown(filtered, stop_words)
    prompts = {"": None} | {instruction: f"{instruction} " for instruction in instructions}
    logits = {name: embedder.logits(embedder.embed([text], prompt=prompt))[0] for name, prompt in prompts.items()}
    bare, readings = logits[""], {}
    for name, instructed in logits.items():
        aligned = _heaviest(embedder, bare, instructed, instructed, keep, k, floor=embedder.floor)
        seen = keep & (_among_top(bare, embedder) | _among_top(instructed, embedder))
        readings[name] = InstructedReading(
            [AlignedToken(token.token, token.second) for token in aligned],
            _heaviest(embedder, bare, instructed, instructed - bare, seen, k),
            _heaviest(embedder, bare, instructed, bare - instructed, seen, k),
        )
    return readings


def _among_top(logits: Tensor, embedder: Embedder) -> Tensor:
    """Which tokens a sparse vector would have, or the same number of plain logits, V booleans."""
    return (logits >= logits.topk(min(embedder.top_k, len(logits))).values[-1]) & (logits > embedder.floor)


def _heaviest(
    embedder: Embedder, first: Tensor, second: Tensor, parts: Tensor, keep: Tensor, k: int, floor: float = 0.0
) -> list[TokenPart]:
    """The ``k`` tokens in ``keep`` with the largest parts above ``floor``."""
    best = parts.masked_fill(~keep, -torch.inf).topk(min(k, len(parts)))
    return [
        TokenPart(embedder.tokenizer.decode([i]), float(first[i]), float(second[i]), part)
        for i, part in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        if part > floor
    ]
