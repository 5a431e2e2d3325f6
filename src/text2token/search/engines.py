"""The engine of an index, by name; the packages of the others are asked for when they are used."""

from __future__ import annotations

import os
from pathlib import Path

from text2token.search.embedded import EmbeddedEngine
from text2token.search.engine import Engine
from text2token.settings.search import EngineName
from text2token.utils.errors import extra


def open_engine(name: EngineName, folder: Path, uri: str | None, collection: str) -> Engine:
    """The engine of an index.

    Args:
        name: Which.
        folder: Of those that keep their vectors with the index.
        uri: Of Milvus: a server's, which may ask for the environment variable ``MILVUS_TOKEN`` (``user:password`` or an API key),
            or a file; None: a file with the index.
        collection: In Milvus.

    Raises:
        UserError: The engine's package is not installed.
    """
    if name == "embedded":
        return EmbeddedEngine(folder)
    with extra(name):
        if name == "seismic":
            from text2token.search.seismic import SeismicEngine

            return SeismicEngine(folder)
        from text2token.search.milvus import MilvusEngine
    folder.mkdir(parents=True, exist_ok=True)
    return MilvusEngine(uri or str(folder / "milvus.db"), collection, os.environ.get("MILVUS_TOKEN", ""))
