"""The rows of a training stage in an Arrow file. The training reads each row from the disk when it needs it.

The file is not mapped into memory: a mapped page that was read counts as memory of the process, and soon all of them were read.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from more_itertools import chunked, spy
from numpy.typing import NDArray
from torch.utils.data import Dataset
from transformers import PreTrainedTokenizerBase

from text2token.utils.files import atomic_write
from text2token.utils.resume import explain_damage

_BLOCK = 16  # rows that are read together: some kilobytes
_PART = 1024  # texts tokenised at once: enough for all threads of the tokenizer, little memory


class Rows(Dataset[dict[str, Any]]):
    """The rows of a file that :func:`write_rows` wrote, in the same order.

    Attributes:
        lengths: Number of tokens of each of N texts.
    """

    def __init__(self, file: Path) -> None:
        with explain_damage(file):
            self._blocks = pa.ipc.open_file(pa.OSFile(str(file)))
            lengths = [_lengths(self._blocks.get_batch(number)) for number in range(self._blocks.num_record_batches)]
        self.lengths = np.concatenate(lengths)
        self._ends = np.cumsum([len(block) for block in lengths])

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> dict[str, Any]:
        number = int(np.searchsorted(self._ends, row, side="right"))
        block = self._blocks.get_batch(number)
        return block.slice(row - int(self._ends[number]) + len(block), 1).to_pylist()[0]


def write_rows(tables: Iterable[pa.Table], file: Path) -> None:
    """Write one or more tables with equal columns, one table in memory at a time. A file that exists is left as it is."""
    if file.is_file():
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    [first], tables = spy(tables)
    with atomic_write(file) as part, pa.ipc.new_file(str(part), first.schema) as writer:
        for table in tables:
            writer.write_table(table, max_chunksize=_BLOCK)


def text_tables(texts: Sequence[str]) -> Iterator[pa.Table]:
    """Tables of texts for an objective that needs no other column."""
    for part in chunked(texts, _PART):
        yield pa.table({"text": part})


def with_token_ids(table: pa.Table, tokenizer: PreTrainedTokenizerBase, max_length: int, prompt: str = "") -> pa.Table:
    """Replace the column ``text`` by ``input_ids``, the token ids of each text, template included.

    Args:
        table: At least one row.
        tokenizer: The backbone's tokenizer with its template.
        max_length: A text is cut at this many tokens.
        prompt: Text before each text, inside the template.
    """
    ids = tokenizer([prompt + text for text in table["text"].to_pylist()], truncation=True, max_length=max_length)[
        "input_ids"
    ]
    return table.drop_columns("text").append_column("input_ids", pa.array(ids, pa.list_(pa.int32())))


def _lengths(block: pa.RecordBatch) -> NDArray[np.int32]:
    return pc.list_value_length(block["input_ids"]).to_numpy()
