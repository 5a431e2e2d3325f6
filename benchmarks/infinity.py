"""Run infinity (infinity-emb) on a dense folder, as the peer of our server.

infinity-emb 0.0.78 holds sentence-transformers 3 and transformers 4, which cannot read the folders of later versions. So it gets
a copy whose configuration is written in the older form; the weights stay as they are.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def older_form(dense: Path, copy: Path) -> Path:
    """Copy a dense folder, with its configuration in the form of sentence-transformers 3. Return ``copy``."""
    shutil.copytree(dense, copy, dirs_exist_ok=True)
    _rewrite(copy / "modules.json", lambda rows: [row | {"type": _older_class(row["type"])} for row in rows])
    for folder in copy.glob("*_Pooling"):
        _rewrite(folder / "config.json", _older_pooling)
    for folder in copy.glob("*_Dense"):
        _rewrite(folder / "config.json", lambda dense: {name: dense[name] for name in dense if "module_" not in name})
    tokenizer = json.loads((copy / "tokenizer_config.json").read_text())
    _rewrite(copy / "sentence_bert_config.json", lambda _: {"max_seq_length": tokenizer["model_max_length"]})
    _rewrite(copy / "tokenizer_config.json", lambda old: old | {"tokenizer_class": "PreTrainedTokenizerFast"})
    _rewrite(copy / "config.json", lambda config: config | config.get("rope_parameters", {}))
    return copy


def command(program: Path, folder: Path, port: int, batch_size: int, precision: str) -> list[str | Path]:
    """Return the command that serves ``folder`` on the CPU in fp32 or bf16. The model goes by the folder's name."""
    dtype = {"fp32": "float32", "bf16": "bfloat16"}[precision]
    options = ["--engine", "torch", "--device", "cpu", "--dtype", dtype, "--no-bettertransformer"]
    options += ["--no-model-warmup", "--batch-size", str(batch_size), "--port", str(port)]
    return [program, "v2", "--model-id", folder, *options]


def _rewrite(file: Path, change: Callable[[Any], Any]) -> None:
    file.write_text(json.dumps(change(json.loads(file.read_text()))))


def _older_class(name: str) -> str:
    return f"sentence_transformers.models.{name.rpartition('.')[2]}"


def _older_pooling(config: dict[str, Any]) -> dict[str, Any]:
    mode = f"pooling_mode_{config['pooling_mode']}"
    return {"word_embedding_dimension": config["embedding_dimension"], "pooling_mode_mean_tokens": False, mode: True}
