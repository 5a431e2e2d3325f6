"""Encode a corpus in shards. A finished file is the checkpoint: a stopped process loses at most the shard that it was at."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from more_itertools import countable
from scipy.sparse import csr_array

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.model.names import from_anywhere
from text2token.model.tokens import untruncated
from text2token.search.batches import Batch, Embedded
from text2token.search.documents import Columns, check_source, checked_documents, read_rows
from text2token.search.encoder import TextEncoder
from text2token.search.index_model import check_indexable
from text2token.search.shards.record import (
    ShardRecord,
    corpus_size,
    document_bytes,
    read_record,
    write_record,
)
from text2token.search.shards.table import table_bytes
from text2token.search.vectors import raw_counts
from text2token.settings.choices import Precision
from text2token.utils.errors import UserError, check_count
from text2token.utils.places import absolute_place, check_folder_writable, check_outside, write_whole
from text2token.utils.progress import track


@dataclass(frozen=True)
class ShardJob:
    """A corpus to encode in shards. It can be sent to other processes.

    Attributes:
        model: Any model that :meth:`text2token.Embedder.open` opens.
        source: The documents, see :func:`text2token.search.read_documents`; a path of :func:`text2token.utils.places.open_place`.
        folder: Folder of the shards, here or on an object store.
        shards: Number of shards. Shard ``i`` of N holds the rows from ``i``·R/N to ``(i+1)``·R/N of the corpus, R rows in all.
        encoder: How an untrained backbone is used: keyword arguments of :meth:`text2token.Embedder.open`.
        columns: Columns of the table that the documents come from.
        batch_size: Size of a batch in texts of 128 tokens.
        precision: See :meth:`text2token.Embedder.use_precision`. Where shards in fp32 are there already, ``auto`` is fp32.
        strict: Refuse a document without text instead of skipping it.
    """

    model: str
    source: Path
    folder: Path
    shards: int
    encoder: Mapping[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)
    batch_size: int = 32
    precision: Precision = "fp32"
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "model", from_anywhere(str(self.model)))
        for name in ("source", "folder"):  # strings are places, too
            object.__setattr__(self, name, absolute_place(getattr(self, name)))
        check_count("shards", self.shards)
        check_count("batch_size", self.batch_size)


class ShardEncoder:
    """A model that encodes shards of one corpus.

    The first process reads the whole corpus once, checks its documents and writes the record. The others compare their model,
    settings and corpus with it.

    Args:
        job: What to encode.

    Attributes:
        record: The record of the folder.

    Raises:
        UserError: The model or the corpus cannot be used, the folder cannot be written, or it holds shards of another model or
            corpus, or in another number.
    """

    def __init__(self, job: ShardJob) -> None:
        self._job = job
        check_outside(job.folder, job.source)
        check_folder_writable(job.folder)
        read_record(job.folder)  # refuses a folder with something else before the model is opened
        self._embedder = _open(job)
        self._encoder = TextEncoder(self._embedder, "document")
        self._tokenizer = untruncated(self._embedder.tokenizer)
        self.record = self._agreed_record()

    def missing(self) -> list[int]:
        """Return the shards that have no file yet."""
        return self.record.missing(self._job.folder)

    def encode_if_missing(self, shard: int, *, progress: bool = False) -> int:
        """Encode a shard that has no file yet, and write its file. Returns the number of encoded documents.

        Args:
            shard: Its number, from 0.
            progress: Show a progress bar.

        Raises:
            UserError: There is no shard of that number.
        """
        if not 0 <= shard < self.record.shards:
            raise UserError(f"There is no shard {shard}: the shards have the numbers 0 to {self.record.shards - 1}.")
        file = self._job.folder / self.record.file_name(shard)
        if file.exists():
            return 0
        rows = self.record.row_range(shard)
        read = islice(read_rows(self._job.source, self._job.columns, rows.start), len(rows))
        documents = [document for _, document in read if document.content]
        texts = [document.content for document in documents]
        embedded = Embedded(*self._encoder.embed(texts, progress=progress))
        content = table_bytes(Batch(documents, self._count(texts), embedded), self.record.shard_facts(shard))
        write_whole(file, content)
        return len(documents)

    def _count(self, texts: Sequence[str]) -> csr_array:
        """Literal tokens of texts, N×V; without a decoding head there are none to count."""
        if not self.record.vocabulary:
            return csr_array((len(texts), 1))
        return raw_counts(self._tokenizer, texts, self.record.vocabulary)

    def _agreed_record(self) -> ShardRecord:
        """The record that is there, if it agrees with the job, or else a new one."""
        job, embedder = self._job, self._embedder
        check_source(job.source)
        there = read_record(job.folder)
        if job.precision == "auto" and there is not None and there.precision == "fp32":
            embedder.use_precision("fp32")  # another process began, perhaps on other hardware
        wanted = {
            "shards": job.shards,
            "fingerprint": embedder_fingerprint(embedder, corrected=False),
            "precision": embedder.precision,
            "columns": job.columns,
            "corpus_bytes": corpus_size(job.source),
        }
        if there is None:
            there = ShardRecord(
                model=job.model,
                encoder=dict(job.encoder),
                dimension=embedder.encoder.get_embedding_dimension(),
                vocabulary=0 if embedder.head is None else embedder.vocabulary_size,
                **_read_corpus(job),
                **wanted,
            )
            write_record(job.folder, there)
        there.check_same(job.folder, wanted)
        return there


def encode_shards(job: ShardJob, *, shard: int | None = None, progress: bool = False) -> int:
    """Encode one shard, or all that have no file yet. Returns the number of documents that were encoded.

    Args:
        job: What to encode.
        shard: Number of the shard, from 0; it is not encoded again if it has a file. None: all shards.
        progress: Show progress bars.

    Raises:
        UserError: See :class:`ShardEncoder`; or there is no such shard.
    """
    encoder = ShardEncoder(job)
    if shard is not None:
        return encoder.encode_if_missing(shard, progress=progress)
    missing = encoder.missing()
    return sum(
        encoder.encode_if_missing(number, progress=progress)
        for number in track(missing, "Shards", unit="shards", enabled=progress)
    )


def _open(job: ShardJob) -> Embedder:
    embedder = Embedder.open(job.model, **job.encoder)
    check_indexable(embedder, job.model)
    embedder.batch_size = job.batch_size
    embedder.use_precision(job.precision)
    return embedder


def _read_corpus(job: ShardJob) -> dict[str, Any]:
    """Read a corpus once: check its documents, count them, and hash them."""
    rows = countable(read_rows(job.source, job.columns))
    digest, documents = hashlib.sha256(), 0
    for document in checked_documents(rows, job.source, strict=job.strict):
        digest.update(document_bytes(document))
        documents += 1
    if rows.items_seen < job.shards:
        raise UserError(
            f"The corpus has {rows.items_seen} rows, too few for {job.shards} shards: set `shards` to fewer."
        )
    return {"rows": rows.items_seen, "documents": documents, "corpus": digest.hexdigest()}
