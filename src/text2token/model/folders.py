"""Write an embedder as plain sentence-transformers folders, and read such folders."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sentence_transformers import SentenceTransformer, SparseEncoder
from sentence_transformers.sentence_transformer.modules import Dense, LayerNorm, Normalize, StaticEmbedding, Transformer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from text2token.model.head import DecodingHead
from text2token.model.kinds import Model
from text2token.model.loading import loading
from text2token.model.names import locate
from text2token.model.saved import PARTS, load_saved
from text2token.utils.errors import UserError
from text2token.utils.files import write_json

_CLASSIC_PACKAGE = "sentence_transformers.models"
_CLASSIC_MODULES = ("Transformer", "Pooling", "Dense", "LayerNorm", "Normalize", "StaticEmbedding")
_POOLING_FLAGS = {
    "cls": "cls_token",
    "mean": "mean_tokens",
    "max": "max_tokens",
    "mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "weightedmean": "weightedmean_tokens",
    "lasttoken": "lasttoken",
}


class Parts(NamedTuple):
    """The parts of an embedder; :class:`text2token.model.embedder.Embedder` describes the fields."""

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
    """Write ``path/dense`` (a ``SentenceTransformer``) and ``path/sparse`` (a ``SparseEncoder``), with weights as safetensors.

    Both load with sentence-transformers alone; template, pooling, correction, corpus mean and top-K are inside. The dense folder
    loads from version 3.4 on, the sparse one from 6.2 on: older versions ignore its top-K.
    """
    dense = dense_modules(encoder, correction)
    sparse = [*encoder, *head_modules(head, mean_logits)]
    save_plain(SentenceTransformer(modules=dense, **prompts_of(encoder)), path / "dense")
    save_plain(SparseEncoder(modules=sparse, max_active_dims=top_k, **prompts_of(encoder)), path / "sparse")


def prompts_of(model: Model) -> dict[str, Any]:
    """Return the prompts of a model as keyword arguments for another one around its modules."""
    return {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}


def dense_modules(encoder: SentenceTransformer, correction: Dense | None) -> list[nn.Module]:
    """Return the modules of the dense folder.

    The correction is copied, because sentence-transformers moves modules to its device, and we decode on the CPU.
    """
    return [*encoder, *([copy.deepcopy(correction)] if correction is not None else []), Normalize()]


def save_plain(model: Model, folder: Path) -> None:
    """Write a folder that loads with sentence-transformers alone, template included.

    The template is in the post-processor of the tokenizer. The tokenizer classes of BERT, RoBERTa, GPT-NeoX and others replace
    the post-processor when they are loaded, so the tokenizer is saved under transformers' general class.
    """
    model.save(str(folder), create_model_card=False)
    if isinstance(model.tokenizer, PreTrainedTokenizerBase):  # a static encoder has the tokenizer inside it alone
        general = {
            "tokenizer_class": PreTrainedTokenizerFast.__name__,
            "model_input_names": model.tokenizer.model_input_names,  # a property of the class that was left out
        }
        _edit_json(folder / "tokenizer_config.json", lambda settings: {**settings, **general})
    _write_classic_form(model, folder)


def _write_classic_form(model: Model, folder: Path) -> None:
    """Rewrite the settings of modules in the form that every version of sentence-transformers reads.

    Other servers (text-embeddings-inference, vLLM) look for exactly these class names and pooling flags.
    """

    def rename(modules: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for entry in modules:
            kind = entry["type"].rpartition(".")[2]
            entry["type"] = f"{_CLASSIC_PACKAGE}.{kind}" if kind in _CLASSIC_MODULES else entry["type"]
        return modules

    _edit_json(folder / "modules.json", rename)
    for entry in json.loads((folder / "modules.json").read_text(encoding="utf-8")):
        kind, file = entry["type"].removeprefix(f"{_CLASSIC_PACKAGE}."), folder / entry["path"] / "config.json"
        if kind == "Pooling":
            _edit_json(file, _classic_pooling)
        if kind == "Dense":
            _edit_json(file, lambda settings: {k: v for k, v in settings.items() if v != "sentence_embedding"})
    if isinstance(model[0], Transformer) and [*model[0].modality_config] == ["text"]:  # older versions know no other
        lengths = {"max_seq_length": model.tokenizer.model_max_length, "do_lower_case": False}
        write_json(folder / "sentence_bert_config.json", lengths)


def _classic_pooling(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a pooling module with one flag a mode."""
    flags = {f"pooling_mode_{name}": mode == settings["pooling_mode"] for mode, name in _POOLING_FLAGS.items()}
    dimension = {"word_embedding_dimension": settings["embedding_dimension"]}
    return {**dimension, **flags, "include_prompt": settings["include_prompt"]}


def _edit_json(file: Path, change: Callable[[Any], Any]) -> None:
    write_json(file, change(json.loads(file.read_text(encoding="utf-8"))))


