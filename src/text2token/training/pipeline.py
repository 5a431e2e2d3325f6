"""``fit``: turn a language model and unlabelled texts into an embedder."""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from text2token.analysis.dynamics import Dynamics, measured_pairs
from text2token.data.corpus import Corpus
from text2token.data.sts import pairs_fingerprint
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import backbone_checksum
from text2token.model.template import room_for_text
from text2token.settings.facts import DynamicsFacts, Example, Row, TargetFacts
from text2token.settings.recipe import Recipe
from text2token.targets.builders import TargetSettings, make_builders
from text2token.targets.data_driven import CorpusStatistics, corpus_statistics
from text2token.targets.loss import token_target_loss
from text2token.targets.similarity import agreement
from text2token.targets.store import TargetStore, build_store
from text2token.targets.teacher import Teacher
from text2token.training.calibration import calibrated, texts_of_a_measurement
from text2token.training.callbacks import MeasureAlong
from text2token.training.card import write_cards
from text2token.training.objective import Objective, TokenTargets
from text2token.training.report import write_report
from text2token.training.start import CorpusLike, Draw, Run, as_corpus, open_backbone, read_corpus, start_run
from text2token.training.teacher import FollowTeacher
from text2token.training.trainer import TrainingSettings, merge_adapters, pair_cosine, train_stage
from text2token.utils.errors import UserError
from text2token.utils.files import local_path, output_lock
from text2token.utils.places import check_outside
from text2token.utils.processes import on_main, require_one_process, splits_weights

Stores = dict[int, tuple[TargetStore, TargetStore]]
"""For each stage, the targets to train on and the targets of the held-out texts."""

_FEWEST_TEXTS = 16  # with fewer texts, document frequencies and means are noise
_EXAMPLES = 5


def fit(
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe | None = None,
    *,
    text_column: str = "text",
    overwrite: bool = False,
    progress: bool = False,
) -> Embedder:
    """Turn a language model and unlabelled texts into an embedder, and write it to a folder.

    Training has two stages of token target prediction, after the abstract of Text2Token (arXiv 2510.10224); all details are
    ours. Stage 1 learns data-driven targets. Stage 2 learns these mixed with model-derived targets. With a ``teacher``, the dense
    vectors also learn its similarities, in both stages. If the process was killed, the same call continues the run.

    Several processes, started by ``torchrun`` or ``accelerate launch``, call this together. They share the texts of each step,
    the model-derived targets and the calibration; the first one reads the corpus and writes the folder.

    Args:
        corpus: A file, folder, glob, hub name or ``-``; a list of texts; or an opened corpus.
        output: New folder for ``dense``, ``sparse``, ``run.json`` and ``report.html``.
        recipe: All settings. None uses the defaults, which suit a laptop without a GPU.
        text_column: Column of the texts in a table.
        overwrite: Replace ``output`` if it holds a run, and discard an unfinished run with other settings.
        progress: Show progress bars on a terminal.

    Returns:
        The trained embedder.

    Raises:
        UserError: Corpus, recipe, backbone, teacher or output folder cannot be used.
    """
    splits_weights()  # raises an error before any work
    recipe = recipe or Recipe()
    amount = fit_draw(recipe)
    teacher = None if recipe.teacher is None else Teacher.open(recipe.teacher, recipe.train_length)
    taught_by = teacher and teacher.facts.model_dump()
    pairs = measured_pairs(recipe.sts)
    how: dict[str, Any] = {"text_column": text_column, "overwrite": overwrite, "teacher": taught_by}
    how["pairs"] = pairs and pairs_fingerprint(pairs)
    with start_run("fit", corpus, output, recipe, amount, **how) as run:
        embedder, folder = run.embedder, run.folder
        dynamics = Dynamics(embedder, run.held_out, pairs, recipe.stop_words)
        with folder.clock("statistics"):
            counts = folder.cached(
                "statistics.npz",
                lambda: on_main(lambda: asdict(_statistics(run.corpus, embedder, recipe.train_length))),
            )
            statistics = CorpusStatistics(**counts)
        stores = _build_stores(run, statistics, teacher, progress)
        del teacher  # the training needs its memory

        def measure(calibration_texts: int) -> dict[str, Any]:
            fast = calibrated(run, calibration_texts, progress)
            embedder.mean_logits, embedder.correction = fast.mean_logits, fast.correction
            return _measure(fast, run.held_out, {stage: test for stage, (_, test) in stores.items()})

        with folder.clock("measure before"):
            before = folder.cached("before.json", lambda: measure(texts_of_a_measurement(recipe)))
        log, points = _train(run, stores, dynamics, progress)
        with folder.clock("measure after"):
            after = measure(recipe.calibration_texts)
        facts = {
            "teacher": taught_by,
            "targets": [_describe_targets(stage, train) for stage, (train, _) in stores.items()],
            "log": log,
            "dynamics": DynamicsFacts(positives=dynamics.positives, rows=points),
            "before": before["numbers"],
            "after": after["numbers"],
            "examples": [
                Example(text=text, before=old, after=new)
                for text, old, new in zip(run.held_out, before["tokens"], after["tokens"], strict=False)
            ],
        }
        on_main(lambda: _write(run, facts))
    return embedder.finished()


