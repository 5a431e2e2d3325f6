"""Training-free linear corrections of embeddings, folded into one affine map ``x = A·h + c`` that is saved with the model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor

from text2token.model.head import DecodingHead
from text2token.settings.corrections import Step, parse_steps
from text2token.utils.errors import UserError

_ROWS = 16_384  # rows of the head converted to float64 at once
_SHRINKAGE = 0.3  # default of whiten; chosen on STSBenchmark validation
_DIRECTIONS: WeakKeyDictionary[DecodingHead, Tensor] = WeakKeyDictionary()  # seconds to compute for a large vocabulary


class Affine(NamedTuple):
    """The map ``x = matrix·h + offset``; matrix k×d and offset k in float64."""

    matrix: Tensor
    offset: Tensor

    def __call__(self, embeddings: Tensor) -> Tensor:
        """Map embeddings N×d to N×k."""
        return embeddings @ self.matrix.T + self.offset

    def then(self, other: Affine) -> Affine:
        """Return the map that applies this one and then ``other``."""
        return Affine(other.matrix @ self.matrix, other(self.offset))


def correction(
    steps: Sequence[str], embeddings: Tensor, head: DecodingHead | None, keep: tuple[float, float] = (0.0, 1.0)
) -> Dense | None:
    """Learn a chain of corrections from a sample of embeddings, and fold them into one module.

    Args:
        steps: Steps in order, in the notation of :mod:`text2token.settings.corrections`. Each learns from the sample as the
            steps before it left it.

            - ``centre`` subtracts the mean.
            - ``shift`` adds λ·u₁ (arXiv 2406.17378). u₁ is the first right singular vector of the uncentred embeddings, with the
              sign that points towards their mean. The default λ makes the mean coefficient of u₁ zero.
            - ``first-component`` and ``remove`` project out the first 1 or N right singular vectors (of the uncentred embeddings,
              unless ``centre`` came before; centre+remove is all-but-the-top, arXiv 1702.01417).
            - ``whiten`` centres and scales all directions to one variance, under the covariance ``(1 − S)·C + S·tr(C)/d·I``
              (shrinkage towards equal variances, as Ledoit and Wolf 2004). It does not rotate (ZCA), so ``filter`` can follow.
            - ``filter`` is :func:`spectral_filter`. It comes last, since it changes the dimension.
        embeddings: Sample, N×d.
        head: The decoding head of the backbone; only ``filter`` needs it.
        keep: Shares of the spectrum between which the spectral filter keeps directions.

    Returns:
        The map ``x = A·h + c`` with A k×d as a module of sentence-transformers; None if there are no steps.

    Raises:
        UserError: The steps remove more components than there are, or the filter keeps no direction or has no head.
    """
    if not steps:
        return None
    sample, dimension = embeddings.double(), embeddings.shape[1]
    folded = Affine(torch.eye(dimension, dtype=torch.float64), torch.zeros(dimension, dtype=torch.float64))
    for step in parse_steps(steps):
        folded = folded.then(_learn(step, folded(sample), head, keep))
    matrix, offset = folded.matrix.float(), folded.offset.float()
    return Dense(
        dimension, len(matrix), bias=True, activation_function=torch.nn.Identity(), init_weight=matrix, init_bias=offset
    )  # fmt: skip


def spectral_filter(head: DecodingHead, low: float, high: float) -> Tensor:
    """Return a projection onto the middle of the decoding head's spectrum: principal directions from ``low`` to ``high``.

    The first directions carry token frequency, and the last ones hardly affect any token; both are noise in a cosine similarity
    (after EmbedFilter, arXiv 2606.07502, which filters uncentred; centring the rows of W first is ours).

    Args:
        head: The decoding head of the backbone; its matrix is V×d.
        low: Share of directions removed at the large end, 0 to 1.
        high: Share at which the small end is cut off; ``high - low`` of all directions stay.

    Returns:
        Orthonormal rows, k×d with k = (high − low)·d. The identity if the head has a transform before its matrix,
        because the spectrum then belongs to another space than the embedding's.

    Raises:
        UserError: No direction lies between ``low`` and ``high``, or one of them is not from 0 to 1.
    """
    if not (0 <= low <= 1 and 0 <= high <= 1):
        raise UserError(f"keep_from and keep_to are {low:g} and {high:g}: give shares from 0 to 1.")
    dimension = head.weight.shape[1]
    if len(head.transform):
        return torch.eye(dimension)
    if head not in _DIRECTIONS:
        _DIRECTIONS[head] = _principal_directions(head.weight)
    rows = _DIRECTIONS[head][round(low * dimension) : round(high * dimension)].clone()
    if not len(rows):
        raise UserError(
            f"The spectrum has {dimension} directions and none between {low:g} and {high:g}: "
            "put keep_from and keep_to further apart."
        )
    return rows


def _learn(step: Step, sample: Tensor, head: DecodingHead | None, keep: tuple[float, float]) -> Affine:
    """Learn one correction from embeddings N×d in float64."""
    dimension = sample.shape[1]
    identity, zero = torch.eye(dimension, dtype=torch.float64), torch.zeros(dimension, dtype=torch.float64)
    mean = sample.mean(dim=0)
    match step.name:
        case "centre":
            return Affine(identity, -mean)
        case "shift":
            first = _singular_vectors(sample, 1)[0]
            first = -first if mean @ first < 0 else first
            return Affine(identity, first * (-(mean @ first) if step.value is None else step.value))
        case "whiten":
            whitening = _whitening(sample - mean, _SHRINKAGE if step.value is None else step.value)
            return Affine(whitening, -whitening @ mean)
        case "filter":
            if head is None:
                raise UserError(
                    "A spectral filter needs a decoding head, and this model has none: leave the filter out."
                )
            rows = spectral_filter(head, *keep).double()
            return Affine(rows, zero[: len(rows)])
    number = 1 if step.value is None else int(step.value)
    if number >= dimension:
        raise UserError(f"remove-{number} would leave none of {dimension} components: remove fewer.")
    removed = _singular_vectors(sample, number)
    return Affine(identity - removed.T @ removed, zero)


def _singular_vectors(sample: Tensor, number: int) -> Tensor:
    """Return the first right singular vectors, one a row."""
    _, directions = torch.linalg.eigh(sample.T @ sample)  # ascending
    return directions[:, -number:].T


def _whitening(centred: Tensor, shrinkage: float) -> Tensor:
    """Return the symmetric inverse square root of the shrunk covariance, d×d.

    Directions without variance become zero. The identity if there is no variance at all, as of one short text.
    """
    variances, directions = torch.linalg.eigh(centred.T @ centred / len(centred))
    shrunk = (1 - shrinkage) * variances.clamp(min=0) + shrinkage * variances.mean()
    alive = shrunk > shrunk.max() * torch.finfo(torch.float32).eps  # below that is rounding error of float32 embeddings
    if not alive.any():
        return torch.eye(len(variances), dtype=torch.float64)
    scales = torch.where(alive, shrunk.clamp(min=torch.finfo(torch.float64).tiny).rsqrt(), 0.0)
    return (directions * scales) @ directions.T


def _principal_directions(weight: Tensor) -> Tensor:
    """Return the principal directions of rows V×d about their mean, the strongest first: d×d float32, one a row."""
    dimension = weight.shape[1]
    mean = weight.mean(dim=0, dtype=torch.float64)
    gram = torch.zeros(dimension, dimension, dtype=torch.float64)
    for rows in weight.split(_ROWS):  # not all of V×d in float64 at once
        gram += (rows.double() - mean).T @ (rows.double() - mean)
    _, directions = torch.linalg.eigh(gram)  # ascending eigenvalues, one column per direction
    return directions.flip(1).T.float()
