"""The model of an index: named once, found again, and what the documents taught about its vectors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from sentence_transformers.sentence_transformer.modules import Dense

from text2token.atomic import replacing
from text2token.embedder import Embedder
from text2token.packaged import REFERENCES, fetch
from text2token.recipe import Recipe


def open_model(name: str, recipe: Recipe) -> Embedder:
    """A folder of ours or a SentenceTransformer, a packaged reference model, or else a backbone under the recipe.

    Raises:
        UserError: There is none of that name.
    """
    path = fetch(name) if name in REFERENCES else Path(name)
    if (path / "modules.json").is_file() or (path / "dense").is_dir():
        return Embedder.load(path)
    return Embedder.from_recipe(recipe.model_copy(update={"backbone": name}))


def needs_calibration(embedder: Embedder) -> bool:
    """Are the corpus means of a head unknown? So it is with an untrained backbone."""
    return embedder.head is not None and embedder.mean_logits is None


def calibrate(embedder: Embedder, texts: Sequence[str], recipe: Recipe, file: Path, *, progress: bool = False) -> None:
    """Learn means and correction from texts, and keep them in ``file``."""
    keep = (recipe.keep_from, recipe.keep_to)
    embedder.calibrate(texts, recipe.correction_steps(), keep, progress=progress)
    tensors = {} if embedder.mean_logits is None else {"mean_logits": embedder.mean_logits}
    if embedder.correction is not None:
        tensors |= {"weight": embedder.correction.linear.weight, "bias": embedder.correction.linear.bias}
    with replacing(file) as part:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, part)


def restore_calibration(embedder: Embedder, file: Path) -> None:
    """What :func:`calibrate` has learnt."""
    tensors = load_file(file)
    embedder.mean_logits = tensors["mean_logits"]
    if "weight" in tensors:
        rows, columns = tensors["weight"].shape
        embedder.correction = Dense(
            columns, rows, activation_function=torch.nn.Identity(), init_weight=tensors["weight"], init_bias=tensors["bias"]
        )  # fmt: skip
