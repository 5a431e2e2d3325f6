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
        uri: Address of the engine; see :data:`text2token.search.engines.addresses.EXAMPLES`. Milvus without an address is a file
            in ``folder``. Logins may stand in the environment: ``MILVUS_TOKEN`` (``user:password`` or an API key),
            ``QDRANT_API_KEY``, ``PGPASSWORD``.
        collection: Name of the collection or table.

    Raises:
        UserError: The package of the engine is not installed.
    """
    if name == "embedded":
        return EmbeddedEngine(folder)
    if name == "postgres":
        with requires_extra(name):
            from text2token.search.engines.postgres import PostgresEngine
        return PostgresEngine(uri or "", collection)
    if name == "qdrant":
        with requires_extra(name):
            from text2token.search.engines.qdrant import QdrantEngine, connect
        return QdrantEngine(connect(uri or "", os.environ.get("QDRANT_API_KEY")), collection, uri or "")
    with requires_extra(name):
        from text2token.search.engines.milvus import MilvusEngine
    folder.mkdir(parents=True, exist_ok=True)
    return MilvusEngine(uri or str(folder / "milvus.db"), collection, os.environ.get("MILVUS_TOKEN", ""))
