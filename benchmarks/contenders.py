"""The contenders of the quality benchmark: their names in results files, and how each makes its vectors."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from text2token.settings.recipe import Recipe

OURS = "text2token"
FIRST = "smollm2-135m"  # the backbone that every method trains
SECOND = "gemma3-270m"
SEEDS = {OURS: 3, "llm2vec": 3, "simcse": 1, "tsdae": 1}
MINILM_NAME = "all-MiniLM-L6-v2"
MINILM = {  # published, test splits
    "STSBenchmark": 82.03, "STS12": 72.37, "STS14": 75.60, "BIOSSES": 81.64, "Banking77Classification": 80.04,
    "TweetSentimentExtractionClassification": 54.04, "AmazonCounterfactualClassification": 63.60,
}  # fmt: skip
PACKAGED_MINILM = "all-minilm-l6-v2"
OVERALL = "mean over tasks"

CORRECTED = ", corrected"
"""Label of a baseline or an untrained model with the correction that ours has, the default of the recipe."""
CORRECTIONS = {"": "none", CORRECTED: Recipe().correction, ", centred": "centre", ", first removed": "first-component"}
LABELS = {FIRST: tuple(CORRECTIONS), SECOND: ("", CORRECTED)}
"""Backbone → the corrections of its untrained rows."""
WHOLE = ", whole tasks"
"""Label of a contender that runs complete tasks, also in a benchmark that cuts them."""
MINILM_WHOLE, OURS_WHOLE = f"{MINILM_NAME}{WHOLE}", f"{OURS}{WHOLE}, seed 0"
TEACHER = f"{OURS}, teacher {PACKAGED_MINILM}, seed 0"
"""Trained with a teacher that has seen labels, so it never counts as ours."""

PROMPTEOL = {"PromptEOL": "eol", "PromptEOL as published": "eol-published"}
QUESTIONS = PROMPTEOL | {"keywords prompt": "keywords", "topic prompt": "topic"}
"""Untrained setting → its template: all templates with a question."""
SETTINGS = {name: ("--template", template) for name, template in QUESTIONS.items()} | {
    "plain mean": ("--template", "none", "--pooling", "mean"),
    "Echo": ("--template", "echo", "--pooling", "mean"),
    "weighted mean": ("--template", "none", "--pooling", "weighted-mean"),
    "last token": ("--template", "none"),
    "static rows of the head": ("--template", "static"),
}
ONE_PER_TYPE = ("STSBenchmark", "TweetSentimentExtractionClassification", "SciFact", "SearchSnippets", "PIT2015")
COMPARED = {  # contender → name for readers; the first is compared with the others
    f"{OURS}, seed 0": "ours",
    "llm2vec, seed 0": "LLM2Vec's recipe",
    f"llm2vec{CORRECTED}, seed 0": f"LLM2Vec's recipe{CORRECTED}",
    f"keywords prompt{CORRECTED}": "our prompt, untrained",
    f"PromptEOL{CORRECTED}": f"PromptEOL, untrained{CORRECTED}",
    MINILM_NAME: MINILM_NAME,
}


class Contender(NamedTuple):
    """One way to make vectors. ``vectors`` names the file that all corrections of an untrained setting share."""

    model: str  # what 'text2token evaluate' scores; a method trains this backbone first
    options: tuple[str, ...] = ()
    method: str | None = None
    correction: str = ""  # key of CORRECTIONS; the empty one leaves a trained model as it is
    seed: int = 0
    teacher: str | None = None
    tasks: tuple[str, ...] = ()  # empty: all
    whole: bool = False
    vectors: str | None = None


def contenders() -> dict[str, Contender]:
    """Name every contender, in the order of the work. Whole tasks take longest and come last."""
    trained = {
        name: Contender(FIRST, method=method, correction=label, seed=seed)
        for method in SEEDS
        for label in (("",) if method == OURS else ("", CORRECTED))
        for seed, name in enumerate(seeds(method, label))
    }
    return {
        "BM25": Contender("bm25"),
        MINILM_NAME: Contender(PACKAGED_MINILM),
        **trained,
        **untrained(FIRST, SETTINGS),
        **untrained(SECOND, QUESTIONS, ONE_PER_TYPE),
        f"{SECOND}: {OURS}": Contender(SECOND, method=OURS, tasks=ONE_PER_TYPE),
        f"{SECOND}: llm2vec": Contender(SECOND, method="llm2vec", tasks=ONE_PER_TYPE),
        TEACHER: Contender(FIRST, method=OURS, teacher=PACKAGED_MINILM),
        MINILM_WHOLE: Contender(PACKAGED_MINILM, whole=True),
        OURS_WHOLE: Contender(FIRST, method=OURS, whole=True),
    }


def seeds(method: str, label: str = "") -> list[str]:
    """Return the names of a method's contenders, one per seed."""
    return [f"{method}{label}, seed {seed}" for seed in range(SEEDS[method])]


def untrained(backbone: str, settings: Iterable[str], tasks: tuple[str, ...] = ()) -> dict[str, Contender]:
    """Name the contenders that are not trained: each setting of a backbone under each correction of :data:`LABELS`."""
    prefix = "" if backbone == FIRST else f"{backbone}: "
    return {
        prefix + setting + label: Contender(
            backbone, (*SETTINGS[setting], "--correction", CORRECTIONS[label]), tasks=tasks, vectors=prefix + setting
        )
        for setting in settings
        for label in LABELS[backbone]
    }  # fmt: skip