def build_targets(
    corpus: CorpusLike,
    output: str | Path,
    stage: int,
    recipe: Recipe,
    *,
    text_column: str = "text",
    progress: bool = False,
) -> tuple[TargetStore, PreTrainedTokenizerBase]:
    """Build the target store of one stage of :func:`fit`, for the texts that ``fit`` would train on.

    Args:
        corpus: The same as for :func:`fit`.
        output: Folder of the store. An incomplete store is continued, a complete one is returned unchanged.
        stage: 1 for data-driven targets, 2 for the mixture with model-derived targets.
        recipe: The recipe of :func:`fit`.
        text_column: Column of the texts in a table.
        progress: Show progress bars on a terminal.

    Returns:
        The store, and the tokenizer that reads its ids.

    Raises:
        UserError: Corpus, recipe or backbone cannot be used, the recipe gives the stage no texts, or another process is
            building this store.
    """
    require_one_process("targets")
    output = local_path(output).absolute()
    opened = as_corpus(corpus, text_column)
    check_outside(output, *opened.opened)
    drawn, _ = read_corpus(opened, fit_draw(recipe), recipe.seed)
    stages = split_texts(drawn.texts, recipe.stage_1)
    if stage not in stages:
        raise UserError(
            f"Stage {stage} has no texts because `stage_1` is {recipe.stage_1}: change `stage_1` or the stage."
        )
    with output_lock(output):
        embedder = open_backbone(recipe)
        statistics = _statistics(opened, embedder, recipe.train_length)
        builder = make_builders(
            embedder, statistics, drawn.texts, recipe.part(TargetSettings), backbone_checksum(embedder)
        )[stage]
        return build_store(output, stages[stage], builder, embedder, progress=progress), embedder.tokenizer


def split_texts(texts: list[str], stage_1: float) -> dict[int, list[str]]:
    """Give stage 1 its share of the texts and stage 2 the rest. A stage without texts is left out."""
    cut = round(stage_1 * len(texts))
    return {stage: own for stage, own in ((1, texts[:cut]), (2, texts[cut:])) if own}


def fit_draw(recipe: Recipe) -> Draw:
    """Number of texts that ``fit`` and its baselines draw. At most a tenth is held out."""
    return Draw("max_texts", recipe.max_texts, recipe.held_out, part=10, fewest=_FEWEST_TEXTS)


def _write(run: Run, facts: dict[str, Any]) -> None:
    """Write the embedder with its record, report and cards, and publish the run."""
    folder = run.folder
    run.embedder.save(folder.result)
    record = run.record(**facts)
    write_report(record, folder.result / "report.html")
    write_cards(record, folder.result)
    folder.publish()


