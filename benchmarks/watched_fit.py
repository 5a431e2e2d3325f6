"""``text2token`` in float32, with a record of what each process trains on, for comparisons of several processes with one.

Environment: ``WATCH`` is a folder for the token ids of all batches (``batches-RANK.jsonl``) and for the adapters of each stage.
``KILL=RANK,STEP`` kills a process when it saves the checkpoint of a step. With ``PRECISION=own`` it
trains in the precision of the machine.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate.state import AcceleratorState, DistributedType, PartialState
from transformers import Trainer

from text2token.cli import main
from text2token.model import precision
from text2token.training import trainer
from text2token.training.callbacks import CheckpointIntegrity
from text2token.training.objective import TokenTargets
from text2token.utils.processes import rank, splits_weights


def watch(folder: Path, kill: str) -> None:
    """Record the training of this process in ``folder``."""
    folder.mkdir(exist_ok=True)

    def collate(inner: Callable[..., Any], self: TokenTargets, rows: Any, pad: int) -> Any:
        with (folder / f"batches-{rank()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps([" ".join(map(str, row["input_ids"])) for row in rows]) + "\n")
        return inner(self, rows, pad)

    def save_final(inner: Callable[..., Any], body: Any, weights: Any, log: Any, final: Path) -> None:
        inner(body, weights, log, final)
        shutil.copytree(final, folder / final.parent.name)

    def on_save(inner: Callable[..., Any], self: Any, args: Any, state: Any, control: Any, **more: Any) -> None:
        if kill == f"{rank()},{state.global_step}":
            os.kill(os.getpid(), signal.SIGKILL)
        inner(self, args, state, control, **more)

    def state(inner: Callable[..., Any], self: AcceleratorState, *arguments: Any, **more: Any) -> None:
        """On CPUs accelerate ignores FSDP and trains with DDP, so it is told that this is a GPU while it decides."""
        if PartialState(cpu=True).distributed_type == DistributedType.MULTI_CPU:
            PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
        inner(self, *arguments, **more)

    def train(inner: Callable[..., Any], self: Trainer, *arguments: Any, **more: Any) -> None:
        inner(self, *arguments, **more)
        kinds = sorted({type(parameter).__name__ for parameter in self.model.parameters()})
        (folder / f"parameters-{rank()}.json").write_text(json.dumps(kinds))

    if splits_weights():
        AcceleratorState.__init__ = _around(AcceleratorState.__init__, state)
    for owner, name, around in (
        (Trainer, "train", train),
        (TokenTargets, "collate", collate),
        (trainer, "_save_final", save_final),
        (CheckpointIntegrity, "on_save", on_save),
    ):
        setattr(owner, name, _around(getattr(owner, name), around))


def _around(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments, **more: outer(inner, *arguments, **more)


if __name__ == "__main__":
    if os.environ.get("PRECISION") != "own":
        precision.has_bf16 = lambda *_: False
    watch(Path(os.environ["WATCH"]), os.environ.get("KILL", ""))
    main(prog_name="text2token")
