"""Finished embedders by name: folders of ours, and what sentence-transformers loads, here or on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.util import is_sentence_transformer_model, load_file_path

from text2token.model.backbone import missing_weights_alike
from text2token.model.packaged import PACKAGED, REFERENCES, fetch
from text2token.utils.errors import UserError, first_line

PARTS = ("dense", "sparse")
"""Of a folder of ours."""


def is_saved(name: str) -> bool:
    """Is this an embedder already: a folder of ours, or what :func:`load_saved` loads?"""
    return any((Path(name).expanduser() / part).is_dir() for part in PARTS) or is_model(name)


def is_model(name: str) -> bool:
    """Is this a SentenceTransformer or SparseEncoder? The hub is asked only about a name that nothing here has."""
    path = Path(name).expanduser()
    if name in REFERENCES:
        return True
    if name in PACKAGED or path.suffix == ".gguf" or path.exists():
        return (path / "modules.json").is_file()
    return is_sentence_transformer_model(name)


def load_saved(name: str) -> SentenceTransformer | SparseEncoder:
    """A model of sentence-transformers, of the kind that it says it is, in float32.

    Args:
        name: Its folder, a packaged reference model, or a hub id.

    Raises:
        UserError: It cannot be loaded.
    """
    place = str(fetch(name) if name in REFERENCES else Path(name).expanduser())
    try:
        note = load_file_path(place, "config_sentence_transformers.json")
        settings = json.loads(Path(note).read_text(encoding="utf-8")) if note else {}
        kind = SparseEncoder if settings.get("model_type") == "SparseEncoder" else SentenceTransformer
        with missing_weights_alike():
            return kind(place, model_kwargs={"dtype": torch.float32}).eval()
    except Exception as error:  # whatever a loader trips over, the model is what the user has to look at
        raise UserError(f"sentence-transformers cannot load '{name}': {first_line(error)}") from error
