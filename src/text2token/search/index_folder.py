"""The folder of an index: what is in it, how it begins, and that one process writes at a time."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.lock import alone
from text2token.recipe import Recipe
from text2token.search.model import model_fingerprint
from text2token.search.store import DocumentStore
from text2token.search_settings import EngineName, VectorSettings

STORE, TOKENIZER, VECTORS = "documents.sqlite", "tokenizer", "vectors"
_LOCK = "write.lock"


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
    embedder = embedder or Embedder.open(model, recipe)
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


def check_finished(folder: Path) -> None:
    """Is there an index that can be opened?

    Raises:
        UserError: There is none, or its first documents have not all been indexed yet.
    """
    if not (folder / STORE).is_file():
        raise UserError(f"There is no index in '{folder}': make one with 'text2token index'.")
    with closing(DocumentStore(folder / STORE)) as store:
        if not store.fact("finished"):
            raise UserError(f"The index in '{folder}' is not finished: repeat the command that makes it, it continues.")


def only_writer(folder: Path) -> AbstractContextManager[None]:
    """Write alone.

    Raises:
        UserError: Another process is writing.
    """
    refusal = f"Another process is writing the index in '{folder}': repeat the command when it is done."
    return alone(folder / _LOCK, refusal)


@contextmanager
def whole_or_nothing(folder: Path) -> Iterator[None]:
    """Where a :class:`UserError` ends the block before the index in ``folder`` has documents, ``folder`` is as it was again."""
    there = folder.exists()
    try:
        yield
    except UserError:
        if (folder / STORE).is_file():
            with suppress(UserError), only_writer(folder):  # unless another process is writing
                if _is_empty(folder):
                    for path in folder.iterdir():
                        shutil.rmtree(path) if path.is_dir() else path.unlink()
                    if not there:
                        folder.rmdir()
        raise


def _is_empty(folder: Path) -> bool:
    with closing(DocumentStore(folder / STORE)) as store:
        return not store.fact("finished") and not store.fact("documents", 0)


def _check_free(folder: Path, facts: Mapping[str, Any]) -> None:
    """Is there nothing, or an unfinished index of the same settings, or one without documents?"""
    if not (folder / STORE).is_file():
        if folder.exists() and (not folder.is_dir() or any(file.name != _LOCK for file in folder.iterdir())):
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
