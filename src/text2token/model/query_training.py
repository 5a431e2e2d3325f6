"""Continue to train a query table on the documents of an index, whose vectors are known (ours).

A student has read a sample of texts, and an index holds words that were rare or missing there. Its documents have vectors of
the model already, so they can be learnt without encoding anything again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from text2token.model.query_table import QueryTable
from text2token.model.static import pool
from text2token.model.vocabulary import tokenise
from text2token.utils.progress import progress_bar

_TOKENS = 1_024  # read of a document; the mean of more hardly changes
# Chosen on known items: the titles of Wikipedia paragraphs as queries, with the model's vectors of the paragraphs.
_EPOCHS, _BATCH = 15, 32
_RATE = 0.05  # largest change of a number in one step, in standard deviations of the table, at first; it falls to 0


def train_on_documents(
    table: QueryTable, texts: Sequence[str], vectors: NDArray[np.float32], *, progress: bool = False
) -> QueryTable:
    """Return a table whose dense vectors of some documents are close to those of the model.

    The loss is one minus the cosine. Rows of tokens that no document has stay as they are, and so do all aligned tokens.

    Args:
        table: The table to start from.
        texts: N documents.
        vectors: Their dense vectors, N×k.
        progress: Show a progress bar on a terminal.
    """
    read = tokenise(table.tokenizer, texts, _TOKENS)
    kept = [place for place, ids in enumerate(read) if len(ids)]
    wanted = torch.from_numpy(vectors)
    rows = nn.Parameter(torch.from_numpy(table.rows.dense.astype(np.float32)))
    optimizer = torch.optim.SparseAdam([rows], _RATE * float(rows.detach().std()))
    steps = max(1, _EPOCHS * -(-len(kept) // _BATCH))
    falling = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / steps)
    order = torch.Generator().manual_seed(0)
    with progress_bar(enabled=progress) as bar:
        task = bar.add_task("Student learns the documents", total=steps, unit="steps", note="")
        for _ in range(_EPOCHS):
            for batch in torch.tensor(kept)[torch.randperm(len(kept), generator=order)].split(_BATCH):
                pooled = pool(rows, [read[place] for place in batch], sparse=True)
                optimizer.zero_grad()
                (1 - torch.cosine_similarity(pooled, wanted[batch])).mean().backward()
                optimizer.step()
                falling.step()
                bar.advance(task)
    dense = rows.detach().numpy().astype(np.float16)
    return replace(table, rows=table.rows._replace(dense=dense), documents=len(texts))
