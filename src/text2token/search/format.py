"""Settings that an index keeps; those of earlier versions are converted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from text2token.search.documents import Columns
from text2token.search.store import DocumentStore
from text2token.settings.choices import NumberFormat
from text2token.settings.search import Calibration, EngineName, FieldName, VectorSettings
from text2token.settings.templates import Template, named_template
from text2token.utils.errors import UserError

FORMAT = 2
_DELETED = {"form": "weighted", "merge_forms": True, "parts": "max"}  # settings of format 1 and the values that remain


class IndexSettings(BaseModel):
    """Settings of an index. They never change.

    Attributes:
        format: Version of the format.
        model: Where the model was when the index was made.
        encoder: Keyword arguments of :meth:`text2token.Embedder.open` for an untrained backbone.
        calibration: Corpus mean and correction that an untrained backbone learns from the documents.
        vectors: Weights of aligned tokens.
        columns: Columns of the tables that documents come from.
        language: Language of the BM25 field's words; see :class:`text2token.search.bm25.WordSplitter`.
        engine: The engine that holds the vectors.
        uri: Address of the engine, without passwords; None for files in the folder of the index.
        fingerprint: SHA-256 of the model.
        collection: Name of the collection or table that holds the vectors.
        fields: Fields of the index.
        vocabulary: V, rows of the decoding head; 0 if the model has none.
        precision: Precision in which the documents were encoded; queries and later documents use it too, where the hardware can.
            An index of an earlier version does not know it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    model: str
    encoder: dict[str, Any]
    calibration: Calibration
    vectors: VectorSettings
    columns: Columns
    language: str
    engine: EngineName
    uri: str | None
    fingerprint: str
    collection: str
    fields: list[FieldName]
    vocabulary: int
    precision: NumberFormat = "fp32"


def write_settings(store: DocumentStore, settings: IndexSettings) -> None:
    """Store the settings of a new index."""
    store.set(settings=settings.model_dump(mode="json"))


def read_settings(store: DocumentStore, folder: Path) -> IndexSettings:
    """The settings of an index of this version or an earlier one.

    Args:
        store: Database of the index.
        folder: Folder of the index, for error messages.

    Raises:
        UserError: The index is of a later version, or has a setting that no longer exists.
        ValueError: The settings are damaged.
    """
    stored = store.get("settings") or {}
    if "format" not in stored:
        return _format_1(store, stored, folder)
    if stored["format"] > FORMAT:
        raise UserError(f"The index in '{folder}' was made by a later version of text2token: update this one.")
    encoder = {**stored["encoder"]}
    if isinstance(encoder.get("template"), dict):
        encoder["template"] = Template(**encoder["template"])
    return IndexSettings(**{**stored, "encoder": encoder})


def _format_1(store: DocumentStore, vectors: dict[str, Any], folder: Path) -> IndexSettings:
    """Format 1 kept a whole recipe, of which the index needs a few settings, and the other settings one by one."""
    for name, value in _DELETED.items():
        if (stored := vectors.pop(name, value)) != value:
            raise UserError(
                f"The index in '{folder}' was made with {name}={stored!r}, a setting that no longer exists: "
                "make the index again."
            )
    recipe = store.get("recipe")
    template = named_template(recipe["template"])
    own = {part: recipe[part] if recipe[part] is not None else getattr(template, part) for part in ("prefix", "suffix")}
    return IndexSettings(
        format=1,
        model=store.get("model"),
        encoder={
            "attention": recipe["attention"],
            "pooling": recipe["pooling"],
            "template": Template(**own),
            "max_length": recipe["max_length"],
        },
        calibration=Calibration(
            correction=recipe["correction"],
            keep_from=recipe["keep_from"],
            keep_to=recipe["keep_to"],
            texts=recipe["calibration_texts"],
        ),
        vectors=VectorSettings(**vectors),
        columns=Columns(),
        language="english",
        engine=store.get("engine"),
        uri=store.get("uri"),
        fingerprint=store.get("fingerprint"),
        collection=store.get("collection"),
        fields=store.get("sides"),
        vocabulary=store.get("vocabulary"),
    )
