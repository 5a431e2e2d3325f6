"""Explains hits: the tokens and words that query and document share, and the part of each in the score."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import NamedTuple

import regex
from scipy.sparse import csr_array

from text2token.search.bm25 import UNSPACED
from text2token.search.engines.base import Matrix, ScoredId
from text2token.search.filters import Metadata
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.settings.search import FieldName

_SNIPPET = 200  # characters
_BEFORE = 40  # characters of a snippet before the word that it shows, at most
_WORD_START = r"(?<!\w)"
_UNSPACED = regex.compile(rf"[{UNSPACED}]")


class Match(NamedTuple):
    """A token or word that query and document share.

    Attributes:
        token: The token or word.
        field: The field in which both have it.
        amount: What it contributed to the score.
    """

    token: str
    field: FieldName
    amount: float


class SearchHit(NamedTuple):
    """A document that was found. The amounts of its matches and ``dense`` add up to its score.

    Attributes:
        id: Id of the document.
        score: Score of the document.
        title: Title of the document; may be empty.
        snippet: Part of its text around the strongest match.
        dense: What the dense field contributed to the score.
        matches: Shared tokens, those of the sparse field first; within a field by falling amount.
        metadata: Metadata of the document.
    """

    id: str
    score: float
    title: str
    snippet: str
    dense: float
    matches: list[Match]
    metadata: Metadata = MappingProxyType({})


def explain(
    hits: Sequence[ScoredId], store: DocumentStore, vectorizer: Vectorizer, query: Mapping[FieldName, Matrix]
) -> list[SearchHit]:
    """Add titles, snippets and matches to hits. A dense score has no readable parts.

    Args:
        hits: Ids and scores.
        store: Database of the index.
        vectorizer: Makes the vectors of the index.
        query: Vectors of the query, one row in each field.
    """
    documents = store.found([hit.id for hit in hits])
    hits = [hit for hit in hits if hit.id in documents]  # another process may have deleted one meanwhile
    if not hits:  # an index without documents has no statistics either
        return []
    columns = {field: csr_array(rows).indices for field, rows in query.items() if field != "dense"}
    if "bm25" in query:
        contents = [documents[hit.id].content for hit in hits]
        words, names = vectorizer.word_weights(contents, columns["bm25"].tolist())
    found = []
    for place, hit in enumerate(hits):
        document = documents[hit.id]
        matches: list[Match] = []
        if "sparse" in query:
            own = store.vector(hit.id, columns["sparse"])
            matches += _matches(hit, "sparse", query, own, vectorizer.column_names)
        if "bm25" in query:
            matches += _matches(hit, "bm25", query, words[place], names)
        dense = hit.score if query.keys() == {"dense"} else hit.shares.get("dense", 0.0)
        shown = snippet(document.text, matches)
        found.append(SearchHit(hit.id, hit.score, document.title, shown, dense, matches, document.metadata))
    return found


def _matches(
    hit: ScoredId,
    field: FieldName,
    query: Mapping[FieldName, Matrix],
    document: Mapping[int, float],
    names: Mapping[int, str] | Sequence[str],
) -> list[Match]:
    """The products that add up to the score of a field, largest first. In a fused score they add up to the field's share."""
    row = csr_array(query[field])
    pairs = zip(row.indices.tolist(), row.data.tolist(), strict=True)
    products = {column: weight * document[column] for column, weight in pairs if column in document}
    scale = hit.shares.get(field, 0.0) / (sum(products.values()) or 1.0) if hit.shares else 1.0
    shared = [Match(names[column], field, scale * product) for column, product in products.items() if scale]
    return sorted(shared, key=lambda match: -match.amount)


def snippet(text: str, matches: Sequence[Match]) -> str:
    """The part of a text around the strongest match that occurs in it; else the beginning of the text.

    A match must begin a word, except in scripts without spaces between words.
    """
    flat = " ".join(text.split())
    for match in sorted(matches, key=lambda match: -match.amount):
        token = match.token.strip()
        unspaced = bool(_UNSPACED.match(token))
        if (len(token) > 1 or unspaced) and (place := _occurrence(token, unspaced).search(flat)):
            return _around(flat, place.start())
    return _around(flat, 0)


@lru_cache(maxsize=1_000)  # the hits of a query mostly share their tokens, and compiling takes longer than searching
def _occurrence(token: str, unspaced: bool) -> regex.Pattern[str]:
    return regex.compile(f"{'' if unspaced else _WORD_START}{regex.escape(token)}", regex.IGNORECASE)


def _around(text: str, place: int) -> str:
    """About 200 characters of a text, cut between words where there is a space nearby."""
    start = max(0, place - _BEFORE)
    if start:
        start = text.find(" ", start, place) + 1 or start
    end = start + _SNIPPET
    if end < len(text):
        space = text.rfind(" ", end - _BEFORE, end)
        end = space if space > 0 else end
    return f"{'… ' if start else ''}{text[start:end]}{' …' if end < len(text) else ''}"
