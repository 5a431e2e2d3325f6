"""The record of a folder of shards: what was encoded, how, and in how many parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from text2token.search.documents import Columns, Document, document_files
from text2token.settings.choices import NumberFormat
from text2token.settings.templates import Template
from text2token.utils.errors import UserError, first_line
from text2token.utils.places import explain_unreachable, write_whole

FORMAT = 1
_FILE = "shards.json"
_COMPARED = {
    "fingerprint": "another model",
    "precision": "another precision",
    "columns": "other columns",
    "corpus_bytes": "another corpus",
}
"""What a repeated command must have in common with the first one, and the words for it."""


class ShardRecord(BaseModel):
    """What all shards of a folder have in common. The first process writes it, and the others check it.

    Attributes:
        format: Version of the format.
        model: Where the model was.
        encoder: Keyword arguments of :meth:`text2token.Embedder.open` for an untrained backbone.
        fingerprint: SHA-256 of the model, as an index keeps it.
        precision: Precision of the matrix products.
        dimension: d, numbers in an embedding.
        vocabulary: V, rows of the decoding head; 0 if the model has none.
        columns: Columns of the table that the documents come from.
        corpus_bytes: Size of the files of the corpus.
        corpus: SHA-256 of the documents in order; see :func:`document_bytes`.
        documents: Number of documents, all with text.
        rows: Number of rows or text files, also those without text.
        shards: Number of shards.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    model: str
    encoder: dict[str, Any]
    fingerprint: str
    precision: NumberFormat
    dimension: int
    vocabulary: int
    columns: Columns
    corpus_bytes: int
    corpus: str
    documents: int
    rows: int
    shards: int

    def row_range(self, shard: int) -> range:
        """Rows of a shard: the corpus is cut into ranges of equal length, up to one row."""
        return range(self.rows * shard // self.shards, self.rows * (shard + 1) // self.shards)

    def file_name(self, shard: int) -> str:
        """Name of the file of a shard."""
        return f"shard-{shard:05}-of-{self.shards:05}.parquet"

    def missing(self, folder: Path) -> list[int]:
        """Shards that have no file yet."""
        with explain_unreachable(folder):
            there = {file.name for file in folder.iterdir()}
        return [shard for shard in range(self.shards) if self.file_name(shard) not in there]

    def shard_facts(self, shard: int) -> dict[str, Any]:
        """What the file of a shard says about itself."""
        return {"shard": shard, **self.model_dump(include={"format", "shards", "fingerprint", "precision", "corpus"})}

    def check_same(self, folder: Path, wanted: dict[str, Any]) -> None:
        """Check that the shards in a folder are those that a command wants to encode.

        Raises:
            UserError: One of the values differs.
        """
        if wanted["shards"] != self.shards:
            raise UserError(
                f"'{folder}' holds a corpus in {self.shards} shards, not in {wanted['shards']}: set `shards` to {self.shards}, "
                "or choose another folder."
            )
        for name, words in _COMPARED.items():
            if wanted[name] != getattr(self, name):
                raise UserError(
                    f"'{folder}' holds shards of {words}: repeat the command that began them, or choose another folder."
                )


def read_record(folder: Path) -> ShardRecord | None:
    """Read the record of a folder; None if the folder is empty or not there.

    Raises:
        UserError: The record is damaged or of a later version, or the folder holds something else.
    """
    with explain_unreachable(folder):
        if not (folder / _FILE).is_file():
            if folder.is_file() or (
                folder.is_dir() and any(not file.name.startswith(".") for file in folder.iterdir())
            ):
                raise UserError(f"'{folder}' holds something else than shards: choose a new folder.")
            return None
        content = (folder / _FILE).read_bytes()
    try:
        stored = json.loads(content)
        if stored["format"] > FORMAT:
            raise UserError(f"The shards in '{folder}' are of a later version of text2token: update this one.")
        if isinstance(stored["encoder"].get("template"), dict):
            stored["encoder"]["template"] = Template(**stored["encoder"]["template"])
        return ShardRecord(**stored)
    except UserError:
        raise
    except (ValidationError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"'{folder / _FILE}' is damaged ({first_line(error)}): encode the corpus again.") from error


def write_record(folder: Path, record: ShardRecord) -> None:
    """Write the record of a folder, which is made if it does not exist."""
    with explain_unreachable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        write_whole(folder / _FILE, record.model_dump_json(indent=1).encode())


def document_bytes(document: Document) -> bytes:
    """Return what a document adds to the fingerprint of its corpus, a SHA-256 of all documents in order."""
    return json.dumps([document.id, document.title, document.text, dict(document.metadata)]).encode() + b"\n"


def corpus_size(source: Path) -> int:
    """Return the bytes of the files of a corpus, a quick sign that it has changed."""
    with explain_unreachable(source):
        return sum(file.stat().st_size for file in document_files(source))
