"""Train a baseline without labels on the footing of ``text2token fit``: same texts, trainer, adapters, schedule and resuming."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import datasets
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize

from text2token.model.embedder import Embedder
from text2token.model.folders import save_plain
from text2token.model.probes import attends_ahead
from text2token.settings.recipe import Recipe
from text2token.training.baselines.mntp import MaskedNextToken
from text2token.training.baselines.simcse import SimCSE, set_dropout
from text2token.training.baselines.tsdae import DenoisingAutoEncoder
from text2token.training.objective import Objective
from text2token.training.pipeline import CorpusLike, describe_backbone, draw_texts, open_texts, split_texts
from text2token.training.trainer import merge, train_stage
from text2token.utils.errors import UserError
from text2token.utils.run_folder import RunFolder


class _Stage(NamedTuple):
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
    """Train a baseline and write ``output/dense``, a plain SentenceTransformer folder, and ``output/run.json``.

    Args:
        method: Of ``METHODS``. ``simcse``: unsupervised SimCSE. ``llm2vec``: masked next-token prediction on the first
            ``stage_1`` of the texts, then SimCSE on the rest with new adapters (arXiv 2404.05961). It differs from the published
            code in pooling over the text's own positions in training too, where that pools over padding as well, in batch
            size and length, which are the recipe's, and in the schedule, which is ours for all. ``tsdae``: denoising
            auto-encoder, see :mod:`text2token.training.baselines.tsdae`.
        corpus: As :func:`text2token.fit` takes it.
        output: New folder.
        recipe: ``recipes/`` has a file of settings for each method.
        text_column: Of tabular corpora.
        overwrite: Replace ``output``.
        progress: Show bars.

    Raises:
        UserError: Anything the user can mend.
    """
    if method not in METHODS:
        raise UserError(f"There is no baseline '{method}': choose among {', '.join(METHODS)}.")
    run = RunFolder.open(Path(output), overwrite=overwrite)
    opened = open_texts(corpus, text_column)
    embedder = Embedder.open(recipe.backbone, head="original", corrected=False, **recipe.embedder_settings())
    backbone = describe_backbone(embedder, recipe)
    texts, held_out = draw_texts(opened, recipe)
    fingerprint = opened.fingerprint()
    settings = {"method": method, "recipe": recipe.model_dump(), "corpus": fingerprint, "backbone": backbone}
    with run.session(settings):
        log = []
        for number, stage in enumerate(METHODS[method](embedder, texts, recipe), start=1):
            with run.clock(f"train {number}"):
                rows = train_stage(
                    embedder.encoder,
                    stage.objective(),
                    datasets.Dataset.from_dict({"text": stage.texts}),
                    datasets.Dataset.from_dict({"text": held_out}),
                    recipe,
                    run.work / f"stage-{number}",
                    name=stage.name,
                    minutes=recipe.max_minutes and recipe.max_minutes * len(stage.texts) / len(texts),
                    progress=progress,
                )
            merge(embedder.encoder)
            log += [{"stage": number, **row} for row in rows]
        model = SentenceTransformer(modules=[*embedder.encoder, Normalize()])
        save_plain(model, run.result / "dense")
        run.record(
            {
                "method": method,
                "recipe": recipe.model_dump(),
                "seed": recipe.seed,
                "corpus": {"name": opened.name, "fingerprint": fingerprint},
                "backbone": backbone,
                "log": log,
            }
        )
        run.publish()
    return model


def _simcse(embedder: Embedder, texts: list[str], _: Recipe) -> Iterator[_Stage]:
    set_dropout(embedder.encoder[0].model)
    yield _Stage("SimCSE", texts, lambda: SimCSE(embedder.encoder))


def _llm2vec(embedder: Embedder, texts: list[str], recipe: Recipe) -> Iterator[_Stage]:
    if not attends_ahead(embedder.encoder[0].model):
        raise UserError("LLM2Vec's recipe needs attention in both directions: pass --attention bidirectional.")
    stages = split_texts(texts, recipe)
    if stages.keys() != {1, 2}:
        raise UserError(f"LLM2Vec's recipe has two stages: --stage-1 ({recipe.stage_1}) must leave texts for both.")
    pooling, head, tokenizer = embedder.encoder[1], embedder.decoding_head, embedder.tokenizer
    yield _Stage("MNTP", stages[1], lambda: MaskedNextToken(pooling, head, tokenizer, recipe.seed))
    set_dropout(embedder.encoder[0].model)
    yield _Stage("SimCSE", stages[2], lambda: SimCSE(embedder.encoder))


def _tsdae(embedder: Embedder, texts: list[str], recipe: Recipe) -> Iterator[_Stage]:
    if attends_ahead(embedder.encoder[0].model):
        raise UserError("TSDAE writes texts from left to right: use a causal backbone, with --attention own or causal.")
    pooling, head, tokenizer = embedder.encoder[1], embedder.decoding_head, embedder.tokenizer
    yield _Stage("TSDAE", texts, lambda: DenoisingAutoEncoder(pooling, head, tokenizer, recipe.seed))


METHODS: dict[str, Callable[[Embedder, list[str], Recipe], Iterator[_Stage]]] = {
    "simcse": _simcse,
    "llm2vec": _llm2vec,
    "tsdae": _tsdae,
}
