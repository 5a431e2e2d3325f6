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
    passes: Sequence[Sequence[NDArray[np.int32]]],
    loss: Callable[[Tensor, Tensor], Tensor],
    *,
    rate: float,
    batch_size: int,
    seed: int,
    together: int = 1,
    beside: Sequence[torch.optim.Optimizer] = (),
    description: str,
    progress: bool,
) -> Tensor:
    """Return the trained table, V×d. Rows of tokens that no text has stay as they are.

    Args:
        table: The start, V×d.
        passes: For each pass the token ids of N texts; none is empty.
        loss: Maps the vectors of a batch, B×d, and the numbers of its texts, B, to a scalar.
        rate: Largest change of a number in one step, at first; it falls to 0.
        batch_size: Texts in a step; a multiple of ``together``.
        seed: Seed of their order.
        together: Number of successive texts that stay together in this order; it divides N.
        beside: Optimisers of what the loss learns beside the table; their rates fall, too.
        description: What the progress bar says.
        progress: Show it on a terminal.
    """
    order = torch.Generator().manual_seed(seed)
    rows = nn.Parameter(table.clone())
    optimizers = [torch.optim.SparseAdam([rows], rate), *beside]
    places = torch.arange(len(passes[0]) if passes else 0).view(-1, together)
    steps = max(1, len(passes) * -(-places.numel() // batch_size))
    falling = [torch.optim.lr_scheduler.LambdaLR(own, lambda step: 1 - step / steps) for own in optimizers]
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task(description, total=steps, unit="steps", note="")
        for texts in passes:
            for batch in places[torch.randperm(len(places), generator=order)].flatten().split(batch_size):
                found = loss(pool(rows, [texts[place] for place in batch], sparse=True), batch)
                for optimizer in optimizers:
                    optimizer.zero_grad()
                found.backward()
                for optimizer, schedule in zip(optimizers, falling, strict=True):
                    optimizer.step()
                    schedule.step()
                bar.advance(task)
    return rows.detach()
