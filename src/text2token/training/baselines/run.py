"""``baseline``: train other unsupervised methods with the same texts, trainer, adapters and schedule as ``fit``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from text2token.model.embedder import Embedder
from text2token.model.folders import prompts_of, save_plain
from text2token.model.probes import attends_ahead
from text2token.model.template import room_for_text
from text2token.settings.facts import Row
from text2token.settings.recipe import Recipe
from text2token.training.baselines.mntp import MaskedNextToken
from text2token.training.baselines.simcse import SimCSE, set_dropout
from text2token.training.baselines.tsdae import DenoisingAutoEncoder
from text2token.training.objective import Objective
from text2token.training.pipeline import fit_draw, split_texts
from text2token.training.rows import text_tables
from text2token.training.start import CorpusLike, start_run
from text2token.training.trainer import TrainingSettings, merge_adapters, train_stage
from text2token.utils.errors import UserError
from text2token.utils.processes import require_one_process


class _Data(NamedTuple):
    """The texts of all stages, the share of the first stage, and the seed."""

    texts: list[str]
    stage_1: float
    seed: int


class _Stage(NamedTuple):
    """A training stage. The objective is made when the stage starts."""

    name: str
    texts: list[str]
    objective: Callable[[], Objective]


def fit_baseline(
    method: str,
    corpus: CorpusLike,
    output: str | Path,
    recipe: Recipe,
    *,
    text_column: str = "text",
    overwrite: bool = False,
    progress: bool = False,
) -> SentenceTransformer:
    """Train a baseline, and write ``output/dense``, a plain SentenceTransformer folder, and ``output/run.json``.

    Args:
        method: A key of ``METHODS``.

            - ``simcse`` is unsupervised SimCSE.
            - ``llm2vec`` (arXiv 2404.05961) is masked next-token prediction on the first ``stage_1`` of the texts, then SimCSE
              on the rest with new adapters. It differs from the published code in three ways: pooling leaves out padding in
              training, batch size and length come from the recipe, and the schedule is that of ``fit``.
            - ``tsdae`` is a denoising auto-encoder, see :mod:`text2token.training.baselines.tsdae`.
        corpus: The same as for :func:`text2token.fit`.
        output: New folder.
        recipe: All settings. The folder ``recipes`` has a file for each method.
        text_column: Column of the texts in a table.
        overwrite: Replace ``output`` if it holds a run, and discard an unfinished run with other settings.
        progress: Show progress bars on a terminal.

    Raises:
        UserError: Method, corpus, recipe, backbone or output folder cannot be used.
    """
    require_one_process("baseline")
    if method not in METHODS:
        raise UserError(f"There is no baseline '{method}': choose among {', '.join(METHODS)}.")
    if recipe.teacher is not None:
        raise UserError("A baseline learns without a teacher: leave `teacher` out.")
    amount = fit_draw(recipe)
    with start_run(
        "baseline", corpus, output, recipe, amount, text_column=text_column, overwrite=overwrite, method=method
    ) as run:
        encoder, folder, texts = run.embedder.encoder, run.folder, run.texts
        room_for_text(encoder.tokenizer, recipe.train_length)  # raises an error if there is none
        log: list[Row] = []
        stages = METHODS[method](run.embedder, _Data(texts, recipe.stage_1, recipe.seed))
        for number, stage in enumerate(stages, start=1):
            with folder.clock(f"train {number}"):
                rows = train_stage(
                    encoder,
                    stage.objective(),
                    text_tables(stage.texts),
                    text_tables(run.held_out),
                    recipe.part(TrainingSettings),
                    folder.work / f"stage-{number}",
                    name=stage.name,
                    minutes=recipe.max_minutes and recipe.max_minutes * len(stage.texts) / len(texts),
                    progress=progress,
                )
            merge_adapters(encoder)
            log += [{"stage": number, **row} for row in rows]
        model = SentenceTransformer(modules=[*encoder, Normalize()], **prompts_of(encoder))
        save_plain(model, folder.result / "dense")
        run.record(method=method, log=log)
        folder.publish()
    return model


def _simcse(embedder: Embedder, data: _Data) -> Iterator[_Stage]:
    set_dropout(embedder.encoder[0].model)
    yield _Stage("SimCSE", data.texts, lambda: SimCSE(embedder.encoder))


def _llm2vec(embedder: Embedder, data: _Data) -> Iterator[_Stage]:
    if not attends_ahead(embedder.encoder[0].model):
        raise UserError("LLM2Vec needs attention in both directions: set `attention` to bidirectional.")
    stages = split_texts(data.texts, data.stage_1)
    if stages.keys() != {1, 2}:
        raise UserError(f"LLM2Vec has two stages and `stage_1` ({data.stage_1}) leaves one without texts: change it.")
    pooling, head, tokenizer = embedder.encoder[1], embedder.decoding_head, embedder.tokenizer
    yield _Stage("MNTP", stages[1], lambda: MaskedNextToken(pooling, head, tokenizer, data.seed))
    set_dropout(embedder.encoder[0].model)
    yield _Stage("SimCSE", stages[2], lambda: SimCSE(embedder.encoder))


def _tsdae(embedder: Embedder, data: _Data) -> Iterator[_Stage]:
    if attends_ahead(embedder.encoder[0].model):
        raise UserError("TSDAE writes texts from left to right: use a causal backbone, with `attention` own or causal.")
    pooling, head, tokenizer = embedder.encoder[1], embedder.decoding_head, embedder.tokenizer
    yield _Stage("TSDAE", data.texts, lambda: DenoisingAutoEncoder(pooling, head, tokenizer, data.seed))


METHODS: dict[str, Callable[[Embedder, _Data], Iterator[_Stage]]] = {
    "simcse": _simcse,
    "llm2vec": _llm2vec,
    "tsdae": _tsdae,
}
"""Method → its stages."""
