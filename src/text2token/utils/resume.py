"""Keep the result of a step in a file, so that an interrupted run does not repeat the step.

The ending of the file sets its format, and with it the type of the value:

==========  =========================================================
``.json``   anything that JSON holds
``.npy``    one :class:`torch.Tensor`; it is read back on the CPU
``.npz``    a dictionary of NumPy arrays and Python numbers, compressed
==========  =========================================================

``cached`` runs a step at most once. A step that goes on bit by bit reads its state with ``load`` and writes it with ``save``.
Another format (a folder of shards, a database) uses :func:`atomic_write` or :func:`atomic_folder` of ``utils.files`` itself.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from zipfile import BadZipFile

import numpy as np

from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write, write_json
from text2token.utils.processes import on_main

T = TypeVar("T")


def cached(file: Path, compute: Callable[[], T]) -> T:
    """Return the value in ``file``; if there is no such file, compute the value and write it first.

    The value is always read back from the file, so that a resumed run computes with exactly the same value as an
    uninterrupted one. Processes that may write the same file need a lock. The processes of one run call this together: all
    compute, the first one writes, and all read the file.

    Args:
        file: ``.json``, ``.npy`` or ``.npz``. Its folder is created.
        compute: Returns a value that the format can hold, see above.
    """
    if not on_main(file.is_file):
        value = compute()
        on_main(lambda: save(file, value))
    return load(file)


def save(file: Path, value: Any) -> None:
    """Write a value. ``file`` holds the old value until the new one is complete."""
    file.parent.mkdir(parents=True, exist_ok=True)
    _FORMATS[file.suffix].write(file, value)


def load(file: Path, default: Any = None) -> Any:
    """Read a value; return ``default`` if there is no such file.

    Raises:
        UserError: The file is damaged.
    """
    if not file.is_file():
        return default
    with explain_damage(file):
        return _FORMATS[file.suffix].read(file)


@contextmanager
def explain_damage(place: Path) -> Iterator[None]:
    """Turn the errors of a damaged file, which a power failure can leave, into one sentence.

    Args:
        place: The file, or the folder that holds it, which is made again if it is deleted.

    Raises:
        UserError: The block met a damaged file.
    """
    try:
        yield
    except (OSError, ValueError, EOFError, BadZipFile) as error:  # those of Arrow are among them
        if isinstance(error, UserError) or (isinstance(error, OSError) and error.filename):
            raise  # the latter: the file is gone, or may not be read
        raise UserError(f"'{place}' is damaged: delete it and repeat the command, which makes it again.") from error


class _Format(NamedTuple):
    write: Callable[[Path, Any], None]
    read: Callable[[Path], Any]


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _write_tensor(file: Path, tensor: Any) -> None:
    with atomic_write(file) as part, part.open("wb") as stream:
        np.save(stream, tensor.numpy())


def _read_tensor(file: Path) -> Any:
    import torch  # takes a second, which most users of this module need not wait for

    return torch.from_numpy(np.load(file))


def _write_arrays(file: Path, arrays: Any) -> None:
    with atomic_write(file) as part, part.open("wb") as stream:
        np.savez_compressed(stream, **arrays)


def _read_arrays(file: Path) -> dict[str, Any]:
    with np.load(file) as arrays:
        return {name: array if array.ndim else array.item() for name, array in arrays.items()}


_FORMATS = {
    ".json": _Format(write_json, _read_json),
    ".npy": _Format(_write_tensor, _read_tensor),
    ".npz": _Format(_write_arrays, _read_arrays),
}
