"""The model of an index: opened at first use, checked, and calibrated on the documents."""

from __future__ import annotations

import copy
import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save
from sentence_transformers.sentence_transformer.modules import Dense

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import known_fingerprints
from text2token.model.loading import loading
from text2token.model.names import locate
from text2token.model.saved import PARTS
from text2token.model.tokens import find_backend
from text2token.search.encoder import TextEncoder
from text2token.search.format import IndexSettings
from text2token.search.store import CALIBRATION, DocumentStore
from text2token.settings.corrections import FEWEST_TEXTS, split_steps
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write, file_stamps

_MODEL_FILES = "model_files"  # stamps of the model's files when its checksum was last found right, in the database


class IndexModel:
    """The model of an index. It is opened at first use.

    Args:
        folder: Folder of the index.
        store: Database of the index.
        settings: Settings of the index.
        given: The model, if the caller has opened it already.
        name: Where the model is now; None: where it was when the index was made.
    """

    def __init__(
        self, folder: Path, store: DocumentStore, settings: IndexSettings, given: Embedder | None, name: str | None
    ) -> None:
        self._folder, self._store, self._settings, self._given = folder, store, settings, given
        self._name = name or settings.model
        self._file = folder / CALIBRATION
        self._opened: Embedder | None = None

    def open(self) -> Embedder:
        """The model with the corpus mean, the correction and the precision of the index.

        It is a copy, so the caller's model does not change.

        Raises:
            UserError: The model cannot be opened, it differs from the one that made the index, or its calibration is missing.
        """
        if self._opened is None:
            given = self._given or open_model(self._name, self._settings.encoder, f"index in '{self._folder}'")
            self._opened = self._checked(copy.copy(given))
            self._opened.bf16 = self._settings.precision == "bf16"
        return self._opened

    @cached_property
    def documents(self) -> TextEncoder:
        """Encoder of documents."""
        return TextEncoder(self.open(), "document")

    @cached_property
    def queries(self) -> TextEncoder:
        """Encoder of queries."""
        return TextEncoder(self.open(), "query")

    def calibrate(self, sample: Callable[[int], list[str]], *, progress: bool) -> None:
        """Store corpus mean and correction with the index. An untrained backbone first learns them from the documents.

        A log line says if it learns them from too few.

        Args:
            sample: Returns a number of documents of the index.
            progress: Show a progress bar.
        """
        embedder = self.open()
        if embedder.head is None or self._file.is_file():
            return
        if embedder.mean_logits is None:
            how = self._settings.calibration
            texts = [self.documents.parts(text)[0] for text in sample(how.texts)]
            if len(texts) < min(how.texts, FEWEST_TEXTS):
                logging.getLogger(__name__).warning(
                    "The index learns its corpus mean and correction from %s and keeps them: build it again when it has %d "
                    "documents or more.",
                    "1 document" if len(texts) == 1 else f"{len(texts)} documents",
                    min(how.texts, FEWEST_TEXTS),
                )
            keep = (how.keep_from, how.keep_to)
            embedder.calibrate(texts, split_steps(how.correction), keep, progress=progress)
        _save_calibration(embedder, self._file)

    def forget(self) -> None:
        """Remove corpus mean and correction from the index. The model must be opened anew afterwards."""
        self._file.unlink(missing_ok=True)

    def _checked(self, embedder: Embedder) -> Embedder:
        stamps = {} if self._given else _model_stamps(self._name)
        # Where the stamps are those of the last time, the weights need not be read for a checksum.
        checked = bool(stamps) and stamps == self._store.get(_MODEL_FILES)
        if not checked and self._settings.fingerprint not in known_fingerprints(embedder):
            raise UserError(
                f"The index in '{self._folder}' was made by another model than the one in '{self._name}' now, "
                "and vectors of different models cannot be compared: name the right model, or make the index again."
            )
        if stamps and not checked:
            with suppress(sqlite3.OperationalError):  # the index may not be written, or somebody else writes it
                self._store.set(**{_MODEL_FILES: stamps})
        if self._file.is_file():
            _restore_calibration(embedder, self._file)
        elif embedder.head is not None and self._store.get("finished"):
            raise UserError(
                f"'{self._file}' is missing, and the model gives other vectors without it: make the index again."
            )
        return embedder


def open_model(name: str, encoder: Mapping[str, Any], owner: str) -> Embedder:
    """Open the model of an index or of shards.

    Args:
        name: Where the model is.
        encoder: Keyword arguments of :meth:`text2token.Embedder.open` for an untrained backbone.
        owner: What the message says the model belongs to.

    Raises:
        UserError: It cannot be opened.
    """
    try:
        return Embedder.open(name, **encoder)
    except UserError as error:
        said = str(error).rstrip(".")
        raise UserError(
            f"The model of the {owner} cannot be opened; if it was moved, name its place ({said})."
        ) from error


def _model_stamps(name: str) -> dict[str, list[int]]:
    """Stamps of the files of the parts of a model that ``fit`` wrote; empty for any other model."""
    return {f"{part}/{file}": stamp for part in PARTS for file, stamp in file_stamps(locate(name) / part).items()}


def check_indexable(embedder: Embedder, name: str) -> None:
    """Check that an index can use a model.

    Raises:
        UserError: Its tokenizer cannot cut documents, or it was made for another similarity than cosine or dot product.
    """
    if find_backend(embedder.tokenizer) is None:
        raise UserError(f"'{name}' has no fast tokenizer, which is needed to cut long documents: choose another model.")
    if embedder.similarity not in ("cosine", "dot"):
        raise UserError(
            f"'{name}' was made for the similarity {embedder.similarity}, and an index ranks by cosine or dot product: "
            "choose another model."
        )


def _save_calibration(embedder: Embedder, file: Path) -> None:
    """Write corpus mean and correction of an embedder with a decoding head."""
    tensors = {} if embedder.mean_logits is None else {"mean_logits": embedder.mean_logits}
    if embedder.correction is not None:
        tensors |= {"weight": embedder.correction.linear.weight, "bias": embedder.correction.linear.bias}
    with atomic_write(file) as part:
        part.write_bytes(save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def _restore_calibration(embedder: Embedder, file: Path) -> None:
    """Read what :func:`_save_calibration` wrote, and give it to an embedder."""
    with loading(str(file)):
        tensors = load_file(file)
        embedder.mean_logits, embedder.correction = tensors["mean_logits"], None
    if "weight" in tensors:
        rows, columns = tensors["weight"].shape
        embedder.correction = Dense(
            columns, rows, activation_function=torch.nn.Identity(), init_weight=tensors["weight"], init_bias=tensors["bias"]
        )  # fmt: skip
