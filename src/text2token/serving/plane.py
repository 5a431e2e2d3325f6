"""Place the documents of an index on a plane, for the map of the explorer."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
from sklearn.decomposition import PCA
from sklearn.preprocessing import normalize

from text2token.search import Index

_MOST = 2_000  # documents on the plane; a browser still draws so many without delay
_SNIPPET = 240  # characters of a document's text


class Plane:
    """The map of one index. It is computed at the first request, and again after documents have changed.

    Args:
        index: Index whose documents are shown.
    """

    def __init__(self, index: Index) -> None:
        self._index, self._lock = index, threading.Lock()
        self._made: dict[str, Any] | None = None
        self._changes = self.changes = 0

    def get(self) -> dict[str, Any]:
        """Return the points with their documents and strongest tokens, and the number of documents in the index."""
        with self._lock:
            if self._made is None or (self._changes, self._made["documents"]) != (self.changes, len(self._index)):
                self._changes, self._made = self.changes, project(self._index)
            return self._made


def project(index: Index) -> dict[str, Any]:
    """Project the documents' token vectors, scaled to length 1, onto their first two principal components."""
    documents, rows, names = index.sample(_MOST)
    if not documents:
        return {"points": [], "documents": len(index)}
    unit = normalize(rows)
    places = np.zeros((len(documents), 2))
    differ = bool((unit != unit[np.zeros(len(documents), int)]).nnz)  # equal documents have no principal components
    if len(documents) > 2 and unit.shape[1] > 2 and differ:
        places = PCA(2, svd_solver="arpack", random_state=0).fit_transform(unit)
    columns, weights = np.split(rows.indices, rows.indptr[1:-1]), np.split(rows.data, rows.indptr[1:-1])
    strongest = [names[c[w.argmax()]] if len(w) else "" for c, w in zip(columns, weights, strict=True)]
    points = [
        {
            "id": document.id,
            "title": document.title,
            "text": " ".join(document.text.split())[:_SNIPPET],
            "token": token,
            "x": float(x),
            "y": float(y),
        }
        for document, token, (x, y) in zip(documents, strongest, places, strict=True)
    ]
    return {"points": points, "documents": len(index)}
