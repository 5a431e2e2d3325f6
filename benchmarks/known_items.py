"""Known-item search: a title or a sentence must find the text that it was taken from. It needs no judgements."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable

from collection import Collection
from text2token.search import Document

_BETWEEN_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-Z])")
_QUERY_WORDS = range(6, 41)
_FEWEST_WORDS = 30  # of a document


def known_item_search(name: str, documents: Iterable[Document], size: int, seed: int = 0) -> Collection:
    """Make a search from documents with titles.

    Every document loses its title and one random sentence. By turns the title or that sentence is the query that must find the
    rest.

    Args:
        name: Name for readers.
        documents: Any number. Of several with one title the last one counts.
        size: Largest number of documents, and of queries.
        seed: Seed of the documents and sentences.
    """
    rng = random.Random(seed)
    titled = list({document.title: document for document in documents if document.title}.values())
    rng.shuffle(titled)
    rests: list[Document] = []
    queries: dict[str, str] = {}
    for document in titled:
        if len(rests) < size and (parts := take_sentence(document.text, rng)):
            key = str(len(rests))
            sentence, rest = parts
            queries[key] = sentence if len(rests) % 2 else document.title
            rests.append(Document(key, "", rest))
    return Collection(name, rests, queries, {key: {key: 1} for key in queries})


def take_sentence(text: str, rng: random.Random) -> tuple[str, str] | None:
    """Take a random sentence out of a text. Return it and the rest, or None if either would be too short."""
    sentences = _BETWEEN_SENTENCES.split(text.strip())
    possible = [sentence for sentence in sentences if len(sentence.split()) in _QUERY_WORDS]
    if not possible:
        return None
    taken = rng.choice(possible)
    rest = " ".join(sentence for sentence in sentences if sentence != taken)
    return (taken, rest) if len(rest.split()) >= _FEWEST_WORDS and taken not in rest else None
