"""The change from a backbone's embeddings to an embedder's, measured in the principal components of the backbone.

The variation of each component, the contribution of the first one to token logits, and the shift ``h + λ·u₁`` are those of
*A Text is Worth Several Tokens* (arXiv 2406.17378). The spread of the change, and float64 sums over any number of texts, are
ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from text2token.analysis.alignment import AlignmentSettings, align_embeddings
from text2token.analysis.sts import EmbeddedPairs
from text2token.model.embedder import Embedder
from text2token.model.vocabulary import spell
from text2token.utils.errors import UserError

Row = dict[str, Any]
NAMED = ("sweep", "v1", "zero")
MULTIPLES = (
    0.0,
    0.25,
    0.5,
    0.75,
    1.0,
    1.25,
    1.5,
    2.0,
)  # the sweep in units of v₁: the paper's λ = v₁, and both sides of it


@dataclass
class Moments:
    """Sums over the base and tuned embeddings of N texts. The memory is two d×d matrices, independent of N.

    Attributes:
        texts: N.
        base: Sum of the base embeddings, d.
        change: Sum of the changes (tuned minus base embedding), d.
        base_products: Sum of the outer products of the base embeddings, d×d float64.
        change_products: Sum of the outer products of the changes, d×d float64.
    """

    texts: int
    base: NDArray[np.float64]
    change: NDArray[np.float64]
    base_products: NDArray[np.float64]
    change_products: NDArray[np.float64]

    @classmethod
    def none(cls, dimension: int) -> Moments:
        """Sums over no texts."""
        vector, matrix = np.zeros(dimension), np.zeros((dimension, dimension))
        return cls(0, vector, vector.copy(), matrix, matrix.copy())

    def add(self, base: Tensor, tuned: Tensor) -> None:
        """Add the base and tuned embeddings of a batch of texts, B×d each."""
        h = base.double().numpy()
        change = tuned.double().numpy() - h
        self.texts += len(h)
        self.base += h.sum(axis=0)
        self.change += change.sum(axis=0)
        self.base_products += h.T @ h
        self.change_products += change.T @ change


@dataclass(frozen=True)
class Components:
    """Principal components of the base embeddings, the strongest first.

    Attributes:
        directions: u₁, u₂, … as orthonormal rows, d×d. The sign is chosen so that the mean base embedding has a positive
            coefficient.
        energy: Share of each component in the (centred) second moment, d. The shares sum to 1.
        mean: Mean coefficient of the base embeddings, d.
        variation: v_j = E[(ĥ − h)·u_j], the mean change of each coefficient from base to tuned, d.
        spread: Standard deviation of that change over the texts, d.
    """

    directions: NDArray[np.float64]
    energy: NDArray[np.float64]
    mean: NDArray[np.float64]
    variation: NDArray[np.float64]
    spread: NDArray[np.float64]

    @property
    def first(self) -> Tensor:
        """u₁, d float32."""
        return torch.from_numpy(self.directions[0]).float()

    def rows(self) -> list[Row]:
        """One row per component."""
        columns = {
            "energy": self.energy,
            "base_mean": self.mean,
            "variation": self.variation,
            "spread": self.spread,
        }
        return [
            {"component": place + 1, **{name: float(column[place]) for name, column in columns.items()}}
            for place in range(len(self.energy))
        ]


def principal_components(moments: Moments, *, centred: bool = False) -> Components:
    """Compute the principal components of the base embeddings, and the variation of each.

    Args:
        moments: Sums over at least one text.
        centred: Subtract the mean embedding first. The code of the paper does not, so its u₁ is mostly the direction of the
            mean. The variation is that of uncentred coefficients in both cases.
    """
    mean, change = moments.base / moments.texts, moments.change / moments.texts
    second = moments.base_products / moments.texts - centred * np.outer(mean, mean)
    energy, columns = np.linalg.eigh(second)
    energy, directions = energy[::-1].clip(min=0), columns[:, ::-1].T
    directions = directions * np.where(directions @ mean < 0, -1.0, 1.0)[:, None]
    variation = directions @ change
    squares = ((directions @ (moments.change_products / moments.texts)) * directions).sum(axis=1)
    return Components(
        directions=directions,
        energy=energy / max(energy.sum(), np.finfo(float).tiny),
        mean=directions @ mean,
        variation=variation,
        spread=np.sqrt((squares - variation**2).clip(min=0)),
    )


def contributions(embedder: Embedder, embeddings: Tensor, components: Components, k: int = 10) -> list[Row]:
    """Split the logits of each text's aligned tokens into the part of u₁ and the part of all other components.

    Args:
        embedder: Gives the decoding head.
        embeddings: Base embeddings, N×d.
        components: Gives u₁.
        k: Aligned tokens per text.

    Returns:
        One row per text and rank: the position of the ``text``, the ``rank``, the ``token`` and its logit ``total``, which is
        ``first`` + ``rest``. ``rest`` is the logit after u₁ is projected out of the embedding; ``rest_token`` is the token that
        then has this rank.
    """
    first, shown = components.first, embedder.displayed_tokens(filtered=False)
    without = embeddings - torch.outer(embeddings @ first, first)
    rows: list[Row] = []
    for place, (whole, part) in enumerate(zip(embeddings, without, strict=True)):
        total, rest = embedder.decoding_head.uncapped(torch.stack([whole, part])).masked_fill_(~shown, -torch.inf)
        best, others = (part.topk(k).indices.tolist() for part in (total, rest))
        names = zip(best, spell(embedder.tokenizer, best), spell(embedder.tokenizer, others), strict=True)
        for rank, (token, name, other) in enumerate(names, start=1):
            rows.append(
                {
                    "text": place,
                    "rank": rank,
                    "token": name,
                    "total": float(total[token]),
                    "first": float(total[token] - rest[token]),
                    "rest": float(rest[token]),
                    "rest_token": other,
                }
            )
    return rows


def shifts(components: Components, chosen: Sequence[str]) -> list[float]:
    """Return the chosen values of λ in ascending order, 0 included.

    Args:
        components: Gives v₁, the unit of the sweep.
        chosen: Any of ``sweep`` (MULTIPLES of v₁), ``v1``, ``zero`` (makes the mean coefficient of u₁ zero) and numbers.

    Raises:
        UserError: An entry is none of these.
    """
    first, zero = float(components.variation[0]), -float(components.mean[0])
    named = {"sweep": [multiple * first for multiple in MULTIPLES], "v1": [first], "zero": [zero]}
    values = {0.0}
    for shift in map(parse_shift, chosen):
        values |= {shift} if isinstance(shift, float) else {*named[shift]}
    return sorted(values)


def parse_shift(text: str) -> str | float:
    """Return a name of ``NAMED`` as it is, and anything else as a number.

    Raises:
        UserError: The text is neither.
    """
    if text in NAMED:
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"The shift '{text}' is unknown: give a number, or one of {', '.join(NAMED)}.")
    return value


def shift_rows(
    embedder: Embedder,
    embeddings: Tensor,
    texts: Sequence[str],
    direction: Tensor,
    values: Sequence[float],
    pairs: EmbeddedPairs | None = None,
    examples: int = 0,
) -> list[Row]:
    """Measure alignment rates, token categories and STS of ``h + λ·u₁``: one row per λ.

    Args:
        embedder: Gives the decoding head.
        embeddings: Embeddings h of the texts, N×d.
        texts: N texts.
        direction: u₁, d.
        values: The values of λ.
        pairs: Adds ``sts``, Spearman's ρ from −1 to 1. None leaves it out.
        examples: The aligned ``tokens`` of so many first texts are listed.
    """
    rows: list[Row] = []
    for value in values:
        shifted = embeddings + value * direction
        rows.append({"shift": value, **measure_embeddings(embedder, shifted, texts)})
        if pairs:
            rows[-1]["sts"] = pairs.spearman(value * direction)
        rows[-1]["tokens"] = strongest_tokens(embedder, shifted[:examples])
    return rows


def measure_embeddings(embedder: Embedder, embeddings: Tensor, texts: Sequence[str]) -> Row:
    """Measure alignment rates (by the definition of the paper) and token categories, as one flat row."""
    result = align_embeddings(embedder, embeddings, texts, AlignmentSettings())
    return {**result["rates"], **result["categories"]}


def strongest_tokens(embedder: Embedder, embeddings: Tensor, k: int = 10) -> list[list[str]]:
    """The ``k`` tokens with the highest plain logits, for each of N×d embeddings."""
    if not len(embeddings):
        return []
    shown = embedder.displayed_tokens(filtered=False)
    ids = embedder.decoding_head.uncapped(embeddings).masked_fill_(~shown, -torch.inf).topk(k, dim=1).indices
    return [spell(embedder.tokenizer, row) for row in ids.tolist()]
