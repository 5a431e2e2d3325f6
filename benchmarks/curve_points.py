"""The points of benchmarks/curve.py: one method trained on so many tokens, with its scores and its time."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from torch import Tensor

from collection import Collection, best, ndcg
from contenders import CORRECTED
from known_items import known_item_search
from runner import PARAGRAPHS, SENTENCES
from text2token.analysis.sts import EmbeddedPairs
from text2token.data.corpus import open_corpus, sample
from text2token.data.sts import read_sts
from text2token.data.tables import read_table
from text2token.model.embedder import Embedder
from text2token.search import Document, read_documents
from text2token.settings.recipe import Recipe
from text2token.settings.record import RunRecord
from text2token.training.pipeline import fit_draw
from text2token.training.start import read_corpus
from text2token.utils.resume import cached
from trained import READS, cost, texts_for, tokens_of_a_text, train

SCIFACT = "mteb/scifact"
VALIDATION = "mteb/stsbenchmark-sts/validation.jsonl"
FILES = [SENTENCES, PARAGRAPHS, SCIFACT, "mteb/stsbenchmark-sts"]
STS = "STSBenchmark validation"
DOCUMENTS = 400  # of each known-item search
COUNTED = 2_000  # texts whose tokens are counted


class Bench(NamedTuple):
    """Folders of the benchmark."""

    data: Path
    runs: Path

    @property
    def corpus(self) -> str:
        """File of the texts that every method learns from."""
        return str(self.data / SENTENCES)

    def texts(self, method: str, tokens: int) -> int:
        """Return the number of texts with which a method reads so many tokens."""

        def count() -> dict[str, float]:
            texts = sample(open_corpus(self.corpus), COUNTED, 0)
            return {each: tokens_of_a_text(each, texts) for each in READS}

        return texts_for(tokens, cached(self.runs / "tokens_of_a_text.json", count)[method])

    def point(self, method: str, tokens: int, rate: str, seed: int = 0) -> dict[str, Any]:
        """Train and score once; then delete the model, which takes a gigabyte, and keep the numbers."""
        texts = self.texts(method, tokens)
        name = f"{method}-{texts}-{rate}-{seed}"
        model = self.runs / "models" / name
        settings: dict[str, str | int] = {"max_texts": texts, "learning_rate": rate, "seed": seed}

        def measured() -> dict[str, Any]:
            return measure(train(model, self.corpus, method, **settings), self)

        found: dict[str, Any] = cached(self.runs / "points" / f"{name}.json", measured)
        shutil.rmtree(model, ignore_errors=True)
        return found


class Embedded(NamedTuple):
    """The embeddings of everything that is scored, without correction."""

    pairs: EmbeddedPairs
    searches: list[tuple[Collection, Tensor, Tensor]]  # documents and queries of each


def measure(model: Path, bench: Bench) -> dict[str, Any]:
    """Score a trained model, a baseline also with our correction.

    Returns:
        Texts, tokens and minutes of the training; and for each variant, which is empty or :data:`contenders.CORRECTED`, its
        scores and the minutes of everything beside the training.
    """
    run = RunRecord.read(model / "run.json")
    baseline = run.verb == "baseline"
    embedder = Embedder.open(model, head="original" if baseline else "own", corrected=not baseline)
    embedder.use_precision("auto")
    embedded = embed(embedder, bench.data)
    spent = cost(model)
    beside = spent.pop("minutes of the whole run") - spent["minutes"]
    variants = {"": {"scores": scores(embedded, embedder.densify), "minutes_beside": beside}}
    if baseline:
        started = time.perf_counter()
        correct(embedder, bench.corpus, run.recipe)
        beside += (time.perf_counter() - started) / 60
        variants[CORRECTED] = {"scores": scores(embedded, embedder.densify), "minutes_beside": beside}
    return {**spent, "variants": variants}


def embed(embedder: Embedder, data: Path) -> Embedded:
    """Embed the sentences of STSBenchmark validation, and documents and queries of the known-item searches."""
    paragraphs = (
        Document(str(number), row.text("title"), row.text("text"))
        for number, row in enumerate(read_table(data / PARAGRAPHS))
    )
    searches = [
        known_item_search("known items, SciFact", read_documents(data / SCIFACT / "corpus.jsonl"), DOCUMENTS),
        known_item_search("known items, Wikipedia", paragraphs, DOCUMENTS),
    ]
    show = partial(embedder.embed, progress=True)
    return Embedded(
        EmbeddedPairs.embed(embedder, read_sts(data / VALIDATION), progress=True),
        [(own, show([d.text for d in own.documents]), show(list(own.queries.values()))) for own in searches],
    )


def scores(embedded: Embedded, densify: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Score the dense vectors: Spearman's correlation on STSBenchmark, and nDCG@10 of known items, × 100."""
    found = {STS: 100 * embedded.pairs.mapped(densify).spearman()}
    for collection, documents, queries in embedded.searches:
        ranking = best(collection, (densify(queries) @ densify(documents).T).numpy())
        found[collection.name] = ndcg(collection, ranking)
    return found


def overall(found: Mapping[str, float]) -> float:
    """Return the mean of STSBenchmark and of the known items, which count as much together as STSBenchmark."""
    return mean([found[STS], mean(score for name, score in found.items() if name != STS)])


def correct(embedder: Embedder, corpus: str, recipe: Recipe) -> None:
    """Give a baseline the correction of our default recipe, learnt from texts that it was trained on."""
    ours = Recipe()
    drawn, _ = read_corpus(open_corpus(corpus), fit_draw(recipe), recipe.seed)
    texts = drawn.texts[: ours.calibration_texts]
    embedder.calibrate(texts, ours.correction_steps(), ours.keep, seed=recipe.seed, progress=True)
