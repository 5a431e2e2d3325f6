"""Read encoded shards: their documents with token counts, and their embeddings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.search.batches import Batch
from text2token.search.index_model import open_model
from text2token.search.shards.record import ShardRecord, document_bytes, read_record
from text2token.search.shards.table import read_batches, read_facts
from text2token.utils.errors import UserError
from text2token.utils.places import absolute_place

_LISTED = 10  # missing shards that a message names


@dataclass(frozen=True)
class EncodedShards:
    """All shards of a corpus.

    Attributes:
        folder: Where they are, here or on an object store.
        record: What they have in common.
    """

    folder: Path
    record: ShardRecord

    @classmethod
    def open(cls, folder: str | Path) -> EncodedShards:
        """Open a folder of shards.

        Raises:
            UserError: There is no such folder, or a shard is missing.
        """
        folder = absolute_place(folder)
        record = read_record(folder)
        if record is None:
            raise UserError(f"There are no shards in '{folder}': make some with 'text2token encode … --shards'.")
        if missing := record.missing(folder):
            numbers = ", ".join(map(str, missing[:_LISTED])) + (", …" if len(missing) > _LISTED else "")
            raise UserError(
                f"{len(missing)} of the {record.shards} shards in '{folder}' are missing (numbers {numbers}): "
                "repeat the command that encodes them."
            )
        return cls(folder, record)

    def open_model(self, name: str | None = None) -> Embedder:
        """Open the model of the shards.

        Args:
            name: Where it is now; None: where it was when the shards were encoded.

        Raises:
            UserError: It cannot be opened, or it is another model.
        """
        embedder = open_model(name or self.record.model, self.record.encoder, f"shards in '{self.folder}'")
        self.check_model(embedder_fingerprint(embedder, corrected=False))
        return embedder

    def check_model(self, fingerprint: str) -> None:
        """Check that the shards are of a model.

        Raises:
            UserError: They are of another one.
        """
        if fingerprint != self.record.fingerprint:
            raise UserError(
                f"The shards in '{self.folder}' were encoded by another model: name the right one, or encode them again."
            )

    def documents(self, size: int) -> Iterator[Batch]:
        """Yield all documents with their token counts, in the order of the corpus.

        Args:
            size: Documents in a batch.

        Raises:
            UserError: A shard is damaged or of another corpus, or at the end: the documents are not those of the corpus.
        """
        digest = hashlib.sha256()
        for file in self._files():
            for batch in read_batches(file, size, self._width, None):
                for document in batch.documents:
                    digest.update(document_bytes(document))
                yield batch
        if digest.hexdigest() != self.record.corpus:
            raise UserError(
                f"The shards in '{self.folder}' do not hold the documents of their corpus, so it has changed while they were "
                "encoded: encode it again in another folder."
            )

    def batches(self, size: int) -> Iterator[Batch]:
        """Yield all documents with token counts and embeddings; arguments and errors are those of :meth:`documents`."""
        for file in self._files():
            yield from read_batches(file, size, self._width, self.record.dimension)

    @property
    def _width(self) -> int:
        return max(self.record.vocabulary, 1)

    def _files(self) -> Iterator[Path]:
        for shard in range(self.record.shards):
            file = self.folder / self.record.file_name(shard)
            if read_facts(file) != self.record.shard_facts(shard):
                raise UserError(f"'{file}' is of another model or corpus: delete it and encode shard {shard} again.")
            yield file
