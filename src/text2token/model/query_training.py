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

from text2token.model.query_table import QueryTable
from text2token.model.row_training import train_rows
from text2token.model.tokens import tokenise

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
    if not kept:
        return replace(table, documents=len(texts))
    wanted = torch.from_numpy(vectors)[kept]
    dense = torch.from_numpy(table.rows.dense.astype(np.float32))
    trained = train_rows(
        dense,
        [[read[place] for place in kept]] * _EPOCHS,
        lambda pooled, batch: (1 - torch.cosine_similarity(pooled, wanted[batch])).mean(),
        rate=_RATE * float(dense.std()),
        batch_size=_BATCH,
        seed=0,
        description="Student learns the documents",
        progress=progress,
    )
    rows = table.rows._replace(dense=trained.numpy().astype(np.float16))
    return replace(table, rows=rows, documents=len(texts))
