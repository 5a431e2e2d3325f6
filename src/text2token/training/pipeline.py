"""The main job: raw text in, a readable embedder out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from text2token.analysis.dynamics import Dynamics
from text2token.data.corpus import Corpus, open_corpus, sample
from text2token.model.backbone import from_anywhere
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import backbone_checksum
from text2token.model.precision import mixed_precision
from text2token.model.template import room_for_text
from text2token.settings.recipe import Recipe
from text2token.targets.builders import make_builders
from text2token.targets.data_driven import CorpusStatistics, corpus_statistics
from text2token.targets.loss import token_target_loss
from text2token.targets.store import TargetStore, build_store
from text2token.training.callbacks import MeasureAlong
from text2token.training.card import write_cards
from text2token.training.objective import TokenTargets
from text2token.training.report import write_report
from text2token.training.trainer import merge, pair_cosine, train_stage
from text2token.utils.errors import UserError
from text2token.utils.run_folder import RunFolder

Stores = tuple[TargetStore, TargetStore]  # to train on, and held out

_FEWEST_TEXTS = 16  # below, document frequencies and means say nothing
_EXAMPLES = 5


CorpusLike = Corpus | Sequence[str] | str | Path
"""A file, folder, glob, hub name or ``-``; a list of texts; or an opened corpus."""


def fit(
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    text_column: str = "text",
    overwrite: bool = False,
    progress: bool = False,
) -> Embedder:
    """Turn a language model and unlabelled texts into an embedder, and write it.

    Two stages of token target prediction (Text2Token, arXiv 2510.10224): data-driven targets, then combined with or
    replaced by model-derived ones. A killed run continues when called again with the same arguments.

    Args:
        corpus: A file, folder, glob, hub name or ``-``; a list, which is of texts; or an opened corpus.
        output: New folder: ``dense``, ``sparse``, ``run.json``, ``report.html``.
        recipe: Settings; None: the defaults.
        text_column: Of tabular corpora.
        overwrite: Replace ``output`` when it holds a finished run or another one.
        progress: Show bars on a terminal.

    Returns:
        The finished embedder.

    Raises:
        UserError: Anything the user can mend: corpus, recipe, backbone, output folder.
    """
    recipe = recipe or Recipe()
    run = RunFolder.open(Path(output), overwrite=overwrite)
    opened = open_texts(corpus, text_column)
    embedder = Embedder.open(recipe.backbone, head="original", corrected=False, **recipe.embedder_settings())
    backbone = describe_backbone(embedder, recipe)
    texts, held_out = draw_texts(opened, recipe)
    dynamics = Dynamics.of_recipe(embedder, held_out, recipe)
    fingerprint = opened.fingerprint()
    with run.session({"recipe": recipe.model_dump(), "corpus": fingerprint, "backbone": backbone}):
        stages = split_texts(texts, recipe)
        with run.clock("statistics"):
            counted = run.cached("statistics.npz", lambda: asdict(_statistics(opened, embedder, recipe)))
            statistics = CorpusStatistics(**counted)
        stores = _build_targets(run, statistics, embedder, backbone, stages, held_out, recipe, progress)

        def measure() -> dict[str, Any]:
            sample = texts[: recipe.calibration_texts]
            keep = (recipe.keep_from, recipe.keep_to)
            with mixed_precision(embedder.encoder[0].model):  # half the time; corrected vectors keep a cosine of 1.0000
                embedder.calibrate(sample, recipe.correction_steps(), keep, progress=progress)
                return _measure(embedder, held_out, {stage: test for stage, (_, test) in stores.items()})

        with run.clock("measure before"):
            before = run.cached("before.json", measure)
        log, points = _train(run, embedder, stores, dynamics, recipe, progress)
        with run.clock("measure after"):
            after = measure()
        embedder.save(run.result)
        record = run.record(
            {
                "recipe": recipe.model_dump(),
                "seed": recipe.seed,
                "corpus": {"name": opened.name, "fingerprint": fingerprint, "texts": statistics.texts},
                "backbone": backbone,
                "targets": [_describe_store(stage, train) for stage, (train, _) in stores.items()],
                "log": log,
                "dynamics": {"positives": dynamics.positives, "rows": points},
                "before": before["numbers"],
                "after": after["numbers"],
                "examples": [
                    {"text": text, "before": old, "after": new}
                    for text, old, new in zip(held_out, before["tokens"], after["tokens"], strict=False)
                ],
            }
        )
        write_report(record, run.result / "report.html")
        write_cards(record, run.result)
        run.publish()
    return embedder


def build_targets(
    corpus: CorpusLike,
    output: str | Path,
    stage: int,
    recipe: Recipe,
    *,
    text_column: str = "text",
    progress: bool = False,
) -> tuple[TargetStore, PreTrainedTokenizerBase]:
    """The target store of one stage of :func:`fit`, of the texts that it would train on.

    Args:
        corpus: As :func:`fit` takes it.
        output: Folder of the store; one that is there is continued, or returned if it is finished.
        stage: 1: data-driven targets. 2: model-derived or combined ones.
        recipe: As that of :func:`fit`.
        text_column: Of tabular corpora.
        progress: Show bars on a terminal.

    Returns:
        The store, and the tokenizer that reads its ids.

    Raises:
        UserError: Corpus, recipe or backbone cannot be used, or the recipe gives the stage no texts.
    """
    opened = open_texts(corpus, text_column)
    texts, _ = draw_texts(opened, recipe)
    stages = split_texts(texts, recipe)
    if stage not in stages:
        raise UserError(f"The recipe gives stage {stage} no texts: change --stage-1 ({recipe.stage_1}) or --stage.")
    embedder = Embedder.open(recipe.backbone, head="original", corrected=False, **recipe.embedder_settings())
    statistics = _statistics(opened, embedder, recipe)
    builder = make_builders(embedder, statistics, texts, recipe, backbone_checksum(embedder))[stage]
    return build_store(Path(output), stages[stage], builder, embedder, progress=progress), embedder.tokenizer


def open_texts(corpus: CorpusLike, text_column: str) -> Corpus:
    """A corpus from whatever :func:`fit` takes."""
    if isinstance(corpus, Corpus):
        return corpus
    if isinstance(corpus, str | Path):
        return open_corpus(corpus, text_column=text_column)
    return Corpus.from_texts(corpus)


def draw_texts(corpus: Corpus, recipe: Recipe) -> tuple[list[str], list[str]]:
    """Texts to train on and held-out ones: at most a tenth, so that a small corpus is not used up by its curves."""
    drawn = sample(corpus, recipe.max_texts + recipe.held_out, recipe.seed)
    if len(drawn) < _FEWEST_TEXTS:
        raise UserError(
            f"The corpus '{corpus.name}' has {len(drawn)} distinct text{'s' * (len(drawn) != 1)}, too few to learn from: "
            f"give at least {_FEWEST_TEXTS}, better some thousands."
        )
    kept = min(recipe.held_out, max(2, len(drawn) // 10))
    return drawn[kept:][: recipe.max_texts], drawn[:kept]


def split_texts(texts: list[str], recipe: Recipe) -> dict[int, list[str]]:
    """Each stage has its own share of the texts; a stage without texts is left out."""
    cut = round(recipe.stage_1 * len(texts))
    return {stage: own for stage, own in ((1, texts[:cut]), (2, texts[cut:])) if own}


def _statistics(corpus: Corpus, embedder: Embedder, recipe: Recipe) -> CorpusStatistics:
    """Of the tokens that training reads."""
    tokenizer = embedder.tokenizer
    return corpus_statistics(corpus, tokenizer, embedder.vocabulary_size, room_for_text(tokenizer, recipe.train_length))


def _build_targets(
    run: RunFolder,
    statistics: CorpusStatistics,
    embedder: Embedder,
    backbone: dict[str, Any],
    stages: dict[int, list[str]],
    held_out: list[str],
    recipe: Recipe,
    progress: bool,
) -> dict[int, Stores]:
    """For each stage the targets of its own texts, and those of the held-out ones."""
    texts = [text for own in stages.values() for text in own]
    builders = make_builders(embedder, statistics, texts, recipe, backbone["sha256"])
    stores: dict[int, Stores] = {}
    for stage, own in stages.items():
        with run.clock(f"targets {stage}"):
            stores[stage] = (
                build_store(run.work / f"train-{stage}", own, builders[stage], embedder, progress=progress),
                build_store(run.work / f"held-out-{stage}", held_out, builders[stage], embedder),
            )
    return stores


def _train(
    run: RunFolder,
    embedder: Embedder,
    stores: dict[int, Stores],
    dynamics: Dynamics,
    recipe: Recipe,
    progress: bool,
) -> tuple[list[dict[str, float]], list[dict[str, float]]]:
    """Train the embedder in place through all stages; returns their logs, and what was measured along them."""
    total = sum(train.manifest["texts"] for train, _ in stores.values())
    log: list[dict[str, float]] = []
    points: list[dict[str, float]] = []
    for stage, (train, test) in stores.items():
        minutes = recipe.max_minutes and recipe.max_minutes * train.manifest["texts"] / total
        along = MeasureAlong(recipe.dynamics, partial(dynamics.measure, test), run.work / f"dynamics-{stage}.json")
        with run.clock(f"train {stage}"):
            rows = train_stage(
                embedder.encoder,
                TokenTargets(embedder.encoder[1], embedder.decoding_head),
                train.dataset(),
                test.dataset(),
                recipe,
                run.work / f"stage-{stage}",
                name=f"Stage {stage}",
                minutes=minutes,
                progress=progress,
                callbacks=[along],
            )
        log += [{"stage": stage, **row} for row in rows]
        points += [{"stage": stage, **row} for row in along.rows]
    merge(embedder.encoder)
    return log, points


def _measure(embedder: Embedder, held_out: list[str], stores: dict[int, TargetStore]) -> dict[str, Any]:
    """Numbers and aligned tokens of a calibrated embedder on held-out texts."""
    embeddings = embedder.embed(held_out)
    numbers = {
        f"target_loss_stage_{stage}": float(token_target_loss(embedder.decoding_head(embeddings), *store.padded()))
        for stage, store in stores.items()
    }
    numbers["pair_cosine"] = pair_cosine(embeddings)
    numbers["pair_cosine_dense"] = pair_cosine(embedder.densify(embeddings))
    return {"numbers": numbers, "tokens": embedder.explain(held_out[:_EXAMPLES])}


def describe_backbone(embedder: Embedder, recipe: Recipe) -> dict[str, Any]:
    """What a run records of its untrained backbone."""
    vocabulary, dimension = embedder.decoding_head.weight.shape
    return {
        "name": recipe.backbone,
        "source": from_anywhere(recipe.backbone),
        "dimension": dimension,
        "vocabulary": vocabulary,
        "sha256": backbone_checksum(embedder),
    }


def _describe_store(stage: int, store: TargetStore) -> dict[str, Any]:
    return {
        "stage": stage,
        "builder": store.manifest["settings"]["builder"],
        "texts": store.manifest["texts"],
        "mass_beyond_text": store.manifest["mass_beyond_text"],
    }
