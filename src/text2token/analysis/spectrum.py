"""Spectrum: what changes between a backbone's embeddings and an embedder's, seen in the backbone's principal components.

After *A Text is Worth Several Tokens* (arXiv 2406.17378): the variation of each component, what the first one adds to the token
logits, and the shift ``h + λ·u₁``. Sums in float64 over any number of texts, and the spread of the change, are ours.
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

from text2token.analysis.alignment import Reading, align_embeddings
from text2token.analysis.sts import EmbeddedPairs
from text2token.model.embedder import Embedder
from text2token.utils.errors import UserError

Row = dict[str, Any]
NAMED = ("sweep", "v1", "zero")
MULTIPLES = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)  # of v₁, swept: none, the paper's λ = v₁, and both sides of it


@dataclass
class Moments:
    """Sums over pairs of embeddings of the same texts, N of them; memory is a few d×d, whatever N.

    Attributes:
        texts: N.
        base: Sum of base embeddings, d.
        change: Sum of tuned minus base embeddings, d.
        base_products: Sum of outer products of base embeddings, d×d float64.
        change_products: The same of the changes.
    """

    texts: int
    base: NDArray[np.float64]
    change: NDArray[np.float64]
    base_products: NDArray[np.float64]
    change_products: NDArray[np.float64]

    @classmethod
    def none(cls, dimension: int) -> Moments:
        """Of no texts yet."""
        vector, matrix = np.zeros(dimension), np.zeros((dimension, dimension))
        return cls(0, vector, vector.copy(), matrix, matrix.copy())

    def add(self, base: Tensor, tuned: Tensor) -> None:
        """Take in a batch, B×d each, of the same texts."""
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
        directions: u₁, u₂, …: orthonormal rows, d×d; each points to where the mean base embedding lies.
        energy: Share of each in the (centred) second moment, d; they sum to 1.
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
        """A row a component."""
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
    """Components of the base embeddings and their variation.

    Args:
        moments: Of at least one text.
        centred: Of the embeddings less their mean; the paper's code does not centre, so that its u₁ is mostly the mean's own
            direction. The variation is of plain coefficients either way.
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
    """What u₁ and the rest add to the logits of the tokens that each text aligns with.

    Args:
        embedder: With the head that reads.
        embeddings: Of the base, N×d.
        components: Whose first one is taken apart.
        k: Aligned tokens a text.

    Returns:
        A row a text and rank: ``text`` (its place), ``rank``, ``token``, its logit ``total`` = ``first`` + ``rest``, where
        ``rest`` is what the head reads once the component is projected out; and ``rest_token``, the token of that rank then.
    """
    first = components.first
    without = embeddings - torch.outer(embeddings @ first, first)
    rows: list[Row] = []
    for place, (whole, part) in enumerate(zip(embeddings, without, strict=True)):
        total, rest = embedder.decoding_head.uncapped(torch.stack([whole, part]))
        for rank, (token, other) in enumerate(zip(total.topk(k).indices, rest.topk(k).indices, strict=True), start=1):
            rows.append(
                {
                    "text": place,
                    "rank": rank,
                    "token": embedder.tokenizer.decode([int(token)]),
                    "total": float(total[token]),
                    "first": float(total[token] - rest[token]),
                    "rest": float(rest[token]),
                    "rest_token": embedder.tokenizer.decode([int(other)]),
                }
            )
    return rows


def shifts(components: Components, chosen: Sequence[str]) -> list[float]:
    """The values of λ to look at, ascending.

    Args:
        components: Their v₁ is the unit of the sweep.
        chosen: Any of ``sweep`` (MULTIPLES of v₁), ``v1``, ``zero`` (which takes the mean coefficient of u₁ to zero) and numbers.

    Raises:
        UserError: Something else.
    """
    first, zero = float(components.variation[0]), -float(components.mean[0])
    named = {"sweep": [multiple * first for multiple in MULTIPLES], "v1": [first], "zero": [zero]}
    values = {0.0}
    for shift in map(parse_shift, chosen):
        values |= {shift} if isinstance(shift, float) else {*named[shift]}
    return sorted(values)


def parse_shift(text: str) -> str | float:
    """A name of ``NAMED``, or a number.

    Raises:
        UserError: Something else.
    """
    if text in NAMED:
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"There is no shift '{text}': give a number, or one of {', '.join(NAMED)}.")
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
    """Alignment rates, token categories and STS of ``h + λ·u₁``, and the tokens of some texts: one row per λ.

    Args:
        embedder: With the head that reads.
        embeddings: Of the texts, N×d.
        texts: N.
        direction: u₁, d.
        values: Of λ.
        pairs: For ``sts``; None: left out.
        examples: First texts whose aligned tokens are listed.
    """
    rows: list[Row] = []
    for value in values:
        shifted = embeddings + value * direction
        rows.append({"shift": value, **judge_embeddings(embedder, shifted, texts)})
        if pairs:
            rows[-1]["sts"] = pairs.spearman(value * direction)
        rows[-1]["tokens"] = aligned_tokens(embedder, shifted[:examples])
    return rows


def judge_embeddings(embedder: Embedder, embeddings: Tensor, texts: Sequence[str]) -> Row:
    """Alignment rates and token categories of embeddings, as the paper defines the first, in one flat row."""
    result = align_embeddings(embedder, embeddings, texts, Reading())
    return {**result["rates"], **result["categories"]}


def aligned_tokens(embedder: Embedder, embeddings: Tensor, k: int = 10) -> list[list[str]]:
    """The ``k`` tokens of the highest plain logits, for each of N×d embeddings."""
    if not len(embeddings):
        return []
    ids = embedder.decoding_head.uncapped(embeddings).topk(k, dim=1).indices
    return [[embedder.tokenizer.decode([int(token)]) for token in row] for row in ids]