def _statistics(corpus: Corpus, embedder: Embedder, train_length: int) -> CorpusStatistics:
    """Count the tokens that the body reads in training, in one pass over the corpus."""
    tokenizer = embedder.tokenizer
    return corpus_statistics(corpus, tokenizer, embedder.vocabulary_size, room_for_text(tokenizer, train_length))


def _build_stores(run: Run, statistics: CorpusStatistics, teacher: Teacher | None, progress: bool) -> Stores:
    builders = make_builders(run.embedder, statistics, run.texts, run.recipe.part(TargetSettings), run.backbone.sha256)
    build = partial(build_store, embedder=run.embedder, teacher=teacher)
    stores: Stores = {}
    for stage, own in split_texts(run.texts, run.recipe.stage_1).items():
        with run.folder.clock(f"targets {stage}"):
            stores[stage] = (
                build(run.folder.work / f"train-{stage}", own, builders[stage], progress=progress),
                build(run.folder.work / f"held-out-{stage}", run.held_out, builders[stage]),
            )
    return stores


def _objective(run: Run, progress: bool) -> Objective:
    """The objective of a stage that starts now.

    A teacher's similarities are compared with those of dense vectors under the correction that the embedder would get now. The
    final one is learnt after the training, and differs from it as far as the stage changes the directions of the embeddings.
    """
    recipe, embedder = run.recipe, run.embedder
    tokens = TokenTargets(embedder.encoder[1], embedder.decoding_head)
    if recipe.teacher is None:
        return tokens
    correction = calibrated(run, texts_of_a_measurement(recipe), progress).correction
    dimension = embedder.decoding_head.weight.shape[1]
    matrix = torch.eye(dimension) if correction is None else correction.linear.weight.detach()
    return FollowTeacher(tokens, matrix, recipe.teacher_weight)


def _train(run: Run, stores: Stores, dynamics: Dynamics, progress: bool) -> tuple[list[Row], list[Row]]:
    """Train the embedder in place through all stages. Return their logs and the measurements along them."""
    recipe, embedder, work = run.recipe, run.embedder, run.folder.work
    total = sum(train.manifest["texts"] for train, _ in stores.values())
    log: list[Row] = []
    points: list[Row] = []
    for stage, (train, test) in stores.items():
        along = MeasureAlong(recipe.dynamics, partial(dynamics.measure, test), work / f"dynamics-{stage}.json")
        with run.folder.clock(f"train {stage}"):
            rows = train_stage(
                embedder.encoder,
                _objective(run, progress),
                train.tables(),
                test.tables(),
                recipe.part(TrainingSettings),
                work / f"stage-{stage}",
                name=f"Stage {stage}",
                minutes=recipe.max_minutes and recipe.max_minutes * train.manifest["texts"] / total,
                progress=progress,
                callbacks=[along],
            )
        log += [{"stage": stage, **row} for row in rows]
        points += [{"stage": stage, **row} for row in along.rows]
    merge_adapters(embedder.encoder)
    return log, points


def _measure(embedder: Embedder, held_out: list[str], stores: dict[int, TargetStore]) -> dict[str, Any]:
    """Measures and aligned tokens of a calibrated embedder on held-out texts."""
    embeddings = embedder.embed(held_out)
    numbers = {
        f"target_loss_stage_{stage}": float(token_target_loss(embedder.decoding_head(embeddings), *store.padded()))
        for stage, store in stores.items()
    }
    [any_stage, *_] = stores.values()
    if any_stage.manifest["teacher"]:
        numbers["teacher_agreement"] = agreement(embedder.correct(embeddings), any_stage.teacher_vectors())
    numbers["pair_cosine"] = pair_cosine(embeddings)
    numbers["pair_cosine_dense"] = pair_cosine(embedder.densify(embeddings))
    return {"numbers": numbers, "tokens": embedder.explain(held_out[:_EXAMPLES])}


def _describe_targets(stage: int, store: TargetStore) -> TargetFacts:
    return TargetFacts(
        stage=stage,
        builder=store.manifest["settings"]["builder"],
        texts=store.manifest["texts"],
        mass_beyond_text=store.manifest["mass_beyond_text"],
    )
