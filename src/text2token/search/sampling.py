"""A sample of the documents of an index, with the tokens of each."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array

from text2token.search.documents import Document
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer


def sample_tokens(
    store: DocumentStore, vectorizer: Vectorizer, size: int
) -> tuple[list[Document], csr_array, list[str]]:
    """Do the work of :meth:`text2token.search.index.Index.sample`."""
    documents = store.sample(size, encoded=True)
    names: dict[int, str] = dict(enumerate(vectorizer.column_names))
    has_sparse_field, rows = bool(names), list[dict[int, float]]()
    for document in documents:
        if has_sparse_field:
            rows.append(store.vector(document.id))
        else:
            (row,), words = vectorizer.word_weights([document.content])
            rows.append(row)
            names |= words
    places = [(number, column) for number, row in enumerate(rows) for column in row]
    indices = np.array(places, np.int64).reshape(-1, 2).T
    weights = np.array([weight for row in rows for weight in row.values()], np.float32)
    width = max(names, default=0) + 1
    columns = [names.get(column, "") for column in range(width)]
    return documents, csr_array((weights, tuple(indices)), shape=(len(rows), width)), columns
