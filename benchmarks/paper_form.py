"""Sparse vectors in the form of arXiv 2406.17378, section on sparse retrieval, beside which ours are measured."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_array

from collection import Collection, Ranking, best
from text2token.model.embedder import Embedder
from text2token.model.vocabulary import count_tokens
from text2token.search.encoder import Role, TextEncoder, untruncated
from text2token.search.vectors import TokenSpace

MOST_TOKENS = 512  # aligned tokens that are kept; a sweep tries no larger K or M


class PaperForm:
    """The paper's vectors of one collection. Weights are logits above the corpus mean.

    A document is its top-K aligned tokens with their weights. A query is the set of its literal and its top-M aligned tokens.
    Without the corpus mean (ours) every text would align with the same common tokens first.

    Args:
        embedder: Embedder that knows the mean token logits of the documents.
        collection: Collection to search in.
    """

    def __init__(self, embedder: Embedder, collection: Collection) -> None:
        self._collection, self._embedder = collection, embedder
        tokenizer = untruncated(embedder.tokenizer).backend_tokenizer
        self._space = TokenSpace(tokenizer, embedder.vocabulary_size)
        queries = list(collection.queries.values())
        self._documents = self._logits([document.content for document in collection.documents], "document")
        self._queries = self._logits(queries, "query")
        words = self._space.vocabulary
        self._literal = csr_array(count_tokens(tokenizer, [f" {text}" for text in queries], self._space.size, None))
        blank = np.array([not surface.strip() for surface in words.surfaces])
        self._literal.data[(words.special | blank)[self._literal.indices]] = 0
        self._literal.eliminate_zeros()

    def _logits(self, texts: list[str], role: Role) -> csr_array:
        """Return the largest positive logits over the parts of each text, N×V."""
        embeddings, owners = TextEncoder(self._embedder, role).embed(texts)
        pooled = torch.zeros(len(texts), self._space.size)
        allowed = torch.from_numpy(~self._space.vocabulary.special)
        for rows, numbers in zip(embeddings.split(128), torch.from_numpy(owners).split(128), strict=True):
            logits = self._embedder.logits(rows).relu() * allowed
            pooled.scatter_reduce_(0, numbers[:, None].expand_as(logits), logits, "amax")
        return largest(csr_array(pooled.numpy()), MOST_TOKENS)

    def vectors(self, document_k: int = 128, query_m: int = 32) -> tuple[csr_array, csr_array]:
        """Make the vectors of documents and queries."""
        queries = csr_array(self._literal + largest(self._queries, query_m))
        queries.data = np.ones_like(queries.data, np.float32)
        return largest(self._documents, document_k), queries

    def rank(self, document_k: int = 128, query_m: int = 32) -> Ranking:
        """Rank documents for every query by inner products."""
        documents, queries = self.vectors(document_k, query_m)
        return best(self._collection, (queries @ documents.T).toarray())


def largest(rows: csr_array, k: int) -> csr_array:
    """Keep the ``k`` largest values of each row."""
    ranks = np.empty(rows.nnz, np.int64)
    for start, end in zip(rows.indptr, rows.indptr[1:], strict=False):
        ranks[start:end][np.argsort(-rows.data[start:end], kind="stable")] = np.arange(end - start)
    kept = rows.copy()
    kept.data = np.where(ranks < k, rows.data, 0)
    kept.eliminate_zeros()
    return kept
