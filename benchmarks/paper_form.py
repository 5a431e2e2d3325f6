"""Sparse retrieval in the form of arXiv 2406.17378, beside which ours is measured."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from collection import Collection, Ranking, best
from text2token.model.embedder import Embedder
from text2token.model.tokens import count_tokens, untruncated
from text2token.search.encoder import Role, TextEncoder
from text2token.search.vectors import TokenSpace

K, M = 128, 32  # aligned tokens of a document and of a query


def paper_form(embedder: Embedder, collection: Collection) -> Ranking:
    """Rank documents by inner products of the paper's vectors, whose weights are logits above the corpus mean.

    A document is its top-K aligned tokens with their weights. A query is the set of its literal and its top-M aligned tokens.
    Without the corpus mean (ours) every text would align with the same common tokens first.

    Args:
        embedder: Embedder that knows the mean token logits of the documents.
        collection: Collection to search in.
    """
    tokenizer = untruncated(embedder.tokenizer)
    space = TokenSpace(tokenizer, embedder.vocabulary_size)
    words = space.vocabulary

    def aligned(texts: list[str], role: Role, k: int) -> csr_array:
        """Keep the ``k`` largest positive logits over the parts of each text, N×V."""
        embeddings, owners = TextEncoder(embedder, role).embed(texts)
        pooled = torch.zeros(len(texts), space.size)
        for rows, numbers in zip(embeddings.split(128), torch.from_numpy(owners).split(128), strict=True):
            logits = embedder.logits(rows).relu() * torch.from_numpy(~words.special)
            pooled.scatter_reduce_(0, numbers[:, None].expand_as(logits), logits, "amax")
        return csr_array(pooled.where(pooled >= pooled.topk(k).values[:, -1:], 0).numpy())

    queries = list(collection.queries.values())
    blank = np.array([not surface.strip() for surface in words.surfaces])
    counts = csr_array(count_tokens(tokenizer, [f" {text}" for text in queries], space.size, None))
    literal = csr_array(counts.multiply(~(words.special | blank)))
    asked = csr_array(literal + aligned(queries, "query", M)).astype(bool).astype(np.float32)
    documents = aligned([document.content for document in collection.documents], "document", K)
    return best(collection, (asked @ documents.T).toarray())
