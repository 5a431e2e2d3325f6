"""The target store: targets in Parquet shards with a manifest of checksums.

A complete store is reused, an incomplete one is continued, and one with other checksums is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.embedder import Embedder
from text2token.model.tokens import count_tokens
from text2token.model.vocabulary import read_vocabulary
from text2token.targets.base import TargetBuilder, mass_beyond, texts_checksum
from text2token.targets.loss import pad_targets
from text2token.targets.teacher import Teacher
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write, read_json, write_json
from text2token.utils.processes import on_main, own_part, wait_for_all, world_size
from text2token.utils.progress import track
from text2token.utils.resume import explain_damage

_MANIFEST = "manifest.json"
_SHARD = (
    256  # texts per shard: half a minute of model-derived targets on a laptop, which is the most that a kill can lose
)


@dataclass(frozen=True)
class TargetStore:
    """A complete store with one row per text: ``text``, ``ids``, ``weights``, ``beyond``, and ``teacher`` if there is one.

    Attributes:
        path: The folder.
        manifest: Settings of builder and teacher, checksums, number of texts, and ``mass_beyond_text``, the mean share of target
            mass on tokens beyond the text.
    """

    path: Path
    manifest: dict[str, Any]

    @property
    def shards(self) -> list[Path]:
        """The Parquet files in order."""
        return sorted(self.path.glob("shard-*.parquet"))

    def tables(self) -> Iterator[pa.Table]:
        """All rows that have a target, one shard in memory at a time. Each table has at least one row.

        Raises:
            UserError: No row has a target.
        """
        empty = True
        for shard in self.shards:
            table = self._read(shard)
            table = table.filter(pc.greater(pc.list_value_length(table["ids"]), 0))
            if len(table):
                empty = False
                yield table
        if empty:
            raise UserError("No text has a target because every token is filtered out: raise `max_document_share`.")

    def padded(self) -> tuple[Tensor, Tensor]:
        """All targets as the two N×K tensors of the token target loss, for small stores."""
        table = pa.concat_tables(self._read(shard, "ids", "weights") for shard in self.shards)
        return pad_targets(table["ids"].to_pylist(), table["weights"].to_pylist())

    def teacher_vectors(self) -> Tensor:
        """All vectors of the teacher, N×t float16, for small stores that have one."""
        rows = (row for shard in self.shards for row in self._read(shard, "teacher")["teacher"].to_pylist())
        return torch.tensor(list(rows), dtype=torch.float16)

    def _read(self, shard: Path, *columns: str) -> pa.Table:
        with explain_damage(self.path):
            return pq.read_table(shard, columns=list(columns) or None)


def tokenizer_fingerprint(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the SHA-256 of the parts of a tokenizer that decide the ids of a text: not padding, truncation or template."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    parts = {key: state[key] for key in ("model", "normalizer", "pre_tokenizer", "added_tokens")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def build_store(
    path: Path,
    texts: Sequence[str],
    builder: TargetBuilder,
    embedder: Embedder,
    *,
    teacher: Teacher | None = None,
    progress: bool = False,
) -> TargetStore:
    """Build the targets of ``texts`` into ``path``, shard by shard. Several processes share out the shards.

    Args:
        path: Folder of the store. An incomplete store is continued, a complete one is returned unchanged.
        texts: The texts in a fixed order.
        builder: Builds the targets of a batch.
        embedder: Its tokenizer made the ids.
        teacher: Adds its vector of each text, t float16 numbers. None: no column.
        progress: Show texts/s and time left.

    Raises:
        UserError: The folder holds something else, or targets of another builder, other texts, another tokenizer or teacher.
    """
    wanted = {
        "settings": builder.settings,
        "corpus": texts_checksum(texts),
        "tokenizer": tokenizer_fingerprint(embedder.tokenizer),
        "texts": len(texts),
        "teacher": teacher and teacher.settings,
    }
    found = on_main(lambda: _manifest_of(path, wanted))
    if found.get("complete"):
        return TargetStore(path, found)
    if not found and world_size() > 1:
        on_main(lambda: _begin(path, wanted))
    groups = read_vocabulary(embedder.tokenizer, embedder.vocabulary_size, "none").surface_groups
    starts = range(0, len(texts), _SHARD)
    missing = on_main(lambda: [start for start in starts if not _shard(path, start).is_file()])
    for start in track(own_part(missing), "Targets", unit="texts", each=_SHARD * world_size(), enabled=progress):
        own = texts[start : start + _SHARD]
        shard = _build_shard(own, builder, embedder.tokenizer, groups)
        if teacher:
            shard = shard.append_column("teacher", _vectors(teacher(own, embedder.tokenizer)))
        if not (path / _MANIFEST).is_file():  # not earlier, so that settings which cannot work leave no folder behind
            _begin(path, wanted)
        with atomic_write(_shard(path, start)) as part:
            pq.write_table(shard, part)
    wait_for_all()
    return TargetStore(path, on_main(lambda: _complete(path, wanted, starts)))


def _begin(path: Path, wanted: dict[str, Any]) -> None:
    path.mkdir(parents=True, exist_ok=True)
    write_json(path / _MANIFEST, wanted)


def _complete(path: Path, wanted: dict[str, Any], starts: Sequence[int]) -> dict[str, Any]:
    """Write the manifest of a store that has all its shards, and return it."""
    with explain_damage(path):
        beyond = np.concatenate([pq.read_table(_shard(path, start), columns=["beyond"])["beyond"] for start in starts])
    manifest = wanted | {"complete": True, "mass_beyond_text": float(beyond.mean())}
    write_json(path / _MANIFEST, manifest)
    return manifest


def _manifest_of(path: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    """Read the manifest and compare it with the wanted one. Empty if there is no store yet."""
    file = path / _MANIFEST
    if not file.is_file():
        if path.exists() and (not path.is_dir() or any(other.name != f"{_MANIFEST}.part" for other in path.iterdir())):
            raise UserError(f"'{path}' exists and is not a target store: choose another folder.")
        return {}
    manifest: dict[str, Any] = read_json(file)
    different = [key for key, value in json.loads(json.dumps(wanted)).items() if manifest.get(key) != value]
    if different:
        raise UserError(
            f"The target store '{path}' was built with different {', '.join(different)}: choose another folder, or delete it."
        )
    return manifest


def _shard(path: Path, start: int) -> Path:
    return path / f"shard-{start // _SHARD:06d}.parquet"


def _build_shard(
    texts: Sequence[str], builder: TargetBuilder, tokenizer: PreTrainedTokenizerBase, groups: NDArray[np.int64]
) -> pa.Table:
    targets = builder(texts)
    literal = count_tokens(tokenizer, texts, len(groups), max_tokens=None)
    return pa.table(
        {
            "text": pa.array(texts, pa.string()),
            "ids": pa.array(targets.ids, pa.list_(pa.int32())),
            "weights": pa.array(targets.weights, pa.list_(pa.float32())),
            "beyond": pa.array(mass_beyond(targets, literal, groups), pa.float32()),
        }
    )


def _vectors(rows: NDArray[np.float16]) -> pa.FixedSizeListArray:
    """The rows of a matrix as a column."""
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])
