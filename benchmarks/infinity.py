"""Run infinity (infinity-emb) on a dense folder, as the peer of our server.

infinity-emb 0.0.78 holds transformers 4, which looks for the settings of RoPE elsewhere. So it gets a copy that has them in both
places; the weights stay as they are.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from text2token.utils.files import write_json


def flat_form(dense: Path, copy: Path) -> Path:
    """Copy a dense folder, with the settings of RoPE where older versions of transformers read them. Return ``copy``."""
    shutil.copytree(dense, copy, dirs_exist_ok=True)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    write_json(copy / "config.json", config | config.get("rope_parameters", {}))
    return copy


def command(program: Path, folder: Path, port: int, batch_size: int, precision: str) -> list[str | Path]:
    """Return the command that serves ``folder`` on the CPU in fp32 or bf16. The model goes by the folder's name."""
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    options = ["--engine", "torch", "--device", "cpu", "--dtype", dtype, "--no-bettertransformer"]
    options += ["--no-model-warmup", "--batch-size", str(batch_size), "--port", str(port)]
    return [program, "v2", "--model-id", folder, *options]
