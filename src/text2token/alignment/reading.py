"""Open any embedder together with the decoding head of the backbone it was made from."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from huggingface_hub import ModelCard
from huggingface_hub.errors import HfHubHTTPError
from sentence_transformers import SentenceTransformer

from text2token.backbone import load_head
from text2token.embedder import Embedder
from text2token.errors import UserError
from text2token.head import DecodingHead
from text2token.packaged import REFERENCES, fetch
from text2token.recipe import Recipe
from text2token.saved import PARTS, is_saved, load_saved


def open_readable(name: str, recipe: Recipe | None = None, head: str | None = None) -> Embedder:
    """An embedder whose embeddings are the pooled hidden states, before any correction, and whose head is the original one.

    Training moves the body and never this head: what a vector says is read with the words of the language model it came from
    (arXiv 2406.17378).

    Args:
        name: As of :func:`open_uncorrected`.
        recipe: Likewise.
        head: The language model whose head decodes. None: the backbone that the folder names; else the one that the model
            card names; else the model's own head. Which it was is :attr:`text2token.head.DecodingHead.source`.

    Raises:
        UserError: Model or head cannot be loaded, or do not fit together.
    """
    embedder = open_uncorrected(name, recipe)
    if head or embedder.head is None:
        embedder.head = load_head(head) if head else _find_head(name)
        _check_dimensions(embedder, name)
    return embedder


def open_uncorrected(name: str, recipe: Recipe | None = None) -> Embedder:
    """An embedder of pooled hidden states, before any correction, with a head only where its language model brings it along.

    Args:
        name: What ``fit``, ``adapt`` or ``baseline`` wrote, its dense or sparse folder alone, a SentenceTransformer or
            SparseEncoder, here or on the hub, or a backbone.
        recipe: Pooling, attention, template and length of a plain backbone; None: the defaults.

    Raises:
        UserError: It cannot be loaded, or does not start with a transformer and its pooling.
    """
    if not is_saved(name):
        return Embedder.from_recipe((recipe or Recipe()).model_copy(update={"backbone": name}))
    parts = [Path(name).expanduser() / part for part in PARTS]  # either starts with the same modules
    model = load_saved(next((str(part) for part in parts if part.is_dir()), name))
    if len(model) < 2 or not hasattr(model[1], "pooling_mode"):
        raise UserError(f"'{name}' does not start with a transformer and its pooling: it has no embedding to decode.")
    prompts = {"prompts": model.prompts, "default_prompt_name": model.default_prompt_name}
    return Embedder(encoder=SentenceTransformer(modules=[model[0], model[1]], **prompts).eval())


def _find_head(name: str) -> DecodingHead:
    tried = list(dict.fromkeys(_candidates(name)))
    for candidate in tried:
        try:
            return load_head(candidate)
        except UserError:
            continue
    raise UserError(
        f"No decoding head was found for '{name}' in {' or '.join(tried)}: name the language model it was made from with --head, "
        "if there is one (an encoder without a language model's head cannot be read as tokens)."
    )


def _candidates(name: str) -> Iterator[str]:
    """Where the original head may be, surest first."""
    folder = fetch(name) if name in REFERENCES else Path(name).expanduser()
    run = (folder.parent if folder.name in PARTS else folder) / "run.json"
    if run.is_file():
        recorded = json.loads(run.read_text(encoding="utf-8"))
        yield recorded.get("backbone", {}).get("source", recorded["recipe"]["backbone"])
    try:
        bases = ModelCard.load(folder / "README.md" if folder.is_dir() else name).data.base_model or []
    except (OSError, ValueError, HfHubHTTPError):
        bases = []
    yield from [bases] if isinstance(bases, str) else bases
    yield str(folder) if folder.is_dir() else name


def _check_dimensions(embedder: Embedder, name: str) -> None:
    own, dimension = embedder.decoding_head.weight.shape[1], embedder.encoder.get_embedding_dimension()
    if own != dimension:
        raise UserError(
            f"The decoding head has {own} dimensions, the embeddings of '{name}' have {dimension}: "
            "name the language model it was made from with --head."
        )
