"""The peer llama.cpp of the benchmark of encoding: the body of a model as a GGUF file, and the process that encodes with it."""

from __future__ import annotations

import multiprocessing
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFWriter, get_tensor_name_map
from gguf.quants import quantize

WORKER = Path(__file__).with_name("llama_worker.py")
ARCHITECTURE = "llama-embed"  # llama without decoding head: no logits are computed, and no keys and values are kept


def write_gguf(body: Any, kind: str, file: Path) -> None:
    """Write the body of a llama model for llama.cpp, without a tokenizer: the worker gets token ids.

    Args:
        body: A ``LlamaModel`` in any precision.
        kind: ``BF16``, ``Q8_0``, or another type of gguf's that its Python package can write. Norms stay in float32.
        file: The file to write.

    Raises:
        ValueError: The body is none that the file describes: causal, without biases, with unscaled rotary positions.
    """
    config = body.config
    plain = config.model_type == "llama" and config.rope_parameters["rope_type"] == "default"
    if not plain or config.attention_bias or config.mlp_bias or not getattr(config, "is_causal", True):
        raise ValueError(
            "llama.cpp is measured on causal llama models without biases and scaled positions: omit --llama."
        )
    writer = GGUFWriter(file, ARCHITECTURE)
    writer.add_vocab_size(config.vocab_size)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_tokenizer_model("no_vocab")
    names = get_tensor_name_map(MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for own, weights in body.state_dict().items():
        values = weights.float().numpy()
        if (layer := own.split(".")[-2]) in heads:
            values = interleaved(values, heads[layer])
        form = GGMLQuantizationType.F32 if values.ndim == 1 else GGMLQuantizationType[kind]
        name = names.get_name(f"model.{own}", try_suffixes=(".weight",))
        writer.add_tensor(name, quantize(np.ascontiguousarray(values), form), raw_dtype=form)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weights: np.ndarray, heads: int) -> np.ndarray:
    """Reorder the rows of queries or keys: transformers rotates the halves of a head, llama.cpp neighbouring rows."""
    rows, columns = weights.shape
    return weights.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


@contextmanager
def llama_process(python: Path, file: Path) -> Iterator[Connection]:
    """Start the worker in the environment of ``python`` on a GGUF file, and end it after the block."""
    pipe, other = multiprocessing.Pipe()
    command = [python, WORKER, file, torch.get_num_threads(), other.fileno()]
    with other, pipe:
        process = subprocess.Popen([str(part) for part in command], pass_fds=[other.fileno()])
        other.close()
        try:
            yield pipe
        finally:
            process.terminate()
            process.wait()
