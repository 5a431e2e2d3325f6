"""Models under evaluation: saved folders, untrained backbones, other corrections of either, and BM25."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.hybrid_wrappers import HybridSearch
from mteb.types import PromptType
from sentence_transformers import SparseEncoder
from sentence_transformers.sentence_transformer.modules import Router
from torch import Tensor

from text2token.data.corpus import open_corpus, sample
from text2token.evaluation.encoders import CachingEncoder, CachingSparseEncoder, Session, pack
from text2token.evaluation.vector_store import Vectors
from text2token.model import echo, static
from text2token.model.correction import correction
from text2token.model.embedder import Embedder
from text2token.model.encoding import encode_in_batches
from text2token.model.fingerprint import content_hash
from text2token.model.kinds import Model
from text2token.model.names import locate
from text2token.model.precision import encoding, use_of_bf16
from text2token.model.saved import is_model, load_saved
from text2token.model.spans import correction_sample
from text2token.settings.choices import NumberFormat, Precision
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError
from text2token.utils.provenance import weights_checksum

BM25 = "bm25"
MODES = ("dense", "sparse", "dense+sparse")

_RANKING = frozenset({"Retrieval", "Reranking"})
_BATCH = 32  # the default of Embedder.embed


@dataclass(frozen=True)
class EvaluatedModel:
    """A model under evaluation.

    Attributes:
        name: Shown to readers.
        revision: SHA-256 of everything that the vectors depend on, so that no two checkpoints share a revision.
        task_types: The task types that the model can do; None: all.
        prepare: Makes the object that mteb evaluates.
        precision: The precision in which it encodes.
    """

    name: str
    revision: str
    task_types: frozenset[str] | None
    prepare: Callable[[Session], Any]
    precision: NumberFormat = "fp32"


@dataclass(frozen=True)
class LearnedCorrection:
    """A correction of dense vectors that is learnt from texts.

    Attributes:
        steps: The steps in order, see :func:`text2token.model.correction.correction`.
        keep: The part of the spectrum that a ``filter`` step keeps.
        texts: Texts of a corpus. A correction learns from spans of them, see
            :func:`text2token.model.spans.correction_sample`. They may be empty if there are no steps.
        seed: Seed of the spans.

    Raises:
        UserError: There are steps and no texts.
    """

    steps: Sequence[str] = ()
    keep: tuple[float, float] = (0.0, 1.0)
    texts: Sequence[str] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps and not len(self.texts):
            raise UserError(
                f"The correction '{'+'.join(self.steps)}' is learnt from texts: give a `corpus`, "
                "or set `correction` to none."
            )

    @classmethod
    def of_recipe(
        cls, recipe: Recipe, corpus: str | None, *, text_column: str = "text", strict: bool = False
    ) -> LearnedCorrection:
        """The correction of a recipe, learned from ``calibration_texts`` texts that are drawn from a corpus.

        Raises:
            UserError: The recipe has a correction and there is no corpus, or the corpus cannot be read.
        """
        steps, keep = recipe.correction_steps(), recipe.keep
        if corpus is None or not (steps or recipe.template == static.STATIC):
            return cls(steps, keep)
        opened = open_corpus(corpus, text_column=text_column, strict=strict)
        texts = sample(opened, recipe.calibration_texts, seed=recipe.seed)
        return cls(steps, keep, texts, recipe.seed)


def bm25_model() -> EvaluatedModel:
    """BM25 as mteb runs it (bm25s with stemmer and stop words). It only ranks documents."""
    name = "mteb/baseline-bm25s"
    return EvaluatedModel(BM25, str(mteb.get_model_meta(name).revision), _RANKING, lambda _: mteb.get_model(name))


def saved_model(
    name: str, mode: str = "dense", *, precision: Precision = "fp32", batch_size: int = _BATCH
) -> EvaluatedModel:
    """A saved model with its own vectors.

    Args:
        name: A folder that ``fit``, ``adapt`` or ``baseline`` wrote, or a SentenceTransformer or SparseEncoder: its folder or
            hub id.
        mode: Which vectors of a folder of ``fit`` are evaluated: ``dense``, ``sparse``, or ``dense+sparse``, which fuses both
            rankings by reciprocal rank (k = 60).
        precision: See :meth:`text2token.Embedder.use_precision`.
        batch_size: Size of a batch in texts of 128 tokens; longer texts make smaller batches.

    Raises:
        UserError: There is no such model, or the hardware has no bf16.
    """
    path = locate(name)
    folders = [str(path / part) for part in mode.split("+")]
    if mode == "dense" and not Path(folders[0]).is_dir():
        folders = [name]
    for folder in folders:
        if not is_model(folder):
            raise UserError(f"There is no {mode} model in '{name}': name a folder that 'text2token fit' wrote.")
    shown = path.resolve().name if mode == "dense" else f"{path.resolve().name} {mode}"
    models = [_of_sentence_transformer(load_saved(folder), shown, precision, batch_size) for folder in folders]
    return models[0] if len(models) == 1 else _fused(shown, models)


def untrained_model(
    recipe: Recipe, correction: LearnedCorrection, *, precision: Precision = "fp32", batch_size: int = _BATCH
) -> EvaluatedModel:
    """A backbone without training.

    Args:
        recipe: Its backbone, attention, pooling, template and length are used. The templates ``echo`` and ``static`` stand for
            the baselines of these names.
        correction: The correction of the vectors. ``static`` also counts document frequencies in its texts.
        precision: See :meth:`text2token.Embedder.use_precision`.
        batch_size: Size of a batch in texts of 128 tokens; longer texts make smaller batches.

    Raises:
        UserError: The backbone cannot be loaded, or the hardware has no bf16.
    """
    match recipe.template:
        case echo.ECHO:
            embedder = echo.echo_embedder(recipe)
        case static.STATIC:
            embedder = static.static_embedder(recipe.backbone, correction.texts)
        case _:
            embedder = Embedder.open(recipe.backbone, **recipe.embedder_settings())
    template = recipe.template if recipe.prefix is None and recipe.suffix is None else "own template"
    pooling = "mean" if recipe.template == static.STATIC else recipe.pooling
    parts = [Path(recipe.backbone).name, pooling, template, recipe.correction]
    if recipe.attention != "own":
        parts.append(recipe.attention)
    return _corrected(embedder, ", ".join(parts), correction, precision, batch_size)


def recorrected_model(
    name: str,
    correction: LearnedCorrection,
    *,
    head: str | None = None,
    precision: Precision = "fp32",
    batch_size: int = _BATCH,
) -> EvaluatedModel:
    """A saved model under another correction, which replaces its own.

    Args:
        name: The model, as :meth:`text2token.Embedder.open` takes it.
        correction: The new correction of the dense vectors.
        head: The decoding head for a ``filter`` step, as :meth:`text2token.Embedder.open` takes it. None: found by itself.
        precision: See :meth:`text2token.Embedder.use_precision`.
        batch_size: Size of a batch in texts of 128 tokens; longer texts make smaller batches.

    Raises:
        UserError: The model or the head cannot be loaded, or the hardware has no bf16.
    """
    shown = f"{locate(name).resolve().name}, {'+'.join(correction.steps) or 'none'}"
    found = "original" if "filter" in correction.steps else "own"
    embedder = Embedder.open(name, head=head or found, corrected=False)
    return _corrected(embedder, shown, correction, precision, batch_size)


def _corrected(
    embedder: Embedder, name: str, learned: LearnedCorrection, precision: Precision, batch_size: int
) -> EvaluatedModel:
    """The store keeps uncorrected vectors, so that models that differ in the correction alone can share them."""
    uncorrected = _of_sentence_transformer(embedder.encoder.eval(), name, precision, batch_size)

    spans = correction_sample(learned.texts, learned.seed) if learned.steps else []

    def prepare(session: Session) -> CachingEncoder:
        encoder: CachingEncoder = uncorrected.prepare(session)
        if learned.steps:
            drawn = torch.from_numpy(np.stack(encoder.vectors(spans, None, None)))
            embedder.correction = correction(learned.steps, drawn, embedder.head, learned.keep)
        encoder.postprocess = lambda vectors: embedder.densify(torch.from_numpy(vectors)).numpy()
        return encoder

    # A hash of what the correction is learnt from: the last bits of the correction itself differ between machines.
    # A filter keeps a part of the spectrum of the head.
    filtered = [learned.keep, weights_checksum(embedder.decoding_head)] if "filter" in learned.steps else None
    inputs = json.dumps([uncorrected.revision, list(learned.steps), filtered, spans])
    return EvaluatedModel(name, hashlib.sha256(inputs.encode()).hexdigest(), None, prepare, uncorrected.precision)


def _of_sentence_transformer(model: Model, name: str, precision: Precision, batch_size: int) -> EvaluatedModel:
    bf16 = use_of_bf16(model, precision)
    used: NumberFormat = "bf16" if bf16 else "fp32"
    revision = content_hash(model) + (" bf16" if bf16 else "")
    sparse = isinstance(model, SparseEncoder)
    options: dict[str, bool] = {"show_progress_bar": False, "convert_to_tensor": True}
    options |= {"convert_to_sparse_tensor": False} if sparse else {}
    calls = {None: model.encode, PromptType.query: model.encode_query, PromptType.document: model.encode_document}

    def encode(texts: Sequence[str], prompt: str | None, role: PromptType | None) -> Vectors:
        def encode_batch(batch: list[str]) -> Tensor:
            vectors: Tensor = calls[role](batch, batch_size=len(batch), prompt=prompt, **options)
            return vectors

        with encoding(model, bf16=bf16):
            vectors = encode_in_batches(model, texts, encode_batch, prompt=prompt, batch_size=batch_size)
        return pack(vectors) if sparse else list(vectors.numpy())

    by_role = any(
        isinstance(module, Router) or getattr(module, "query_length", None) or getattr(module, "document_length", None)
        for module in model.modules()
    )
    meta = ModelMeta.create_empty({"name": f"text2token/{name}", "revision": revision})
    wrapper = CachingSparseEncoder if sparse else CachingEncoder
    return EvaluatedModel(name, revision, None, lambda session: wrapper(model, meta, encode, by_role, session), used)


def _fused(name: str, models: list[EvaluatedModel]) -> EvaluatedModel:
    revision = hashlib.sha256("".join(model.revision for model in models).encode()).hexdigest()
    return EvaluatedModel(
        name,
        revision,
        _RANKING,
        lambda session: HybridSearch([model.prepare(session) for model in models]),
        models[0].precision,
    )
