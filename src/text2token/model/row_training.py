"""Train the rows of a table, the mean of which is the vector of a text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from text2token.model.static import pool
from text2token.utils.progress import progress_bar


def train_rows(
    table: Tensor,
    texts: Sequence[NDArray[np.int32]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    rate: float,
    epochs: int,
    batch_size: int,
    seed: int,
    beside: Sequence[torch.optim.Optimizer] = (),
    description: str,
    progress: bool,
) -> Tensor:
    """Return the trained table, V×d. Rows of tokens that no text has stay as they are.

    Args:
        table: The start, V×d.
        texts: Token ids of each of N texts; none is empty.
        loss: Maps the vectors of a batch, B×d, and the numbers of its texts, B, to a scalar.
        rate: Largest change of a number in one step, at first; it falls to 0.
        epochs: Passes over all texts.
        batch_size: Texts in a step.
        seed: Seed of their order.
        beside: Optimisers of what the loss learns beside the table; their rates fall, too.
        description: What the progress bar says.
        progress: Show it on a terminal.
    """
    order = torch.Generator().manual_seed(seed)
    rows = nn.Parameter(table.clone())
    optimizers = [torch.optim.SparseAdam([rows], rate), *beside]
    steps = max(1, epochs * -(-len(texts) // batch_size))
    falling = [torch.optim.lr_scheduler.LambdaLR(own, lambda step: 1 - step / steps) for own in optimizers]
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task(description, total=steps, unit="steps", note="")
        for _ in range(epochs):
            for batch in torch.randperm(len(texts), generator=order).split(batch_size):
                found = loss(pool(rows, [texts[place] for place in batch], sparse=True), batch)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                found.backward()
                for optimizer, schedule in zip(optimizers, falling, strict=True):
                    optimizer.step()
                    schedule.step()
                bar.advance(task)
    return rows.detach()
