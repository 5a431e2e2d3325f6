"""Compare training on two processes with training on one: the same texts in each step, and so the same adapters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from runner import as_options
from speed_training import save_tiny

COMMAND = Path(__file__).with_name("watched_fit.py")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2")
SETTINGS = {
    "max_texts": 704,  # two stages of 22 steps with 16 texts each
    "stage_1": 0.5,
    "held_out": 16,
    "learning_rate": 3e-3,
    "calibration_texts": 40,
    "prior_texts": 20,
    "train_length": 40,
}
_WORDS = (
    "river", "engine", "galaxy", "market", "garden", "lentil", "copper", "violin", "harvest", "compass", "lantern", "treaty",
)  # fmt: skip


def start(launcher: tuple[str, ...], output: Path, settings: dict[str, Any], corpus: Path, **environment: str) -> Any:
    """Run ``fit`` and return the finished process. What it trained on is recorded beside ``output``, see :func:`watched`."""
    return subprocess.run(
        [*launcher, str(COMMAND), "fit", str(corpus), "--output", str(output), *as_options(settings)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "WATCH": str(watched(output)), **environment},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def watched(output: Path) -> Path:
    """The folder of the record of a run."""
    return output.with_name(f"{output.name}-watched")


def adapters(output: Path) -> dict[str, Tensor]:
    """The LoRA matrices of a run after each of its stages."""
    files = sorted(watched(output).glob("stage-*/adapter_model.safetensors"))
    return {f"{file.parent.name}.{name}": tensor for file in files for name, tensor in load_file(file).items()}


def batches(output: Path, rank: int = 0) -> list[list[str]]:
    """The batches that a process trained on, in order. Held-out texts are read at every evaluation, and left out here."""
    read = [json.loads(line) for line in (watched(output) / f"batches-{rank}.jsonl").read_text().splitlines()]
    counts: dict[str, int] = {}
    for text in (text for batch in read for text in batch):
        counts[text] = counts.get(text, 0) + 1
    return [batch for batch in read if all(counts[text] == 1 for text in batch)]


def largest_difference(first: dict[str, Tensor], second: dict[str, Tensor]) -> float:
    """The largest difference of two sets of matrices with the same names."""
    if first.keys() != second.keys():
        raise ValueError(f"the matrices differ in name: {sorted(first.keys() ^ second.keys())}")
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def measure() -> dict[str, Any]:
    """Train a random model of two layers on one process and on two.

    Returns:
        ``figures``: ``ddp_equal_max_abs``, the largest difference of the adapters. ``details``: steps, how far the adapters
        moved from where they started, and whether each step had the same texts.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        corpus = folder / "texts.txt"
        corpus.write_text("\n".join(_texts()))
        save_tiny(folder / "backbone")
        settings = {**SETTINGS, "backbone": str(folder / "backbone")}
        alone, shared = folder / "alone", folder / "shared"
        for launcher, output, accumulation in (((sys.executable,), alone, 2), (TORCHRUN, shared, 1)):
            done = start(launcher, output, {**settings, "batch_size": 8, "accumulation": accumulation}, corpus)
            if done.returncode:
                raise RuntimeError(done.stderr)
        one, two = batches(alone), list(zip(batches(shared, 0), batches(shared, 1), strict=True))
        whole = adapters(alone)
        return {
            "figures": {"ddp_equal_max_abs": largest_difference(whole, adapters(shared))},
            "details": {
                "processes": 2,
                "steps": len(two),
                "smallest_move": min(float(matrix.abs().max()) for name, matrix in whole.items() if "lora_B" in name),
                "same_texts": all(set(one[2 * i] + one[2 * i + 1]) == set(a + b) for i, (a, b) in enumerate(two)),
                "backend": "gloo, CPU, float32",
            },
        }


def _texts() -> list[str]:
    return [
        f"The {a} and the {b} met a {c}, {i}."
        for i, a in enumerate(_WORDS)
        for b in _WORDS
        for c in _WORDS[:6]
        if a != b
    ]


if __name__ == "__main__":
    print(json.dumps(measure(), indent=1))
