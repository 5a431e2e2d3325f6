"""Searches an index: vectors of the queries, the ranking of each, and the reasons of the hits."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from more_itertools import chunked

from text2token.data.text import check_texts, clean
from text2token.search.engines.base import Engine, Matrix, ScoredId
from text2token.search.filters import Filter, read_filters
from text2token.search.fusion import Fusion, fields_to_search, search
from text2token.search.reasons import SearchHit, explain
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.settings.search import FieldName, Mode
from text2token.utils.errors import check_count
from text2token.utils.progress import track

_QUERIES = 64  # queries encoded at once


class SearchResults(NamedTuple):
    """Hits of a search, best first.

    Attributes:
        hits: The hits.
        note: A sentence if a part of the query could not be used or a part of the documents not be searched; else None.
    """

    hits: list[SearchHit]
    note: str | None


@dataclass(frozen=True)
class IndexSearcher:
    """Searches the documents of an index.

    Attributes:
        store: Database of the index.
        vectorizer: Makes the vectors of the index.
        engine: Holds the vectors.
        fields: Fields of the index.
        partial: Search without the shards of a database that do not answer.
    """

    store: DocumentStore
    vectorizer: Vectorizer
    engine: Engine
    fields: Sequence[FieldName]
    partial: bool

    def search(
        self,
        query: str,
        k: int,
        mode: Mode,
        *,
        inference_free: bool,
        fusion: Fusion,
        filters: Sequence[Filter | str] | str,
    ) -> SearchResults:
        """See :meth:`text2token.search.index.Index.search`."""
        check_texts([query])
        check_count("k", k)
        query = clean(query)
        if not query:
            return SearchResults([], "The query has no text.")
        conditions = self._conditions(filters)
        vectors = self.vectors([query], mode, inference_free=inference_free, fusion=fusion)
        empty = [field for field, rows in vectors.items() if abs(rows).sum() == 0]
        lost: list[str] = []
        hits = search(self.engine, vectors, k, fusion, conditions, lost if self.partial else None)
        notes = [f"No word of the query is known in: {', '.join(empty)}."] if empty else []
        notes += [_partial_note(lost)] if lost else []
        return SearchResults(explain(hits, self.store, self.vectorizer, vectors), " ".join(notes) or None)

    def rank(
        self,
        queries: Sequence[str],
        k: int,
        mode: Mode,
        *,
        inference_free: bool,
        fusion: Fusion,
        filters: Sequence[Filter | str] | str,
        progress: bool,
    ) -> list[list[ScoredId]]:
        """See :meth:`text2token.search.index.Index.rank`."""
        check_texts(queries)
        check_count("k", k)
        conditions = self._conditions(filters)
        cleaned = {row: text for row, query in enumerate(queries) if (text := clean(query))}
        ranked: list[list[ScoredId]] = [[] for _ in queries]
        lost: list[str] = []
        batches = list(chunked(cleaned.items(), _QUERIES))
        for batch in track(batches, "Searching", unit="queries", each=_QUERIES, enabled=progress):
            vectors = self.vectors([text for _, text in batch], mode, inference_free=inference_free, fusion=fusion)
            for place, (row, _) in enumerate(batch):
                query = {field: rows if len(batch) == 1 else rows[[place]] for field, rows in vectors.items()}
                ranked[row] = search(self.engine, query, k, fusion, conditions, lost if self.partial else None)
        if lost:
            logging.getLogger(__name__).warning(_partial_note(lost))
        return ranked

    def vectors(
        self, queries: Sequence[str], mode: Mode, *, inference_free: bool, fusion: Fusion
    ) -> dict[FieldName, Matrix]:
        """See :meth:`text2token.search.index.Index.query_vectors`."""
        check_texts(queries)
        fields = fields_to_search(mode, self.fields, fusion, inference_free=inference_free)
        return self.vectorizer.queries([clean(query) for query in queries], fields, inference_free=inference_free)

    def _conditions(self, filters: Sequence[Filter | str] | str) -> list[Filter]:
        return read_filters(filters, self.store.metadata_columns())


def _partial_note(lost: Sequence[str]) -> str:
    return f"The answer is partial, because these shards did not answer: {', '.join(sorted(set(lost)))}."
