"""The model of an index: named once, found again, and what the documents taught about its vectors."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense

from text2token.atomic import replacing
from text2token.embedder import Embedder
from text2token.fingerprint import embedder_fingerprint


def model_fingerprint(embedder: Embedder) -> str:
    """SHA-256 of an embedder without what texts taught it, which an index keeps itself."""
    plain = copy.copy(embedder)
    plain.correction = None
    backend = embedder.tokenizer.backend_tokenizer
    backend.no_truncation()  # both are states of its last call, and the next one sets them again
    backend.no_padding()
    return embedder_fingerprint(plain)


def save_calibration(embedder: Embedder, file: Path) -> None:
    """Keep means and correction of an embedder with a head in ``file``."""
    tensors = {} if embedder.mean_logits is None else {"mean_logits": embedder.mean_logits}
    if embedder.correction is not None:
        tensors |= {"weight": embedder.correction.linear.weight, "bias": embedder.correction.linear.bias}
    with replacing(file) as part:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part)


def restore_calibration(embedder: Embedder, file: Path) -> None:
    """What :func:`save_calibration` has kept."""
    tensors = load_file(file)
    embedder.mean_logits, embedder.correction = tensors["mean_logits"], None
    if "weight" in tensors:
        rows, columns = tensors["weight"].shape
        embedder.correction = Dense(
            columns, rows, activation_function=torch.nn.Identity(), init_weight=tensors["weight"], init_bias=tensors["bias"]
        )  # fmt: skip
