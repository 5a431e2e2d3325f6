"""Open any embedder together with the decoding head of the backbone it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer
from sentence_transformers.util import is_sentence_transformer_model

from text2token.backbone import load_head
from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.head import DecodingHead
from text2token.recipe import Recipe


def open_readable(name: str, recipe: Recipe | None = None, head: str | None = None) -> Embedder:
    """An embedder whose embeddings are the pooled hidden states, before any correction, and whose head is the original one.

    Training moves the body and never this head: what a vector says is read with the words of the language model it came from
    (arXiv 2406.17378).

    Args:
        name: What ``fit``, ``adapt`` or ``baseline`` wrote, a SentenceTransformer folder or hub id, or a backbone.
        recipe: Pooling, attention, template and length of a plain backbone; None: the defaults.
        head: The language model whose head decodes. None: the backbone that the folder names; else the one that the model
            card names; else the model's own head.

    Raises:
        UserError: Model or head cannot be loaded, or do not fit together.
    """
    if not _is_embedder(name):
        embedder = Embedder.from_recipe((recipe or Recipe()).model_copy(update={"backbone": name}))
        return _with_head(embedder, name, load_head(head)) if head else embedder
    folder = Path(name)
    dense = folder / "dense" if (folder / "dense").is_dir() else folder
    model = SentenceTransformer(str(dense) if dense.is_dir() else name, model_kwargs={"dtype": torch.float32})
    if len(model) < 2 or not hasattr(model[1], "pooling_mode"):
        raise UserError(f"'{name}' does not start with a transformer and its pooling: it has no embedding to decode.")
    embedder = Embedder(encoder=SentenceTransformer(modules=[model[0], model[1]]).eval())
    return _with_head(embedder, name, load_head(head) if head else _find_head(name, folder))


def _is_embedder(name: str) -> bool:
    return (Path(name) / "dense").is_dir() or is_sentence_transformer_model(name)


def _find_head(name: str, folder: Path) -> DecodingHead:
    for candidate in _candidates(name, folder):
        try:
            return load_head(candidate)
        except UserError:
            continue
    raise UserError(
        f"No decoding head was found for '{name}': name the language model it was made from with --head, "
        "if there is one (an encoder without a language model's head cannot be read as tokens)."
    )


def _candidates(name: str, folder: Path) -> Iterator[str]:
    """Where the original head may be, surest first."""
    if (folder / "run.json").is_file():
        yield json.loads((folder / "run.json").read_text(encoding="utf-8"))["recipe"]["backbone"]
    for place in (folder / "README.md", name):
        try:
            bases = ModelCard.load(place).data.base_model
        except (OSError, ValueError, HfHubHTTPError):
            continue
        yield from [bases] if isinstance(bases, str) else bases or []
    yield name


def _with_head(embedder: Embedder, name: str, head: DecodingHead) -> Embedder:
    dimension = embedder.encoder.get_embedding_dimension()
    if head.weight.shape[1] != dimension:
        raise UserError(
            f"The decoding head has {head.weight.shape[1]} dimensions, the embeddings of '{name}' have {dimension}: "
            "name the language model it was made from with --head."
        )
    embedder.head = head
    return embedder