def head_modules(head: DecodingHead, mean: Tensor) -> list[nn.Module]:
    """Return the decoding head as modules: its transform if there is one, then ``ReLU(W·h + b − mean)``.

    Args:
        head: The decoding head.
        mean: Corpus-mean token logits, V numbers; they become part of the bias.
    """
    vocabulary, dimension = head.weight.shape
    modules: list[nn.Module] = []
    if len(head.transform):
        linear, activation, norm = copy.deepcopy(head.transform)  # sentence-transformers moves modules to its device
        modules += [
            Dense(
                linear.in_features,
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


def saved_head(head: DecodingHead, mean: Tensor) -> DecodingHead:
    """Return the head as a folder holds it, with the corpus mean in its bias; see :func:`head_modules`."""
    return _head_from_modules(head_modules(head, mean))


def is_whole(path: Path) -> bool:
    """Return whether ``path`` is a folder with a dense and a sparse part, and so with its own head and corpus mean."""
    return (path / "dense" / "modules.json").is_file() and (path / "sparse" / "modules.json").is_file()


def load_parts(name: str, *, pooled: bool) -> Parts:
    """Load a finished embedder.

    Args:
        name: A folder written by ``fit``, ``adapt`` or ``baseline``, its dense or sparse folder alone, or a SentenceTransformer
            or SparseEncoder as a folder or on the hub.
        pooled: Load only the modules up to the pooling: no correction, corpus mean or head. Otherwise a folder with both parts
            gives all of them, and any other model gives its whole SentenceTransformer as the encoder.

    Raises:
        UserError: It cannot be loaded; or, with ``pooled``, it does not begin with a transformer and pooling; or, without
            ``pooled``, it is a SparseEncoder alone.
    """
    path = locate(name)
    if pooled:
        parts = [path / part for part in PARTS]  # both begin with the same modules
        return Parts(_pooled(load_saved(next((str(part) for part in parts if part.is_dir()), name)), name))
    if is_whole(path):
        sparse = load_saved(str(path / "sparse"))
        with loading(name):
            body, head = _split(sparse)
            return Parts(
                encoder=SentenceTransformer(modules=body, **prompts_of(sparse)).eval(),
                head=_head_from_modules(head).cpu(),  # embeddings are decoded on the CPU, wherever the encoder runs
                correction=_load_correction(path / "dense"),
                mean_logits=torch.zeros(head[-1].out_features),  # the mean is part of the bias
                top_k=sparse.max_active_dims,
            )
    dense = path / "dense"  # a baseline has no sparse part
    model = load_saved(str(dense) if (dense / "modules.json").is_file() else name)
    if isinstance(model, SparseEncoder):
        raise UserError(
            f"'{name}' is a SparseEncoder, whose vectors are tokens already: name the folder written by 'text2token fit' that "
            "holds it, or a SentenceTransformer ('text2token evaluate' takes both)."
        )
    return Parts(model)


def _pooled(model: Model, name: str) -> SentenceTransformer:
    """Return the modules of a model that make its embedding as an encoder."""
    body, _ = _split(model)
    if not isinstance(body[0], StaticEmbedding) and (len(body) < 2 or not hasattr(body[1], "pooling_mode")):
        raise UserError(
            f"'{name}' does not begin with a transformer and its pooling, so it has no embedding to decode."
        )
    return SentenceTransformer(modules=body, **prompts_of(model)).eval()


def _split(model: Model) -> tuple[list[nn.Module], list[Any]]:
    """Split the modules into those that make the embedding (transformer and pooling, or a table), and the others."""
    modules = list(model)
    end = 1 if isinstance(modules[0], StaticEmbedding) else 2
    return modules[:end], modules[end:]


def _head_from_modules(modules: list[Any]) -> DecodingHead:
    """Build the decoding head from modules, the inverse of :func:`head_modules`; the corpus mean stays part of the bias."""
    *transform, decode = modules
    if not transform:
        return DecodingHead(decode.linear.weight, decode.linear.bias)
    dense, *scales, norm = transform
    for scale in scales:
        norm.norm.eps /= scale.linear.weight[0, 0].item() ** 2
    parts = nn.Sequential(dense.linear, dense.activation_function, norm.norm)
    return DecodingHead(decode.linear.weight, decode.linear.bias, parts)


def _layer_norm(norm: Any) -> list[nn.Module]:
    """Return a layer norm as modules of sentence-transformers.

    Their LayerNorm has a fixed ``eps``. Scaling its input by √(eps' / eps) gives the same result as the original ``eps``.
    """
    size = norm.normalized_shape[0]
    module = LayerNorm(size)
    module.norm.load_state_dict({"bias": torch.zeros(size), **norm.state_dict()})  # ModernBERT's norm has no bias
    factor = (module.norm.eps / norm.eps) ** 0.5
    if factor == 1:
        return [module]
    return [
        Dense(size, size, bias=False, activation_function=nn.Identity(), init_weight=factor * torch.eye(size)),
        module,
    ]


def _load_correction(dense: Path) -> Dense | None:
    """Return the Dense module of a dense folder, if there is one."""
    listed = json.loads((dense / "modules.json").read_text())
    folders = [entry["path"] for entry in listed if entry["type"].endswith(".Dense")]
    return Dense.load(str(dense), subfolder=folders[0]) if folders else None
