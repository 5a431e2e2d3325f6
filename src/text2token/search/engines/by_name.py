"""Open an engine by its name."""

from __future__ import annotations

import os
from pathlib import Path

from text2token.search.engines.base import Engine
from text2token.search.engines.embedded import EmbeddedEngine
from text2token.settings.search import EngineName
from text2token.utils.errors import requires_extra


def open_engine(name: EngineName, folder: Path, uri: str | None, collection: str) -> Engine:
    """Open an engine.

    Args:
        name: Name of the engine.
        folder: Folder for engines that keep their vectors with the index.
        uri: Address of Milvus; None: a file in ``folder``. A server may ask for the environment variable ``MILVUS_TOKEN``
            (``user:password`` or an API key).
        collection: Name of the collection in Milvus.

    Raises:
        UserError: The package of the engine is not installed.
    """
    if name == "embedded":
        return EmbeddedEngine(folder)
    with requires_extra(name):
        from text2token.search.engines.milvus import MilvusEngine
    folder.mkdir(parents=True, exist_ok=True)
    return MilvusEngine(uri or str(folder / "milvus.db"), collection, os.environ.get("MILVUS_TOKEN", ""))
