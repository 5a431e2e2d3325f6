"""Hashes of models: two models with equal hashes give equal vectors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from tokenizers import Tokenizer
from torch.nn import ModuleList
from transformers import PretrainedConfig

from text2token.model.embedder import Embedder
from text2token.model.kinds import Model
from text2token.model.tokens import TOKENIZING, find_backend
from text2token.utils.provenance import tensor_bytes, weights_checksum


def content_hash(model: Model, *, transformers_version: str | None = None) -> str:
    """Return a SHA-256 of everything that a vector depends on: weights, module settings, tokenizer with template, prompts.

    Args:
        model: Model to hash.
        transformers_version: Version of transformers that the hash includes, as earlier versions of this package had it; None:
            none, so that the hash survives an upgrade.
    """
    digest = hashlib.sha256()
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor_bytes(tensor))
    for module in model.modules():
        if keys := getattr(module, "config_keys", None):
            settings = {key: getattr(module, key, None) for key in keys}
            digest.update(json.dumps([type(module).__name__, settings], default=str, sort_keys=True).encode())
        if isinstance(config := getattr(module, "config", None), PretrainedConfig):
            content = config.to_dict()
            content.pop("_name_or_path", None)  # the same model may be in another folder
            content.pop("transformers_version", None)
            content |= {} if transformers_version is None else {"transformers_version": transformers_version}
            digest.update(json.dumps(content, default=str, sort_keys=True).encode())
    backend = find_backend(model.tokenizer)
    digest.update((repr(model.tokenizer) if backend is None else backend.to_str()).encode())
    names = (
        "max_seq_length",
        "prompts",
        "default_prompt_name",
        "truncate_dim",
        "max_active_dims",
        "similarity_fn_name",
    )
    options = {name: getattr(model, name, None) for name in names}
    digest.update(json.dumps(options, default=str, sort_keys=True).encode())
    return digest.hexdigest()


def known_fingerprints(embedder: Embedder) -> Iterator[str]:
    """Yield the fingerprint of an embedder without its correction, then those that earlier versions of this package gave it.

    These included the version of transformers. It was the present one, or the one that saved the model.
    """
    yield embedder_fingerprint(embedder, corrected=False)
    saved = getattr(getattr(embedder.encoder[0], "config", None), "transformers_version", None)
    for version in dict.fromkeys(filter(None, (saved, transformers.__version__))):
        yield embedder_fingerprint(embedder, corrected=False, transformers_version=version)


def backbone_checksum(embedder: Embedder) -> str:
    """Return a SHA-256 of the weights of an untrained embedder, decoding head included.

    All weights are read: call this once a process, and pass the value on.
    """
    return weights_checksum(ModuleList([embedder.encoder, embedder.decoding_head]))


def embedder_fingerprint(embedder: Embedder, *, corrected: bool = True, transformers_version: str | None = None) -> str:
    """Return a SHA-256 of what embeddings, dense vectors and token logits depend on; corpus mean and ``top_k`` are left out.

    Args:
        embedder: The embedder.
        corrected: Include the correction. An index and a student keep the correction themselves, so they leave it out.
        transformers_version: That of :func:`content_hash`.
    """
    with TOKENIZING, _without_leftovers(find_backend(embedder.encoder.tokenizer)):
        content = content_hash(embedder.encoder, transformers_version=transformers_version)
    digest = hashlib.sha256(content.encode())
    for part in (embedder.head, embedder.correction if corrected else None):
        if part is not None:
            digest.update(weights_checksum(part).encode())
    return digest.hexdigest()


def with_calibration(fingerprint: str, embedder: Embedder) -> str:
    """Return a SHA-256 of what dense and sparse vectors depend on: a fingerprint, the correction and the corpus mean.

    Args:
        fingerprint: That of the embedder without its correction.
        embedder: The embedder.
    """
    digest = hashlib.sha256(fingerprint.encode())
    if embedder.correction is not None:
        digest.update(weights_checksum(embedder.correction).encode())
    if embedder.mean_logits is not None:
        digest.update(tensor_bytes(embedder.mean_logits))
    return digest.hexdigest()


def taught_fingerprints(embedder: Embedder, fingerprint: str) -> Iterator[str]:
    """Yield the fingerprints under which students of an embedder know their teacher: its own, and that of its saved folder.

    Args:
        embedder: The embedder.
        fingerprint: That of the embedder without its correction.
    """
    yield with_calibration(fingerprint, embedder)
    if embedder.head is not None and embedder.mean_logits is not None:
        finished = embedder.finished()
        yield with_calibration(embedder_fingerprint(finished, corrected=False), finished)


@contextmanager
def _without_leftovers(tokenizer: Tokenizer | None) -> Iterator[None]:
    """Turn off the truncation and padding of a fast tokenizer for a moment: its last call left them on, the next sets its own."""
    if tokenizer is None:
        yield
        return
    truncation, padding = tokenizer.truncation, tokenizer.padding
    tokenizer.no_truncation()
    tokenizer.no_padding()
    try:
        yield
    finally:
        if truncation is not None:
            tokenizer.enable_truncation(**truncation)
        if padding is not None:
            tokenizer.enable_padding(**padding)
