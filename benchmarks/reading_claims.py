"""Measure two claims of arXiv 2406.17378: what an instruction changes in an embedding, and similarity against relatedness."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import normalize

from text2token.model.embedder import Embedder
from text2token.model.vocabulary import read_vocabulary

TWEETS = 100
DEPTH = 10  # aligned tokens that count, as in Hit@10
INSTRUCTIONS = {
    "topic": "Instruct: Name the topic of the text.\nText: ",
    "sentiment": "Instruct: Tell the sentiment of the text.\nText: ",
}
# The lists leave out the words of the instructions and sentences: an embedder that repeats those does not follow them.
SENTIMENT = """
    happy sad good bad love hate joy anger angry fear great terrible awful wonderful positive negative glad sorry upset excited
    bored hope worry worried delight disgust pleasure pain grateful lonely proud ashamed calm nervous emotion emotional feeling
    feelings mood sadness happiness disappointment disappointed enthusiasm frustration
"""
NEGATION = "no never dislike hate don't doesn't without isn't nothing neither refuse lack avoid"
THINGS = ("apple", "coffee", "football", "opera", "winter", "cats", "mathematics", "running", "jazz", "sushi")


def measure(data: Path, models: dict[str, tuple[str, Any]]) -> tuple[dict[str, float], dict[str, Any]]:
    """Measure both claims for every model.

    Args:
        data: Folder with ``mteb/tweet_sentiment_extraction``; the first tweets of its train split are read.
        models: Name for readers → model, as :meth:`Embedder.open` takes it, and recipe (None for a folder).

    Returns:
        Figures × 100: ``sentiment words, INSTRUCTION (MODEL)``, share of the tweets with a sentiment word among the first aligned
        tokens; ``negation words (MODEL)``, the same for negated sentences; cosines ``like X, do not like X (MODEL)`` and
        ``like X, like Y (MODEL)`` of centred embeddings.
    """
    lines = (data / "mteb" / "tweet_sentiment_extraction" / "train.jsonl").read_text().splitlines()[:TWEETS]
    tweets = [json.loads(line)["text"] for line in lines]
    likes, dislikes = ([f"I {verb} {thing}." for thing in THINGS] for verb in ("like", "do not like"))
    figures: dict[str, float] = {}
    examples: dict[str, Any] = {}
    for name, (place, recipe) in models.items():
        embedder = Embedder.open(
            place, head="original", corrected=False, **(recipe.embedder_settings() if recipe else {})
        )
        embedder.bf16 = True
        mean = embedder.embed(tweets).mean(dim=0)
        for instruction, prompt in INSTRUCTIONS.items():
            read = _aligned(embedder, embedder.embed([prompt + tweet for tweet in tweets]))
            figures[f"sentiment words, {instruction} ({name})"] = 100 * _share_with(read, SENTIMENT)
            examples.setdefault(name, {})[instruction] = [" ".join(row) for row in read[:3]]
        like, dislike = embedder.embed(likes), embedder.embed(dislikes)
        read = _aligned(embedder, dislike, mean)
        figures[f"negation words ({name})"] = 100 * _share_with(read, NEGATION)
        examples[name]["do not like"] = {text: " ".join(row) for text, row in zip(dislikes[:3], read[:3], strict=True)}
        cosines = normalize(like - mean) @ normalize(torch.cat([like, dislike]) - mean).T
        count = len(THINGS)
        others = [float(cosines[i, j]) for i, j in product(range(count), repeat=2) if i != j]
        figures[f"like X, do not like X ({name})"] = 100 * float(cosines.diagonal(count).mean())
        figures[f"like X, like Y ({name})"] = 100 * float(np.mean(others))
    return figures, {"instructions": INSTRUCTIONS, "tweets": TWEETS, "things": THINGS, "examples": examples}


def _aligned(embedder: Embedder, embeddings: Tensor, mean: Tensor | None = None) -> list[list[str]]:
    """Return words of the first meaningful aligned tokens. The logits of ``mean`` (None: of the embeddings) are subtracted."""
    head, words = embedder.decoding_head, read_vocabulary(embedder.tokenizer, embedder.vocabulary_size, "none")
    logits = head.uncapped(embeddings) - head.uncapped((embeddings.mean(dim=0) if mean is None else mean)[None])
    logits[:, torch.from_numpy(~words.meaningful)] = -torch.inf
    ids: NDArray[np.int64] = logits.topk(DEPTH, dim=1).indices.numpy()
    return [[words.surfaces[i].strip().casefold() for i in row] for row in ids]


def _share_with(read: list[list[str]], wanted: str) -> float:
    return float(np.mean([not set(wanted.split()).isdisjoint(row) for row in read]))
