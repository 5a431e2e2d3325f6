"""Why a document was found: the tokens and words that it shares with the query, and what each gave."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy.sparse import csr_array

from text2token.search.engine import Hit, Rows
from text2token.search.store import DocumentStore
from text2token.search.vectorizer import Vectorizer
from text2token.settings.search import Side

_SNIPPET = 200  # characters
_BEFORE = 40  # of them before the word that is shown


class Match(NamedTuple):
    """A token or word that query and document share, and what it gave to the score."""

    token: str
    side: Side
    amount: float


class Found(NamedTuple):
    """A hit, ready to be shown; of the matches each side's by falling amount, the sparse side's first.

    Matches and ``dense`` add up to the score. Only reciprocal ranks that Milvus has fused do not say what each side gave; matches
    are then parts of the scores of their sides.
    """

    id: str
    score: float
    title: str
    snippet: str
    dense: float
    matches: list[Match]


def explain(
    hits: Sequence[Hit], store: DocumentStore, vectorizer: Vectorizer, query: Mapping[Side, Rows]
) -> list[Found]:
    """Titles, snippets and reasons of hits.

    A dense score is a cosine and has no parts that can be read.

    Args:
        hits: Of the query.
        store: Of the index.
        vectorizer: Of the index.
        query: Its vectors, one row per side.
    """
    documents = store.documents([hit.id for hit in hits])
    found = []
    for hit in hits:
        if (document := documents.get(hit.id)) is None:  # deleted since by another process
            continue
        matches: list[Match] = []
        if "sparse" in query:
            matches += _matches(hit, "sparse", query, store.vector(hit.id), vectorizer.column_names)
        if "bm25" in query:
            matches += _matches(hit, "bm25", query, *vectorizer.word_weights(document.content))
        dense = hit.score if query.keys() == {"dense"} else hit.shares.get("dense", 0.0)
        found.append(Found(hit.id, hit.score, document.title, snippet(document.text, matches), dense, matches))
    return found


def _matches(
    hit: Hit,
    side: Side,
    query: Mapping[Side, Rows],
    document: Mapping[int, float],
    names: Mapping[int, str] | Sequence[str],
) -> list[Match]:
    """The products that a side's score is the sum of, by falling amount; of a fused score, as parts of the side's share."""
    row = csr_array(query[side])
    pairs = zip(row.indices.tolist(), row.data.tolist(), strict=True)
    products = {column: weight * document[column] for column, weight in pairs if column in document}
    scale = hit.shares.get(side, 0.0) / (sum(products.values()) or 1.0) if hit.shares else 1.0
    shared = [Match(names[column], side, scale * product) for column, product in products.items() if scale]
    return sorted(shared, key=lambda match: -match.amount)


def snippet(text: str, matches: Sequence[Match]) -> str:
    """The part of a text where the most telling shared token begins a word; else its beginning."""
    flat = " ".join(text.split())
    for match in sorted(matches, key=lambda match: -match.amount):
        token = match.token.strip()
        place = re.search(rf"\b{re.escape(token)}", flat, re.IGNORECASE) if len(token) > 1 else None
        if place:
            start = max(0, place.start() - _BEFORE)
            start = flat.rfind(" ", 0, start) + 1
            return ("… " if start else "") + _shortened(flat[start:])
    return _shortened(flat)


def _shortened(text: str) -> str:
    return text if len(text) <= _SNIPPET else text[:_SNIPPET].rsplit(" ", 1)[0] + " …"
