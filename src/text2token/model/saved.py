"""Recognise and load finished models: folders written by this package, and models of sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Transformer
from sentence_transformers.util import is_sentence_transformer_model, load_file_path

from text2token.model.kinds import Model
from text2token.model.loading import loading
from text2token.model.names import is_packaged, locate
from text2token.model.packaged import REFERENCES, fetch
from text2token.model.probes import check_inputs
from text2token.utils.errors import UserError

PARTS = ("dense", "sparse")
"""Folders inside a folder that ``fit``, ``adapt`` or ``baseline`` wrote."""

_KINDS = {kind.__name__: kind for kind in (SentenceTransformer, SparseEncoder)}


def is_saved(name: str) -> bool:
    """Return whether ``name`` is a finished embedder: a folder written by this package, or a model for :func:`load_saved`."""
    return any((locate(name) / part).is_dir() for part in PARTS) or is_model(name)


def is_model(name: str) -> bool:
    """Return whether ``name`` is a model of sentence-transformers; the hub is asked only if nothing local has that name."""
    path = locate(name)
    if is_packaged(name):
        return name in REFERENCES
    if path.suffix.lower() == ".gguf" or path.exists():
        return (path / "modules.json").is_file()
    return is_sentence_transformer_model(name)


def load_saved(name: str) -> Model:
    """Load a model of sentence-transformers in float32, as the class that it was saved from.

    Args:
        name: A folder, a packaged reference model, or a hub id.

    Raises:
        UserError: It cannot be loaded, or it is a reranker or multi-vector model.
    """
    place = str(fetch(name) if name in REFERENCES else locate(name))
    with loading(name):
        kind = _KINDS[_kind(place, name)]
        model = kind(place, model_kwargs={"dtype": torch.float32}, trust_remote_code=False).eval()
        if isinstance(model[0], Transformer):
            check_inputs(model[0], name)
    return model


def _kind(place: str, name: str) -> str:
    """Return the class of sentence-transformers that a model was saved from.

    Raises:
        UserError: It is a reranker or a multi-vector model, which gives no single vector of a text.
    """
    settings = _read_json(place, "config_sentence_transformers.json") or {}
    kind = settings.get("model_type", SentenceTransformer.__name__)
    modules = _read_json(place, "modules.json") or []
    if settings.get("similarity_fn_name") == "MaxSim" or any(entry["type"].startswith("pylate.") for entry in modules):
        kind = "multi-vector model"  # as PyLate saves it
    if kind not in _KINDS:
        raise UserError(
            f"'{name}' is a {kind}, which gives no single vector of a text: use a SentenceTransformer, a SparseEncoder or a "
            "language model."
        )
    return kind


def _read_json(place: str, file: str) -> Any:
    """Return the content of a JSON file of a model; None if there is no such file."""
    found = load_file_path(place, file)
    return json.loads(Path(found).read_text(encoding="utf-8")) if found else None
