"""Plain sentence-transformers folders of an embedder, and the way back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm
from torch import nn
from transformers import PreTrainedTokenizerFast

from text2token.atomic import write_json
from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.head import DecodingHead
from text2token.saved import load_saved


def save_embedder(embedder: Embedder, path: Path) -> None:
    """Write ``path/dense`` (``SentenceTransformer``) and ``path/sparse`` (``SparseEncoder``), safetensors only.

    Either loads with sentence-transformers alone; template, pooling, correction, corpus mean and top-K are inside.
    """
    modules = [*embedder.encoder, *sparse_head_modules(embedder)]
    save_plain(SentenceTransformer(modules=embedder.dense_modules()), path / "dense")
    save_plain(SparseEncoder(modules=modules, max_active_dims=embedder.top_k), path / "sparse")


def save_plain(model: SentenceTransformer | SparseEncoder, folder: Path) -> None:
    """Write a folder that loads with sentence-transformers alone, and puts the template around texts then, too.

    The tokenizer is saved as one of transformers' general class: the classes of BERT, RoBERTa, GPT-NeoX and others make their
    post-processor anew when they are loaded, and the template, which is in there, would be lost.
    """
    model.save(str(folder), create_model_card=False)
    file = folder / "tokenizer_config.json"
    general = {
        "tokenizer_class": PreTrainedTokenizerFast.__name__,
        "model_input_names": model.tokenizer.model_input_names,  # of the class that is left
    }
    write_json(file, json.loads(file.read_text(encoding="utf-8")) | general)


def sparse_head_modules(embedder: Embedder) -> list[nn.Module]:
    """The decoding head as modules: transform where there is one, then ``ReLU(W·h + b − mean logits)``."""
    head, mean = embedder.decoding_head, embedder.corpus_mean
    vocabulary, dimension = head.weight.shape
    modules: list[nn.Module] = []
    if len(head.transform):
        linear, activation, norm = copy.deepcopy(head.transform)  # sentence-transformers moves modules to its device
        modules += [
            Dense(
                dimension,
                dimension,
                bias=linear.bias is not None,
                activation_function=activation,
                init_weight=linear.weight,
                init_bias=linear.bias,
            ),
            *_layer_norm(norm),
        ]
    decode = Dense(
        dimension, vocabulary, activation_function=nn.ReLU(), init_weight=head.weight, init_bias=head.bias - mean
    )  # fmt: skip
    return [*modules, decode]


def is_whole(path: Path) -> bool:
    """Is this a folder with both parts, and so with a head and the corpus mean of its own?"""
    return (path / "dense" / "modules.json").is_file() and (path / "sparse" / "modules.json").is_file()


def load_embedder(path: Path) -> Embedder:
    """Load a folder that ``fit`` wrote, or any SentenceTransformer folder, which has no head.

    Raises:
        UserError: Neither of the two is there, or it cannot be read.
    """
    if is_whole(path):
        sparse = load_saved(str(path / "sparse"))
        transformer, pooling, *head = list(sparse)
        return Embedder(
            encoder=SentenceTransformer(modules=[transformer, pooling]).eval(),
            head=_head_from_modules(head).cpu(),  # beside the embeddings, wherever the encoder runs
            correction=_load_correction(path / "dense"),
            mean_logits=torch.zeros(head[-1].out_features),  # it is inside the bias
            top_k=sparse.max_active_dims,
        )
    if (path / "dense" / "modules.json").is_file():  # of a baseline, which has no sparse side
        return load_embedder(path / "dense")
    if (path / "modules.json").is_file():
        return plain_embedder(str(path))
    raise UserError(
        f"'{path}' is no embedder: expected a folder that 'text2token fit' wrote, or a SentenceTransformer."
    )


def plain_embedder(name: str) -> Embedder:
    """An embedder of a SentenceTransformer alone, by folder or hub id: it encodes, but has no head to read with.

    Raises:
        UserError: It cannot be loaded, or is a SparseEncoder.
    """
    model = load_saved(name)
    if isinstance(model, SparseEncoder):
        raise UserError(
            f"'{name}' is a SparseEncoder, whose vectors are tokens already: name the folder that 'text2token fit' wrote, "
            f"which holds it, or a SentenceTransformer ('text2token evaluate' takes either)."
        )
    return Embedder(encoder=model)


def _head_from_modules(modules: list[Any]) -> DecodingHead:
    """The inverse of :func:`sparse_head_modules`; the corpus mean stays inside the bias."""
    *transform, decode = modules
    if not transform:
        return DecodingHead(decode.linear.weight, decode.linear.bias)
    dense, *scales, norm = transform
    for scale in scales:
        norm.norm.eps /= scale.linear.weight[0, 0].item() ** 2
    parts = nn.Sequential(dense.linear, dense.activation_function, norm.norm)
    return DecodingHead(decode.linear.weight, decode.linear.bias, parts)


def _layer_norm(norm: Any) -> list[nn.Module]:
    """The norm as modules: sentence-transformers' own has a fixed ``eps``, so what goes in is scaled to make up for it."""
    size = norm.normalized_shape[0]
    module = LayerNorm(size)
    module.norm.load_state_dict({"bias": torch.zeros(size), **norm.state_dict()})  # ModernBERT's has none
    factor = (module.norm.eps / norm.eps) ** 0.5
    if factor == 1:
        return [module]
    return [
        Dense(size, size, bias=False, activation_function=nn.Identity(), init_weight=factor * torch.eye(size)),
        module,
    ]


def _load_correction(dense: Path) -> Dense | None:
    listed = json.loads((dense / "modules.json").read_text())
    folders = [entry["path"] for entry in listed if entry["type"].endswith(".Dense")]
    return Dense.load(str(dense), subfolder=folders[0]) if folders else None
