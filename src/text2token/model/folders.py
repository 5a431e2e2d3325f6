"""Plain sentence-transformers folders of an embedder, and the way back."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from text2token.model.head import DecodingHead
from text2token.model.saved import PARTS, load_saved
from text2token.utils.errors import UserError
from text2token.utils.files import write_json


class Parts(NamedTuple):
    """What an embedder consists of; see :class:`text2token.model.embedder.Embedder` for the fields."""

    encoder: SentenceTransformer
    head: DecodingHead | None = None
    correction: Dense | None = None
    mean_logits: Tensor | None = None
    top_k: int | None = None


def save_parts(
    path: Path,
    encoder: SentenceTransformer,
    head: DecodingHead,
    correction: Dense | None,
    mean_logits: Tensor,
    top_k: int,
) -> None:
    """Write ``path/dense`` (``SentenceTransformer``) and ``path/sparse`` (``SparseEncoder``), safetensors only.

    Either loads with sentence-transformers alone; template, pooling, correction, corpus mean and top-K are inside.
    """
    dense = dense_modules(encoder, correction)
    sparse = [*encoder, *head_modules(head, mean_logits)]
    save_plain(SentenceTransformer(modules=dense), path / "dense")
    save_plain(SparseEncoder(modules=sparse, max_active_dims=top_k), path / "sparse")


def dense_modules(encoder: SentenceTransformer, correction: Dense | None) -> list[nn.Module]:
    """The modules of the plain dense folder; the correction is a copy, because sentence-transformers moves it to its device."""
    return [*encoder, *([copy.deepcopy(correction)] if correction is not None else []), Normalize()]


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


def head_modules(head: DecodingHead, mean: Tensor) -> list[nn.Module]:
    """The decoding head as modules: transform where there is one, then ``ReLU(W·h + b − mean logits)``."""
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


def load_parts(name: str, *, pooled: bool) -> Parts:
    """Load a finished embedder.

    Args:
        name: A folder that ``fit``, ``adapt`` or ``baseline`` wrote, its dense or sparse folder alone, or a SentenceTransformer
            or SparseEncoder, here or on the hub.
        pooled: Stop after the pooling: no correction, no corpus mean and no head. Otherwise a folder of both parts gives all of
            these, and another one gives its whole SentenceTransformer as the encoder.

    Raises:
        UserError: It cannot be loaded; it does not start with a transformer and its pooling (``pooled``); or it is a
            SparseEncoder alone (not ``pooled``).
    """
    path = Path(name).expanduser()
    if pooled:
        parts = [path / part for part in PARTS]  # either starts with the same modules
        return Parts(_pooled(load_saved(next((str(part) for part in parts if part.is_dir()), name)), name))
    if is_whole(path):
        sparse = load_saved(str(path / "sparse"))
        transformer, pooling, *head = list(sparse)
        return Parts(
            encoder=SentenceTransformer(modules=[transformer, pooling]).eval(),
            head=_head_from_modules(head).cpu(),  # beside the embeddings, wherever the encoder runs
            correction=_load_correction(path / "dense"),
            mean_logits=torch.zeros(head[-1].out_features),  # it is inside the bias
            top_k=sparse.max_active_dims,
        )
    dense = path / "dense"  # of a baseline, which has no sparse side
    model = load_saved(str(dense) if (dense / "modules.json").is_file() else name)
    if isinstance(model, SparseEncoder):
        raise UserError(
            f"'{name}' is a SparseEncoder, whose vectors are tokens already: name the folder that 'text2token fit' wrote, "
            f"which holds it, or a SentenceTransformer ('text2token evaluate' takes either)."
        )
    return Parts(model)


def _pooled(model: SentenceTransformer | SparseEncoder, name: str) -> SentenceTransformer:
    """Transformer and pooling of a model."""
    if len(model) < 2 or not hasattr(model[1], "pooling_mode"):
        raise UserError(f"'{name}' does not start with a transformer and its pooling: it has no embedding to decode.")
    prompts = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    return SentenceTransformer(modules=[model[0], model[1]], **prompts).eval()


def _head_from_modules(modules: list[Any]) -> DecodingHead:
    """The inverse of :func:`head_modules`; the corpus mean stays inside the bias."""
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
