"""An engine for millions of documents on one machine: approximate search of sparse vectors with Seismic."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from more_itertools import chunked
from scipy.sparse import csr_array
from seismic import SeismicDatasetLV, SeismicIndexLV, get_seismic_string

from text2token.search.engines.base import Matrix, ScoredId, best
from text2token.search.filters import Filter, Metadata
from text2token.settings.search import FieldName
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write
from text2token.utils.progress import step

_AT_ONCE = 10_000  # documents in memory, with some kilobytes each
_TOGETHER = 64  # entries of the log that become one group of rows
_HEAP_FACTOR = 0.8  # of Seismic's examples: above 1, blocks that may hold a hit are passed over, and recall falls


class SeismicEngine:
    """Sparse and BM25 fields, each in a Seismic index (Bruch et al., SIGIR 2024); see
    :class:`text2token.search.engines.base.Engine`.

    A Seismic index never changes once it is built. So the folder keeps a log of what was added and deleted, one Parquet file
    per call. :meth:`finish` makes of it one file of the documents that are left, and builds the indexes, as the first search
    after a change does: updates are cheap, builds are not (milliseconds of one core per document).

    What differs from the protocol: there is no dense field; a search is approximate and may miss a hit; weights are kept with 16
    bits, so that scores are right to three digits, and equal ones may not stay equal.
    """

    def __init__(self, folder: Path, *, summary_energy: float = 0.4) -> None:
        """Open the engine in a folder; the first :meth:`add` makes it, if it is not there.

        Args:
            folder: Where the log and the indexes are.
            summary_energy: Share of a block's weight that its summary keeps, in builds to come; the default is Seismic's. With 1
                nothing is missed where a posting list has less than some 5,000 documents, for a larger index.
        """
        self._folder = folder
        self._summary_energy = summary_energy
        self._log = self._listed()
        self._indexes: dict[str, SeismicIndexLV] = {}

    def add(
        self, ids: Sequence[str], vectors: Mapping[FieldName, Matrix], metadata: Sequence[Metadata] | None = None
    ) -> None:
        """See the protocol.

        Raises:
            UserError: There is a dense field, or not the fields of the documents added before.
        """
        if "dense" in vectors:
            raise UserError("Seismic holds sparse vectors only: leave the dense field out, or choose another engine.")
        if self._log and vectors.keys() != self._columns().keys():
            raise UserError(
                f"The index '{self._folder}' holds {_listed(self._columns())}, not {_listed(vectors)}: choose another one."
            )
        columns = {field: str(rows.shape[1]) for field, rows in vectors.items()}
        arrays = [pa.array(ids, pa.string()), *(_lists(rows) for rows in vectors.values())]
        self._append(pa.table(arrays, ["id", *vectors]).replace_schema_metadata(columns))

    def delete(self, ids: Sequence[str]) -> None:
        """See the protocol."""
        if there := sorted(self._documents().keys() & set(ids)):
            self._append(pa.table({"id": pa.array(there, pa.string())}))

    def finish(self) -> None:
        """Make the log one file, build the indexes where documents have changed, and clear those of before away."""
        if not self._log:
            return
        if len(self._log) > 1:
            self._compact()
        self._open_indexes()
        for folder in self._folder.glob("index-*"):
            if folder != self._built():
                shutil.rmtree(folder)

    def search(self, field: FieldName, query: Matrix, k: int, filters: Sequence[Filter] = ()) -> list[ScoredId]:
        """See the protocol, and the class for what differs; builds the indexes first where documents have changed.

        Raises:
            UserError: The documents have no such field.
        """
        if filters:
            raise UserError("The engine seismic cannot filter: make the index with another `engine`.")
        if not self._log:
            return []
        if not self._indexes:
            self._open_indexes()
        if field not in self._indexes:
            raise UserError(f"The index '{self._folder}' has no {field} field, only {_listed(self._indexes)}.")
        return _ranking(self._indexes[field], query, k)

    def count(self) -> int:
        """See the protocol."""
        return len(self._documents())

    def _append(self, entry: pa.Table) -> None:
        file = self._next()
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as part:
            pq.write_table(entry, part)
        self._log.append(file)
        self._indexes = {}

    def _compact(self) -> None:
        """Add all documents that are left once more, then clear the entries before away: oldest first, so that whenever this
        is cut off, no document is left without its deletion.
        """
        schema = self._schema()
        file = self._next()
        with atomic_write(file) as part, pq.ParquetWriter(part, schema) as writer:
            for entries in chunked(self._left(), _TOGETHER):
                writer.write_table(pa.concat_tables(entries).replace_schema_metadata(schema.metadata))
        for old in self._log:
            old.unlink()
        self._log = [file]

    def _listed(self) -> list[Path]:
        return sorted((self._folder / "log").glob("*.parquet"))

    def _next(self) -> Path:
        number = int(self._log[-1].stem) + 1 if self._log else 0
        return self._folder / "log" / f"{number:08}.parquet"

    def _schema(self) -> pa.Schema:
        """Of the last addition; those of deletions know no fields."""
        return next(schema for file in self._log[::-1] if (schema := pq.read_schema(file)).metadata)

    def _columns(self) -> dict[FieldName, int]:
        """Sides, and the dimensions of each."""
        return {field.decode(): int(columns) for field, columns in self._schema().metadata.items()}

    def _documents(self) -> dict[str, tuple[int, int]]:
        """Where in the log the vectors of each document are: entry and row."""
        found: dict[str, tuple[int, int]] = {}
        for number, file in enumerate(self._log):
            deletes = pq.read_schema(file).names == ["id"]
            for row, document in enumerate(pq.read_table(file, columns=["id"])["id"].to_pylist()):
                found.pop(document, None)
                if not deletes:
                    found[document] = number, row
        return found

    def _open_indexes(self) -> None:
        """Load the indexes of the whole log, which are built if the log has grown."""
        if not self._built().is_dir():
            self._log = self._listed()  # which another process may have written anew
        folder = self._built()
        if not folder.is_dir():
            self._build(folder)
        with _standard_output_closed():
            self._indexes = {
                field: SeismicIndexLV.load(str(folder / f"{field}.index.seismic")) for field in self._columns()
            }

    def _build(self, folder: Path) -> None:
        with TemporaryDirectory(prefix="index-", dir=self._folder, ignore_cleanup_errors=True) as part:
            new = Path(part) / folder.name
            new.mkdir()
            with step("building the Seismic indexes"), _standard_output_closed():
                for field, dataset in self._datasets().items():
                    index = SeismicIndexLV.build_from_dataset(dataset, summary_energy=self._summary_energy)
                    index.save(str(new / field))
            try:
                new.rename(folder)
            except OSError:
                if not folder.is_dir():  # where it is, another process was faster
                    raise

    def _built(self) -> Path:
        """Where the indexes of the whole log are, once they are whole."""
        return self._folder / f"index-{self._log[-1].stem}"

    def _datasets(self) -> dict[FieldName, SeismicDatasetLV]:
        """The documents that are left, as Seismic takes them."""
        datasets = {field: SeismicDatasetLV(columns) for field, columns in self._columns().items()}
        for left in self._left():
            for field, dataset in datasets.items():
                lists = left[field].combine_chunks()
                dataset.add_documents_by_id(
                    left["id"].to_pylist(),
                    lists.values.field("token").to_numpy().astype(np.int64),
                    lists.values.field("weight").to_numpy(),
                    lists.offsets.to_numpy().astype(np.int64),
                )
        return datasets

    def _left(self) -> Iterator[pa.Table]:
        """The documents that are left, some at a time."""
        documents = self._documents()
        for number, file in enumerate(self._log):
            if pq.read_schema(file).metadata is None:
                continue
            row = 0
            with pq.ParquetFile(file) as opened:
                for batch in opened.iter_batches(_AT_ONCE):
                    table = pa.Table.from_batches([batch])
                    places = enumerate(table["id"].to_pylist(), row)
                    living = [place - row for place, name in places if documents.get(name) == (number, place)]
                    row += len(table)
                    yield table.take(pa.array(living, pa.int64()))


def _lists(rows: Any) -> pa.ListArray:
    canonical = csr_array(rows, copy=True)
    canonical.sum_duplicates()
    canonical.eliminate_zeros()
    pairs = pa.StructArray.from_arrays([canonical.indices, canonical.data.astype(np.float32)], ["token", "weight"])
    return pa.ListArray.from_arrays(canonical.indptr.astype(np.int32), pairs)


def _ranking(index: SeismicIndexLV, query: Any, k: int) -> list[ScoredId]:
    known = query.indices < index.dim  # Seismic panics at others
    tokens, weights = query.indices[known].astype(get_seismic_string()), query.data[known].astype(np.float32)
    if not len(tokens) or not index.len:
        return []
    found = index.search("", tokens, weights, k=min(k, index.len), query_cut=len(tokens), heap_factor=_HEAP_FACTOR)
    return best([ScoredId(document, score) for _, score, document in found], k)


def _listed(fields: Iterable[str]) -> str:
    return " and ".join(sorted(fields))


@contextmanager
def _standard_output_closed() -> Iterator[None]:
    """Seismic reports its steps there, where our results go."""
    sys.stdout.flush()
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)
