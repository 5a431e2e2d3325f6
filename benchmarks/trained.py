"""Train a model with one text2token command, and count its texts, tokens and minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from sentence_transformers import SentenceTransformer

from contenders import OURS
from runner import as_options, text2token
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.training.start import open_backbone

RECIPES = Path(__file__).parent.parent / "recipes"
READS = {OURS: 1.0, "simcse": 2.0, "llm2vec": 1.5}
"""Method → how often its body reads a text, on average. SimCSE reads two views, and so does the second half of LLM2Vec."""


def recipe_file(method: str) -> Path:
    """Return the recipe of a method."""
    return RECIPES / f"{'default' if method == OURS else method}.yaml"


def train(output: Path, corpus: str, method: str, **settings: str | int) -> Path:
    """Train a model with the recipe of a method and some other settings, unless its folder is there."""
    if not output.is_dir():
        verb = ["fit"] if method == OURS else ["baseline", method]
        changed = as_options(settings)
        text2token(*verb, corpus, "--recipe", str(recipe_file(method)), *changed, "--output", str(output))
    return output


def cost(model: Path, factor: float = 1.0) -> dict[str, float]:
    """Return the texts, tokens and minutes of a training. The tokens are ``factor`` times those that the trainer counted."""
    run = RunRecord.read(model / "run.json")
    timings = {step: float(seconds or 0) for step, seconds in run.timings.items()}
    last_rows = {row["stage"]: row for row in run.log if "num_input_tokens_seen" in row}
    return {
        "texts": run.recipe.max_texts,
        "tokens": factor * sum(float(row["num_input_tokens_seen"] or 0) for row in last_rows.values()),
        "minutes": sum(seconds for step, seconds in timings.items() if step.startswith("train")) / 60,
        "minutes of the whole run": sum(timings.values()) / 60,
    }


def count_tokens(encoder: SentenceTransformer, texts: Sequence[str], max_length: int = Recipe().train_length) -> int:
    """Count the tokens that a body reads of texts in training, the template included."""
    ids = encoder.tokenizer(list(texts), truncation=True, max_length=max_length)["input_ids"]
    return sum(map(len, ids))


def tokens_of_a_text(method: str, texts: Sequence[str]) -> float:
    """Return the mean number of tokens that a method reads of one of these texts, in all its passes together."""
    recipe = Recipe.load(recipe_file(method))
    return READS[method] * count_tokens(open_backbone(recipe).encoder, texts, recipe.train_length) / len(texts)


def texts_for(tokens: float, of_a_text: float) -> int:
    """Return how many texts a method must draw to read about so many tokens."""
    return round(tokens / of_a_text)
