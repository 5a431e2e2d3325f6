"""Who is evaluated: anything that turns texts into vectors or ranks documents, with a revision made of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mteb
import numpy as np
import torch
from mteb.models import ModelMeta
from mteb.models.hybrid_wrappers import HybridSearch
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Router

from text2token.data.corpus import open_corpus, sample
from text2token.evaluation.encoders import OnceEncoder, OnceSparseEncoder, Session, Vectors, pack
from text2token.model.correction import correction
from text2token.model.echo import ECHO, echo_embedder
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import content_hash
from text2token.model.precision import body_in_bf16, mixed_precision
from text2token.model.saved import is_model, load_saved
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError

BM25 = "bm25"
MODES = ("dense", "sparse", "dense+sparse")

_RANKING = frozenset({"Retrieval", "Reranking"})
_BATCH = 32  # texts, and on a CPU at most so many characters, about what its caches hold
_BATCH_CHARACTERS = 8_000


@dataclass(frozen=True)
class Contender:
    """A model under evaluation.

    Attributes:
        name: For people.
        revision: SHA-256 of what its vectors depend on: no two checkpoints share one.
        types: Task types that it can do; None: all.
        prepare: Makes what mteb takes.
    """

    name: str
    revision: str
    types: frozenset[str] | None
    prepare: Callable[[Session], Any]


def bm25() -> Contender:
    """BM25 as mteb has it (bm25s, with stemmer and stop words); ranks only."""
    name = "mteb/baseline-bm25s"
    return Contender(BM25, str(mteb.get_model_meta(name).revision), _RANKING, lambda _: mteb.get_model(name))


def saved(name: str, mode: str = "dense", *, bf16: bool = False) -> Contender:
    """A folder that ``fit`` wrote, or a SentenceTransformer or SparseEncoder.

    Args:
        name: The folder, or a hub id.
        mode: Of a folder of ours: ``dense``, ``sparse``, or ``dense+sparse``, the reciprocal rank fusion of both (k = 60).
        bf16: Encode in mixed precision.

    Raises:
        UserError: There is no such model, or no bf16 in hardware.
    """
    path = Path(name)
    parts = [str(path / kind) for kind in mode.split("+")]
    if mode == "dense" and not Path(parts[0]).is_dir():
        parts = [name]
    for part in parts:
        if not is_model(part):
            raise UserError(f"There is no {mode} model in '{name}': name a folder that 'text2token fit' wrote.")
    shown = path.resolve().name if mode == "dense" else f"{path.resolve().name} {mode}"
    views = [_of_model(load_saved(part), shown, bf16) for part in parts]
    return views[0] if len(views) == 1 else _fused(shown, views)


def untrained(
    backbone: str, recipe: Recipe, corpus: str | None, *, text_column: str = "text", bf16: bool = False
) -> Contender:
    """A backbone without training, under the recipe's pooling, attention, template and correction.

    Args:
        backbone: As :func:`text2token.model.backbone.load_encoder` takes it.
        recipe: The setting.
        corpus: What the correction is learnt from; ``calibration_texts`` drawn from it, whole. ``fit`` draws them from its
            training texts, and :func:`text2token.training.adaptation.adapt` learns from spans.
        text_column: Of a tabular corpus.
        bf16: Encode in mixed precision.

    Raises:
        UserError: The backbone cannot be loaded, there is a correction and no corpus, or no bf16 in hardware.
    """
    recipe = recipe.model_copy(update={"backbone": backbone})
    embedder = (
        echo_embedder(recipe) if recipe.template == ECHO else Embedder.open(backbone, **recipe.embedder_settings())
    )
    template = recipe.template if recipe.prefix is None and recipe.suffix is None else "own template"
    attention = "" if recipe.attention == "own" else f", {recipe.attention}"
    name = f"{Path(backbone).name}, {recipe.pooling}, {template}, {recipe.correction}{attention}"
    return _corrected(embedder, name, recipe, corpus, text_column, bf16)


def recorrected(
    name: str,
    recipe: Recipe,
    corpus: str | None,
    *,
    text_column: str = "text",
    head: str | None = None,
    bf16: bool = False,
) -> Contender:
    """A finished model under another correction of its dense vectors, which are taken as they are before their own.

    Args:
        name: As :meth:`text2token.Embedder.open` takes it.
        recipe: The correction.
        corpus: As of :func:`untrained`.
        text_column: Of a tabular corpus.
        head: As of :meth:`text2token.Embedder.open`; a spectral filter is that of a decoding head.
        bf16: Encode in mixed precision.

    Raises:
        UserError: The model, or the decoding head of its filter, cannot be loaded, there is no corpus, or no bf16 in hardware.
    """
    shown = f"{Path(name).resolve().name}, {recipe.correction}"
    filtered = "filter" in recipe.correction_steps()
    embedder = Embedder.open(name, head=head or "original" if filtered else "own", corrected=False)
    return _corrected(embedder, shown, recipe, corpus, text_column, bf16)


def _corrected(
    embedder: Embedder, name: str, recipe: Recipe, corpus: str | None, text_column: str, bf16: bool
) -> Contender:
    steps, keep = recipe.correction_steps(), (recipe.keep_from, recipe.keep_to)
    if steps and corpus is None:
        raise UserError(
            f"The correction '{recipe.correction}' is learnt from texts: name some with --corpus, "
            "or pass --correction none."
        )
    texts: list[str] = []
    if steps and corpus:
        texts = sample(open_corpus(corpus, text_column=text_column), recipe.calibration_texts, seed=recipe.seed)
    raw = _of_model(embedder.encoder.eval(), name, bf16)

    def prepare(session: Session) -> OnceEncoder:
        """Corrections come after the store: settings that differ in nothing else can share its vectors."""
        encoder: OnceEncoder = raw.prepare(session)
        if steps:
            drawn = torch.from_numpy(np.stack(encoder.vectors(texts, None, None)))
            embedder.correction = correction(steps, drawn, embedder.head, keep)
        encoder.finish = lambda vectors: embedder.densify(torch.from_numpy(vectors)).numpy()
        return encoder

    # of what the correction is learnt from, since its own last bits differ from machine to machine
    revision = hashlib.sha256(
        json.dumps([raw.revision, steps, keep if "filter" in steps else None, texts]).encode()
    ).hexdigest()
    return Contender(name, revision, None, prepare)


def _of_model(model: SentenceTransformer | SparseEncoder, name: str, bf16: bool) -> Contender:
    """A sentence-transformers model."""
    body = body_in_bf16(model) if bf16 else None
    revision = content_hash(model) + (" bf16" if bf16 else "")
    sparse = isinstance(model, SparseEncoder)
    options = {"show_progress_bar": False, "convert_to_tensor": True}
    options |= {"convert_to_sparse_tensor": False} if sparse else {}
    calls = {None: model.encode, PromptType.query: model.encode_query, PromptType.document: model.encode_document}

    def encode(texts: Sequence[str], prompt: str | None, role: PromptType | None) -> Vectors:
        longest = max(map(len, texts)) if model.device.type == "cpu" else 1
        size = max(8, min(_BATCH, _BATCH_CHARACTERS // max(longest, 1)))
        with mixed_precision(body) if body is not None else nullcontext():
            vectors = calls[role](list(texts), batch_size=size, prompt=prompt, **options).float().cpu()
        return pack(vectors) if sparse else list(vectors.numpy())

    by_role = any(
        isinstance(module, Router) or getattr(module, "query_length", None) or getattr(module, "document_length", None)
        for module in model.modules()
    )
    meta = ModelMeta.create_empty({"name": f"text2token/{name}", "revision": revision})
    wrapper = OnceSparseEncoder if sparse else OnceEncoder
    return Contender(name, revision, None, lambda session: wrapper(model, meta, encode, by_role, session))


def _fused(name: str, views: list[Contender]) -> Contender:
    revision = hashlib.sha256("".join(view.revision for view in views).encode()).hexdigest()
    return Contender(name, revision, _RANKING, lambda session: HybridSearch([view.prepare(session) for view in views]))
