"""Columns of a student that learn from the corpus alone which texts belong together.

Two spans of one text are a pair. The vector of each must find its partner among those of other texts (the cropping of Contriever,
arXiv 2112.09118, with a table of token vectors in place of a transformer: ours). The teacher reads some thousand texts; a table
reads all of a corpus in seconds, and learns the words that its texts use together. These columns stand beside those that imitate
the teacher in the dense vector, and the decoding head does not read them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor, nn

from text2token.model.embedder import Embedder
from text2token.model.head import widened
from text2token.model.row_training import train_rows
from text2token.model.static import pool, static_encoder

Ids = NDArray[np.int32]

# Chosen on known items in Wikipedia paragraphs, and on STSBenchmark validation, which must not fall by more than a point.
_COLUMNS = 128
_WEIGHT = 0.7  # length of these columns in the vector of a text, over that of the others
_PASSES, _PAIRS = 10, 512  # passes over the texts; pairs in a batch
_RATE = 0.15  # largest change of a number in one step, in standard deviations of the columns, at first; it falls to 0
_TEMPERATURE = 0.05  # of the cosines, as in SimCSE (arXiv 2104.08821)
_SPAN_TOKENS = (8, 64)
_FEWEST_TOKENS = 12  # a shorter text has no two spans
_FEWEST_TEXTS = 64  # fewer teach a batch nothing


def with_pairs(student: Embedder, texts: Sequence[Ids], seed: int, *, progress: bool = False) -> Embedder:
    """Return a static student whose dense vectors have further columns, learnt from pairs of spans.

    Args:
        student: A static embedder. Its sparse vectors and readings stay as they are.
        texts: Token ids of each text. Short ones are left out; if too few are left, the student itself is returned.
        seed: Seed of the spans and of their order.
        progress: Show a progress bar on a terminal.
    """
    texts = [ids for ids in texts if len(ids) >= _FEWEST_TOKENS]
    if len(texts) < _FEWEST_TEXTS:
        return student
    table = student.encoder[0].embedding.weight.detach()
    dense = student.correct(table)
    columns = train_columns(principal_columns(dense, _COLUMNS), texts, seed, progress=progress)
    columns *= _WEIGHT * _spread(dense, texts) / _spread(columns, texts)
    return Embedder(
        static_encoder(student.tokenizer, torch.cat([table, columns], dim=1)),
        widened(student.decoding_head, columns.shape[1]),
        _side_by_side(student.correction, table.shape[1], -pool(columns, texts).mean(dim=0)),
        student.mean_logits,
        student.top_k,
    )


def principal_columns(rows: Tensor, number: int) -> Tensor:
    """Return rows V×k in their strongest principal directions, at most ``number`` of them, with rows of mean length 1."""
    centred = rows - rows.mean(dim=0)
    _, directions = torch.linalg.eigh(centred.T @ centred)  # ascending
    columns = centred @ directions[:, -number:]
    return columns / columns.norm(dim=1).mean().clamp(min=1e-9)


def train_columns(columns: Tensor, texts: Sequence[Ids], seed: int, *, progress: bool = False) -> Tensor:
    """Train columns V×m so that the two spans of a text find each other among those of a batch (InfoNCE, both ways)."""
    random = np.random.default_rng(seed)

    def loss(pooled: Tensor, batch: Tensor) -> Tensor:
        first, second = nn.functional.normalize(pooled, dim=1).view(len(batch) // 2, 2, -1).unbind(dim=1)
        similar, partners = first @ second.T / _TEMPERATURE, torch.arange(len(first))
        return (nn.functional.cross_entropy(similar, partners) + nn.functional.cross_entropy(similar.T, partners)) / 2

    return train_rows(
        columns,
        [[span for ids in texts for span in draw_pair(ids, random)] for _ in range(_PASSES)],
        loss,
        rate=_RATE * float(columns.std()),
        batch_size=2 * _PAIRS,
        seed=seed,
        together=2,
        description="Spans find each other",
        progress=progress,
    )


def draw_pair(ids: Ids, random: np.random.Generator) -> tuple[Ids, Ids]:
    """Draw two spans of a text that do not overlap, of at most 64 tokens."""
    cut = int(random.integers(len(ids) // 4, 3 * len(ids) // 4, endpoint=True))
    return _span(ids[:cut], random), _span(ids[cut:], random)


def _span(ids: Ids, random: np.random.Generator) -> Ids:
    length = min(len(ids), int(random.integers(*_SPAN_TOKENS, endpoint=True)))
    start = int(random.integers(0, len(ids) - length, endpoint=True))
    return ids[start : start + length]


def _spread(rows: Tensor, texts: Sequence[Ids]) -> Tensor:
    """Return the mean length of the vectors of texts about their mean."""
    pooled = pool(rows, texts)
    return (pooled - pooled.mean(dim=0)).norm(dim=1).mean().clamp(min=1e-9)


def _side_by_side(correction: Dense | None, dimension: int, offset: Tensor) -> Dense:
    """Return the map that corrects the first ``dimension`` columns as before, and shifts the others by ``offset``."""
    matrix, before = torch.eye(dimension), torch.zeros(dimension)
    if correction is not None:
        matrix = correction.linear.weight.detach()
        before = torch.zeros(len(matrix)) if correction.linear.bias is None else correction.linear.bias.detach()
    both = torch.block_diag(matrix, torch.eye(len(offset)))
    return Dense(
        both.shape[1], len(both), activation_function=nn.Identity(), init_weight=both, init_bias=torch.cat([before, offset])
    )  # fmt: skip
