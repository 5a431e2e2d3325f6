"""Who is evaluated: anything that turns texts into vectors or ranks documents, with a revision made of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import mteb
import torch
from mteb.models.hybrid_wrappers import HybridSearch
from mteb.types import PromptType
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Router

from text2token.corpus import open_corpus
from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.evaluation.encoders import OnceEncoder, OnceSparseEncoder, Vectors, Work, model_meta, pack
from text2token.evaluation.vector_store import VectorStore
from text2token.precision import mixed_precision
from text2token.recipe import Recipe

BM25 = "bm25"
MODES = ("dense", "sparse", "dense+sparse")

_RANKING = frozenset({"Retrieval", "Reranking"})
_BATCH = 32


@dataclass(frozen=True)
class Session:
    """What an evaluation gives the models it runs.

    Attributes:
        folder: Vectors are kept here, a file a model.
        instructions: Use the benchmark's instructions where a model has no prompts of its own.
        bf16: Encode in mixed precision where the hardware has it.
        progress: Show bars.
        work: Counts what encoding costs.
    """

    folder: Path
    instructions: bool = False
    bf16: bool = False
    progress: bool = False
    work: Work = field(default_factory=Work)


@dataclass(frozen=True)
class Contender:
    """A model under evaluation.

    Attributes:
        name: For tables.
        revision: SHA-256 of weights, module settings, tokenizer with template, and prompts: no two checkpoints share one.
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


def saved(path: Path, mode: str = "dense") -> Contender:
    """A folder that ``fit`` wrote, or a SentenceTransformer or SparseEncoder folder.

    Args:
        path: The folder.
        mode: Of a folder of ours: ``dense``, ``sparse``, or ``dense+sparse``, the reciprocal rank fusion of both (k = 60).

    Raises:
        UserError: There is no such model.
    """
    name = path.resolve().name
    parts = [path / kind for kind in mode.split("+")]
    if mode == "dense" and not parts[0].is_dir():
        parts = [path]
    for part in parts:
        if not (part / "modules.json").is_file():
            raise UserError(f"There is no {mode} model in '{path}': name a folder that 'text2token fit' wrote.")
    name = name if mode == "dense" else f"{name} {mode}"
    views = [_load(part, name) for part in parts]
    return views[0] if len(views) == 1 else _fused(name, views)


def untrained(backbone: str, recipe: Recipe, corpus: str | None) -> Contender:
    """A backbone without training, under the recipe's pooling, attention, template and correction.

    Args:
        backbone: As :func:`text2token.backbone.load_encoder` takes it.
        recipe: The setting.
        corpus: What the correction is learnt from; its first ``calibration_texts``.

    Raises:
        UserError: The backbone cannot be loaded, or there is a correction and no corpus.
    """
    recipe = recipe.model_copy(update={"backbone": backbone})
    if recipe.correction != "none" and corpus is None:
        raise UserError(
            f"The correction '{recipe.correction}' is learnt from texts: name some with --corpus, or pass --correction none."
        )
    embedder = Embedder.from_recipe(recipe)
    if corpus is not None and recipe.correction != "none":
        texts = list(islice(open_corpus(corpus), recipe.calibration_texts))
        embedder.calibrate(texts, recipe.correction_steps(), (recipe.keep_from, recipe.keep_to))
    template = recipe.template if recipe.prefix is None and recipe.suffix is None else "own template"
    name = f"{Path(backbone).name}, {recipe.pooling}, {template}, {recipe.correction}"
    return _dense(SentenceTransformer(modules=embedder.dense_modules()).eval(), name)


def content_hash(model: SentenceTransformer | SparseEncoder) -> str:
    """SHA-256 of all that a vector depends on."""
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    for module in model:
        settings = {key: getattr(module, key, None) for key in getattr(module, "config_keys", ())}
        digest.update(json.dumps([type(module).__name__, settings], default=str, sort_keys=True).encode())
    if hasattr(model.tokenizer, "backend_tokenizer"):
        digest.update(model.tokenizer.backend_tokenizer.to_str().encode())
    config = getattr(getattr(model[0], "model", None), "config", None)
    digest.update(config.to_json_string().encode() if config else b"")
    options = [model.max_seq_length, model.prompts, getattr(model, "max_active_dims", None), model.similarity_fn_name]
    digest.update(json.dumps(options, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def _load(path: Path, name: str) -> Contender:
    settings = json.loads((path / "config_sentence_transformers.json").read_text())
    options: dict[str, Any] = {"model_kwargs": {"dtype": torch.float32}, "local_files_only": True}
    try:
        if settings.get("model_type") == "SparseEncoder":
            return _sparse(SparseEncoder(str(path), **options).eval(), name)
        return _dense(SentenceTransformer(str(path), **options).eval(), name)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(f"sentence-transformers cannot load '{path}': {str(error).splitlines()[0]}") from error


def _dense(model: SentenceTransformer, name: str) -> Contender:
    def convert(vectors: Any) -> Vectors:
        return list(vectors.float().cpu().numpy())

    return _contender(name, model, convert, OnceEncoder)


def _sparse(model: SparseEncoder, name: str) -> Contender:
    return _contender(name, model, pack, OnceSparseEncoder, vocabulary=model.get_embedding_dimension())


def _contender(
    name: str,
    model: SentenceTransformer | SparseEncoder,
    convert: Callable[[Any], Vectors],
    wrapper: type[OnceEncoder],
    **options: Any,
) -> Contender:
    """A sentence-transformers model, encoding under the session's settings."""
    revision = content_hash(model)
    asymmetric = any(isinstance(module, Router) for module in model.modules())
    prompts = {key: prompt for key, prompt in model.prompts.items() if prompt}
    output = {"convert_to_sparse_tensor": False} if isinstance(model, SparseEncoder) else {}

    def prepare(session: Session) -> OnceEncoder:
        def encode(texts: Sequence[str], prompt: str | None, role: PromptType | None) -> Vectors:
            by_role = {PromptType.query: model.encode_query, PromptType.document: model.encode_document}
            call = by_role[role] if role and asymmetric else model.encode
            body = getattr(model[0], "model", None)
            with mixed_precision(body) if session.bf16 and body is not None else nullcontext():
                vectors = call(
                    list(texts),
                    prompt=prompt,
                    batch_size=_BATCH,
                    show_progress_bar=False,
                    convert_to_tensor=True,
                    **output,
                )
            return convert(vectors)

        precision = "bf16" if session.bf16 else "float32"
        return wrapper(
            model_meta(name, revision, str(model.similarity_fn_name)),
            encode,
            VectorStore(session.folder / f"{revision[:16]}-{precision}.sqlite"),
            session.work,
            prompts=prompts or None,
            asymmetric=asymmetric,
            instructions=session.instructions,
            progress=session.progress,
            **options,
        )

    return Contender(name, revision, None, prepare)


def _fused(name: str, views: list[Contender]) -> Contender:
    revision = hashlib.sha256("".join(view.revision for view in views).encode()).hexdigest()
    return Contender(name, revision, _RANKING, lambda session: HybridSearch([view.prepare(session) for view in views]))
