"""The model of an index: found again when it is needed, checked, and what the documents taught about its vectors."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save
from sentence_transformers.sentence_transformer.modules import Dense

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.search.store import DocumentStore
from text2token.settings.recipe import Recipe
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write

CALIBRATION = "calibration.safetensors"


class IndexModel:
    """The model that an index was made by.

    Args:
        folder: Of the index.
        store: Of the index.
        given: The model, where it is loaded already.
        name: Where the model is now; None: where it was when the index was made.
    """

    def __init__(self, folder: Path, store: DocumentStore, given: Embedder | None, name: str | None) -> None:
        self._folder, self._store, self._given, self._name = folder, store, given, name
        self._recipe = Recipe(**store.fact("recipe"))
        self._opened: Embedder | None = None

    def open(self) -> Embedder:
        """The model, with the means and the correction that the index keeps; a copy, for what is given may serve other indexes.

        Raises:
            UserError: It has changed since, it is gone, or what the index kept of it is.
        """
        if self._opened is None:
            self._opened = self._checked(copy.copy(self._given or self._found()))
        return self._opened

    def calibrate(self, sample: Callable[[int], list[str]], *, progress: bool) -> None:
        """Keep means and correction of a model with a head; an untrained backbone learns them first.

        Args:
            sample: Gives so many of the index's texts.
            progress: Show a bar.
        """
        embedder, file = self.open(), self._folder / CALIBRATION
        if embedder.head is None or file.is_file():
            return
        if embedder.mean_logits is None:
            recipe = self._recipe
            keep = (recipe.keep_from, recipe.keep_to)
            embedder.calibrate(sample(recipe.calibration_texts), recipe.correction_steps(), keep, progress=progress)
        save_calibration(embedder, file)

    def _found(self) -> Embedder:
        try:
            return Embedder.open(self._name or self._store.fact("model"), **self._recipe.embedder_settings())
        except UserError as error:
            said = str(error).rstrip(".")
            raise UserError(
                f"The model of the index in '{self._folder}' cannot be opened; if it has moved, name it ({said})."
            ) from error

    def _checked(self, embedder: Embedder) -> Embedder:
        if model_fingerprint(embedder) != self._store.fact("fingerprint"):
            raise UserError(
                f"The index in '{self._folder}' was made by another model than what is in "
                f"'{self._name or self._store.fact('model')}' now: their vectors cannot be compared; bring that model back, "
                "or make the index anew."
            )
        file = self._folder / CALIBRATION
        if file.is_file():
            restore_calibration(embedder, file)
        elif embedder.head is not None and self._store.fact("finished"):
            raise UserError(f"'{file}' is gone, without which the model gives other vectors: make the index anew.")
        return embedder


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
    with atomic_write(file) as part:
        part.write_bytes(save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def restore_calibration(embedder: Embedder, file: Path) -> None:
    """What :func:`save_calibration` has kept."""
    tensors = load_file(file)
    embedder.mean_logits, embedder.correction = tensors["mean_logits"], None
    if "weight" in tensors:
        rows, columns = tensors["weight"].shape
        embedder.correction = Dense(
            columns, rows, activation_function=torch.nn.Identity(), init_weight=tensors["weight"], init_bias=tensors["bias"]
        )  # fmt: skip
