"""Train a table of token vectors whose mean imitates the embedding of a teacher (ours).

The start is closed form: the rows of the decoding head, weighted by idf, under the linear map that brings their means closest to
the teacher's embeddings. The map is learnt from all tokens, so the rows of rare and unseen tokens profit from it too. Training
then changes only the rows of tokens that it reads.

The loss has two parts. The student's dense vector must point where the teacher's does: one minus the cosine. And its token logits
must predict a token target: half of it lies on the aligned tokens of the teacher, half on the text's own tokens, by idf.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from text2token.model.embedder import Embedder
from text2token.model.row_training import train_rows
from text2token.model.static import idf_table, inverse_document_frequency, pool
from text2token.settings.distillation import DistillSettings
from text2token.targets.loss import pad_targets, token_target_loss

_RIDGE = 3e-3  # of the mean variance; up to 1e-2 it hardly matters
_DECODED = 256  # embeddings decoded at once
_ALIGNED = 32  # aligned tokens of the teacher in a token target
_OWN_SHARE = 0.5  # of a token target that lies on the text's own tokens
_TOKEN_WEIGHT = 0.02  # of the token target loss, in nats, beside one minus the cosine
_PRIOR_RATE = 0.01  # learning rate of scale and prior


@dataclass(frozen=True)
class Lesson:
    """The texts that a student learns from.

    Attributes:
        ids: Token ids of each of N texts; none is empty.
        embeddings: Pooled embeddings of the teacher, N×d.
    """

    ids: list[NDArray[np.int32]]
    embeddings: Tensor


def start_table(teacher: Embedder, lesson: Lesson) -> Tensor:
    """Return the table from which training starts, V×d; see the module.

    The targets are centred and have equal lengths, as only their directions matter for cosines.
    """
    rows = idf_table(teacher.decoding_head, lesson.ids)
    mean = lesson.embeddings.mean(dim=0)
    centred = lesson.embeddings - mean
    lengths = centred.norm(dim=1, keepdim=True)
    matrix, offset = ridge(pool(rows, lesson.ids), centred / lengths.clamp(min=1e-9) * lengths.mean())
    return rows @ matrix + offset + mean


def ridge(inputs: Tensor, outputs: Tensor, penalty: float = _RIDGE) -> tuple[Tensor, Tensor]:
    """Solve ``min ‖inputs·A + b − outputs‖² + λ‖A‖²``, where λ is ``penalty`` times the mean variance of the inputs, times N.

    Args:
        inputs: N×d.
        outputs: N×k.
        penalty: Relative strength.

    Returns:
        A, d×k, and b, k.
    """
    mean_in, mean_out = inputs.mean(dim=0), outputs.mean(dim=0)
    x, y = (inputs - mean_in).double(), (outputs - mean_out).double()
    gram = x.T @ x
    strength = penalty * gram.diagonal().mean().clamp(min=1e-12)
    matrix = torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=gram.dtype), x.T @ y).float()
    return matrix, mean_out - mean_in @ matrix


def train_table(
    teacher: Embedder, table: Tensor, lesson: Lesson, settings: DistillSettings, *, progress: bool = False
) -> Tensor:
    """Return the trained table, V×d. Rows of tokens that no text has stay as they are.

    Args:
        teacher: Gives the decoding head, the corpus mean and the correction of dense vectors, which the student keeps.
        table: The start, V×d.
        lesson: Texts and the teacher's embeddings.
        settings: Epochs, size of a batch, learning rate and seed.
        progress: Show a progress bar on a terminal.
    """
    rate = settings.learning_rate * float((table - table.mean(dim=0)).std())
    reader = _TokenReader(teacher, lesson)
    dense = _corrected(teacher, lesson.embeddings)

    def loss(pooled: Tensor, batch: Tensor) -> Tensor:
        cosines = torch.cosine_similarity(_corrected(teacher, pooled), dense[batch])
        return (1 - cosines).mean() + _TOKEN_WEIGHT * reader.loss(pooled, batch)

    return train_rows(
        table,
        [lesson.ids] * settings.epochs,
        loss,
        rate=rate,
        batch_size=settings.batch_size,
        seed=settings.seed,
        beside=[torch.optim.Adam(reader.parameters(), _PRIOR_RATE)],
        description="Training",
        progress=progress,
    )


def _corrected(teacher: Embedder, embeddings: Tensor) -> Tensor:
    """Apply the correction of dense vectors, and keep the gradient."""
    if teacher.correction is None:
        return embeddings
    linear = teacher.correction.linear
    return nn.functional.linear(
        embeddings, linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
    )


class _TokenReader(nn.Module):
    """Compares the token logits of a student with token targets.

    The logits are ``s·(z − mean) + p``, where ``z`` are those of the decoding head. A student's embedding differs from the mean
    less than the teacher's, and the more so the longer the text. The table need not learn this, since scale ``s`` and prior
    ``p``, V numbers, are learnt beside it.
    """

    def __init__(self, teacher: Embedder, lesson: Lesson) -> None:
        super().__init__()
        self._head, self._mean = teacher.decoding_head, teacher.require_calibration()
        k = min(_ALIGNED, len(self._mean))
        parts = [teacher.logits(part).topk(k, dim=1) for part in lesson.embeddings.split(_DECODED)]
        self._aligned_ids = torch.cat([part.indices for part in parts])
        self._aligned_weights = torch.cat([part.values.softmax(dim=1) for part in parts])
        idf = inverse_document_frequency(lesson.ids, len(lesson.ids), len(self._mean))
        self._own = [np.unique(ids) for ids in lesson.ids]
        self._own_weights = [idf[ids] / idf[ids].sum() for ids in self._own]
        self.log_scale = nn.Parameter(torch.zeros(()))
        self.prior = nn.Parameter(torch.zeros(len(self._mean)))

    def loss(self, embeddings: Tensor, batch: Tensor) -> Tensor:
        """Return the token target loss of a batch."""
        logits = self._head.uncapped(embeddings) - self._mean
        return token_target_loss(self.log_scale.exp() * logits + self.prior, *self._targets(batch))

    def _targets(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Token targets of a batch: ids and weights, B×K. An id may stand twice, which leaves the gradient as it should be."""
        own = pad_targets([self._own[place] for place in batch], [self._own_weights[place] for place in batch])
        weights = (1 - _OWN_SHARE) * self._aligned_weights[batch], _OWN_SHARE * own[1]
        return torch.cat([self._aligned_ids[batch], own[0]], dim=1), torch.cat(weights, dim=1)
