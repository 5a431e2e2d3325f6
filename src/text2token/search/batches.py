"""Documents on their way into an index, with what is known of them already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from text2token.search.documents import Document

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Embedded:
    """Embeddings of the parts of N documents.

    Attributes:
        rows: Embeddings of all parts, P×d.
        owners: Number of the document of each part, P.
    """

    rows: Tensor
    owners: NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """N documents.

    Attributes:
        documents: The documents.
        tokens: How often each vocabulary entry occurs in each document, N×V, see
            :func:`text2token.search.vectors.raw_counts`; None: not counted yet.
        embedded: Their embeddings; None: not encoded yet.
    """

    documents: Sequence[Document]
    tokens: csr_array | None = None
    embedded: Embedded | None = None

    @property
    def texts(self) -> list[str]:
        """Title and text of each document."""
        return [document.content for document in self.documents]

    def select(self, places: Sequence[int]) -> Batch:
        """Return the batch of the documents at some places."""
        documents = [self.documents[place] for place in places]
        tokens = None if self.tokens is None else self.tokens[list(places)]
        return Batch(documents, tokens, self._select_parts(places))

    def _select_parts(self, places: Sequence[int]) -> Embedded | None:
        if self.embedded is None:
            return None
        new_place = np.full(len(self.documents), -1)
        new_place[list(places)] = np.arange(len(places))
        owners = new_place[self.embedded.owners]
        return Embedded(self.embedded.rows[owners >= 0], owners[owners >= 0])
