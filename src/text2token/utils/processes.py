"""A run on several processes, which ``torchrun`` or ``accelerate launch`` has started.

The first process, rank 0, owns what the run reads and writes: corpus, locks, folders, reports. The others wait for it. In a
single process every function here is a plain call.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from accelerate import PartialState
    from torch import Tensor

T = TypeVar("T")

# The others may wait that long for rank 0, which counts the tokens of the whole corpus. A process that dies does not cost
# this time, because its launcher ends the others.
_TIMEOUT = timedelta(days=7)


def world_size() -> int:
    """The number of processes, on all machines together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if world_size() > 1 else 0


def local_rank() -> int:
    """The number of this process on its machine, from 0."""
    return int(os.environ.get("LOCAL_RANK", "0")) if world_size() > 1 else 0


def is_main() -> bool:
    """Whether this is the process that writes files and talks to the user."""
    return rank() == 0


def require_one_process(verb: str) -> None:
    """Refuse a step that several processes cannot share.

    Raises:
        UserError: There are several processes.
    """
    if world_size() > 1:
        raise UserError(f"'{verb}' runs in one process: start it without torchrun or accelerate launch.")


def on_main(compute: Callable[[], T]) -> T:
    """Compute a value in rank 0 and return it in all processes. All must call this, and ``compute`` must not call it again.

    Args:
        compute: Returns a value that can be pickled.

    Raises:
        Exception: The error of ``compute``, in rank 0.
        UserError: The same message, in the other processes.
    """
    if world_size() == 1:
        return compute()
    error: Exception | None = None
    outcome: list[Any] = [None, None]
    if is_main():
        try:
            outcome = [compute(), None]
        except Exception as caught:
            error, outcome = caught, [None, str(caught)]
    value, message = _broadcast(outcome)
    if error:
        raise error
    if message is not None:
        raise UserError(message)
    return value


def own_part(items: Sequence[T]) -> Sequence[T]:
    """Return every N-th item, so that the N processes share out all of them."""
    return items[rank() :: world_size()]


def share_rows(texts: Sequence[str], compute: Callable[[Sequence[str]], Tensor]) -> Tensor:
    """Compute one row for each text, each process those of its part, and return all rows in all processes.

    Args:
        texts: N texts, the same in all processes.
        compute: Maps n texts to n rows on the CPU.
    """
    if world_size() == 1:
        return compute(texts)
    import torch
    from accelerate.utils import gather_object

    started()
    parts: list[Tensor] = gather_object([compute(own_part(texts))])
    rows = torch.empty(len(texts), *parts[0].shape[1:])
    for first, part in enumerate(parts):
        rows[first :: world_size()] = part
    return rows


def wait_for_all() -> None:
    """Return when all processes have come here."""
    if world_size() > 1:
        started().wait_for_everyone()


def on_cpu() -> bool:
    """Whether several processes train on CPUs, which accelerate must be told."""
    import torch

    return world_size() > 1 and not torch.accelerator.is_available()


def splits_weights() -> bool:
    """Whether ``accelerate launch`` was told to split the weights over the processes (FSDP).

    Raises:
        UserError: It was told to use the first version of FSDP, which replaces the parameters of a model by flat ones.
    """
    if world_size() == 1 or os.environ.get("ACCELERATE_USE_FSDP", "").lower() != "true":
        return False
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise UserError("Only version 2 of FSDP works here: launch with --fsdp_version 2.")
    return True


def started() -> PartialState:
    """The group of the processes. The first call starts it."""
    from accelerate import PartialState

    return PartialState(cpu=on_cpu(), timeout=_TIMEOUT)


def end() -> None:
    """Leave the group of the processes, if this one has started it. At exit its threads could abort the process."""
    if world_size() > 1:
        import torch.distributed

        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()


def _broadcast(values: list[Any]) -> list[Any]:
    from accelerate.utils import broadcast_object_list

    started()
    sent: list[Any] = broadcast_object_list(values)
    return sent
