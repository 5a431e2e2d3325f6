"""How an index begins: its folder, its settings, and the model that it will always have."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from text2token.model.embedder import Embedder
from text2token.search.index_folder import LOCK, STORE, TOKENIZER, only_writer
from text2token.search.model import model_fingerprint
from text2token.search.store import DocumentStore
from text2token.settings.recipe import Recipe
from text2token.settings.search import EngineName, VectorSettings
from text2token.utils.errors import UserError


def prepare(
    folder: Path,
    model: str,
    recipe: Recipe,
    settings: VectorSettings,
    engine: EngineName,
    uri: str | None,
    embedder: Embedder | None,
) -> Embedder:
    """Make the folder of a new index, or find the unfinished one of the same settings; see :meth:`Index.create`.

    Returns:
        The model.
    """
    if uri is not None and "://" not in uri:
        if not uri.endswith(".db"):
            raise UserError(
                f"'{uri}' is no place for Milvus: give http://host:19530, or a file whose name ends in .db."
            )
        uri = str(Path(uri).resolve())
    model = str(Path(model).resolve()) if Path(model).exists() else model
    facts: dict[str, Any] = {
        "model": model,
        "recipe": recipe.model_dump(mode="json"),
        "settings": settings.model_dump(mode="json"),
        "engine": engine,
        "uri": uri,
    }
    _check_free(folder, facts)
    embedder = embedder or Embedder.open(model, **recipe.embedder_settings())
    if not hasattr(embedder.tokenizer, "backend_tokenizer"):
        raise UserError(
            f"'{model}' has no fast tokenizer of transformers, which cuts long documents: choose another model."
        )
    facts["fingerprint"] = model_fingerprint(embedder)
    possible = {"sparse": embedder.head is not None, "dense": engine != "seismic", "bm25": True}
    found: dict[str, Any] = {
        "collection": f"text2token_{uuid.uuid4().hex}",
        "sides": [side for side, has in possible.items() if has],
        "vocabulary": embedder.vocabulary_size if embedder.head is not None else 0,
    }
    folder.mkdir(parents=True, exist_ok=True)
    with only_writer(folder):
        _check_free(folder, facts)
        with closing(DocumentStore(folder / STORE)) as store, store.transaction():
            store.note(**({} if store.fact("documents", 0) else facts | found))
        embedder.tokenizer.save_pretrained(folder / TOKENIZER)
    return embedder


def _check_free(folder: Path, facts: Mapping[str, Any]) -> None:
    """Is there nothing, or an unfinished index of the same settings, or one without documents?"""
    if not (folder / STORE).is_file():
        if folder.exists() and (not folder.is_dir() or any(file.name != LOCK for file in folder.iterdir())):
            raise UserError(f"'{folder}' holds something else: choose a new folder for the index.")
        return
    with closing(DocumentStore(folder / STORE)) as store:
        finished, begun = store.fact("finished"), store.fact("documents", 0) > 0
        other = [name for name in facts if begun and store.fact(name) != facts[name]]
    if finished:
        raise UserError(f"The index '{folder}' is there: change it with --add or --delete, or choose another folder.")
    if other:
        raise UserError(
            f"An unfinished index with another {other[0]} is in '{folder}': repeat its command, or choose another folder."
        )
