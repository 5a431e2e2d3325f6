"""Opens and checks the model of an index, and encodes texts of any length with it. In this room only this file imports torch."""

from __future__ import annotations

import copy
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from threading import Thread
from typing import Any, Literal

import numpy as np
import regex
import torch
from more_itertools import pairwise
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from scipy.sparse import csr_array
from semantic_text_splitter import TextSplitter
from sentence_transformers.sentence_transformer.modules import Dense
from tokenizers import Tokenizer
from torch import Tensor

from text2token.model.embedder import Embedder
from text2token.model.fingerprint import comparable, known_fingerprints
from text2token.model.loading import loading
from text2token.model.saved import PARTS
from text2token.model.vocabulary import backend_of, untruncated
from text2token.search.format import IndexSettings
from text2token.search.store import CALIBRATION, DocumentStore
from text2token.search.vectors import TokenSpace
from text2token.settings.corrections import split_steps
from text2token.utils.errors import UserError
from text2token.utils.files import atomic_write, file_stamps

Role = Literal["document", "query"]
_PROMPTS: dict[Role, tuple[str, ...]] = {"document": ("document", "passage", "corpus"), "query": ("query",)}

_MODEL_FILES = "model_files"  # stamps of the model's files when its checksum was last found right, in the database
_DECODE_BATCH = 128  # parts decoded at once: 128 × V float32 logits are 25 to 134 MB
_MOST_TOKENS_PER_BYTE = 2  # a token has a byte or more; a normaliser may write some characters out
_LONG_RUN = regex.compile(r"[^\s\p{P}]{10000}")  # the splitter takes quadratic time where it finds no boundary
_LONG_TEXT = 50_000  # characters; the splitter takes about half a second for them, and Ctrl-C waits for its end
_UNLIMITED = 2**20  # tokens of a part, for a model without a limit


class TextEncoder:
    """Encodes texts of any length, part by part.

    A text is cut at its largest boundaries: paragraphs, lines, sentences. A sentence that is longer than the model reads is cut
    between words, or between letters. Only white space at the cuts is lost. A part is as long as the model reads, with its
    template and prompt around it.

    Args:
        embedder: Encodes the parts.
        role: Decides which prompt of the model is put before each part, as ``encode_document`` and ``encode_query`` do in
            sentence-transformers.

    Raises:
        UserError: The prompt leaves no room for text.
    """

    def __init__(self, embedder: Embedder, role: Role = "document") -> None:
        self._embedder = embedder
        prompts = embedder.encoder.prompts
        self._prompt = next((prompts[name] for name in _PROMPTS[role] if name in prompts), "")
        taken = sum(backend_of(embedder.tokenizer).encode(self._prompt).attention_mask)  # its template included
        room = int(min(embedder.encoder.max_seq_length or _UNLIMITED, _UNLIMITED)) - taken
        if room < 1:
            raise UserError(f"The prompt of the model, '{self._prompt}', leaves no room for text: shorten it.")
        self._room = room

    @cached_property
    def _splitter(self) -> TextSplitter:
        """Cuts long texts. It copies the tokenizer, which takes a quarter of a second, and a short query does not need it."""
        return TextSplitter.from_huggingface_tokenizer(untruncated(self._embedder.tokenizer), self._room)

    def parts(self, text: str) -> list[str]:
        """The parts of a text, in order. A short text is one part."""
        if _MOST_TOKENS_PER_BYTE * len(text.encode()) <= self._room:
            return [text] if (text := text.strip()) else []
        if len(text) > _LONG_TEXT:
            return _interruptible(lambda: self._cut(text))
        return self._cut(text)

    def _cut(self, text: str) -> list[str]:
        cuts = [0, *(run.end() for run in _LONG_RUN.finditer(text)), len(text)]
        return [part for start, end in pairwise(cuts) for part in self._splitter.chunks(text[start:end])]

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> tuple[Tensor, NDArray[np.int64]]:
        """Embeddings of all parts, P×d, and for each part the number of its text, P."""
        parts = [self.parts(text) for text in texts]
        owners = np.repeat(np.arange(len(texts)), np.array([len(own) for own in parts], np.int64))
        flat = [part for own in parts for part in own]
        return self._embedder.embed(flat, prompt=self._prompt, progress=progress), owners

    def dense(self, embeddings: Tensor, owners: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """Dense vectors of ``count`` texts: the mean of the vectors of their parts.

        The result is normalised to length 1, except for a model that was made for dot products.
        """
        vectors = self._embedder.densify(embeddings)
        sums = torch.zeros(count, vectors.shape[1]).index_add_(0, torch.from_numpy(owners), vectors)
        if self._embedder.similarity == "dot":
            return (sums / torch.from_numpy(np.bincount(owners, minlength=count)).clamp(min=1)[:, None]).numpy()
        return torch.nn.functional.normalize(sums, dim=1).numpy()

    def aligned(
        self, space: TokenSpace, embeddings: Tensor, owners: NDArray[np.int64], count: int, k: int
    ) -> csr_array:
        """The ``k`` aligned tokens of each of ``count`` texts, N×C, with weights from 0 to 1.

        A weight is the token logit above the corpus mean, divided by the largest one of the text, since the range of logits
        differs between models and lengths of text. A text has the largest logit of its parts. Only meaningful vocabulary entries
        count.

        Args:
            space: Columns of the result.
            embeddings: Embeddings of all parts, P×d.
            owners: Number of the text of each part, P.
            count: Number of texts, N.
            k: Columns kept for each text.
        """
        meaningful = torch.from_numpy(space.vocabulary.meaningful)
        columns = torch.from_numpy(space.columns)
        pooled = torch.zeros(count, space.width)
        batches = zip(embeddings.split(_DECODE_BATCH), torch.from_numpy(owners).split(_DECODE_BATCH), strict=True)
        for rows, texts in batches:
            logits = self._embedder.logits(rows).relu() * meaningful
            in_columns = torch.zeros(len(rows), space.width).scatter_reduce(
                1, columns.expand_as(logits), logits, "amax"
            )
            pooled.scatter_reduce_(0, texts[:, None].expand_as(in_columns), in_columns, "amax")
        top = pooled.topk(min(k, space.width), dim=1)
        weights = top.values / top.values[:, :1].clamp(min=1e-9)
        rows_of = np.repeat(np.arange(count), top.indices.shape[1])
        found = csr_array((weights.numpy().ravel(), (rows_of, top.indices.numpy().ravel())), shape=(count, space.width))
        found.eliminate_zeros()
        return found


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
            keep = (how.keep_from, how.keep_to)
            embedder.calibrate(texts, split_steps(how.correction), keep, progress=progress)
        save_calibration(embedder, self._file)

    def _checked(self, embedder: Embedder) -> Embedder:
        stamps = {} if self._given else model_stamps(self._name)
        # Where the stamps are those of the last time, the weights need not be read for a checksum.
        checked = bool(stamps) and stamps == self._store.get(_MODEL_FILES)
        if not checked and self._settings.fingerprint not in known_fingerprints(comparable(embedder)):
            raise UserError(
                f"The index in '{self._folder}' was made by another model than the one in '{self._name}' now, "
                "and vectors of different models cannot be compared: name the right model, or make the index again."
            )
        if stamps and not checked:
            with suppress(sqlite3.OperationalError):  # the index may not be written, or somebody else writes it
                self._store.set(**{_MODEL_FILES: stamps})
        if self._file.is_file():
            restore_calibration(embedder, self._file)
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


def model_stamps(name: str) -> dict[str, list[int]]:
    """Stamps of the files of the parts of a model that ``fit`` wrote; empty for any other model."""
    return {f"{part}/{file}": stamp for part in PARTS for file, stamp in file_stamps(Path(name) / part).items()}


def check_indexable(embedder: Embedder, name: str) -> None:
    """Check that an index can use a model.

    Raises:
        UserError: Its tokenizer cannot cut documents, or it was made for another similarity than cosine or dot product.
    """
    if not isinstance(backend_of(embedder.tokenizer), Tokenizer):
        raise UserError(f"'{name}' has no fast tokenizer, which is needed to cut long documents: choose another model.")
    if embedder.similarity not in ("cosine", "dot"):
        raise UserError(
            f"'{name}' was made for the similarity {embedder.similarity}, and an index ranks by cosine or dot product: "
            "choose another model."
        )


def save_calibration(embedder: Embedder, file: Path) -> None:
    """Write corpus mean and correction of an embedder with a decoding head."""
    tensors = {} if embedder.mean_logits is None else {"mean_logits": embedder.mean_logits}
    if embedder.correction is not None:
        tensors |= {"weight": embedder.correction.linear.weight, "bias": embedder.correction.linear.bias}
    with atomic_write(file) as part:
        part.write_bytes(save({name: tensor.detach().contiguous() for name, tensor in tensors.items()}))


def restore_calibration(embedder: Embedder, file: Path) -> None:
    """Read what :func:`save_calibration` wrote, and give it to an embedder."""
    with loading(str(file)):
        tensors = load_file(file)
        embedder.mean_logits, embedder.correction = tensors["mean_logits"], None
    if "weight" in tensors:
        rows, columns = tensors["weight"].shape
        embedder.correction = Dense(
            columns, rows, activation_function=torch.nn.Identity(), init_weight=tensors["weight"], init_bias=tensors["bias"]
        )  # fmt: skip


def _interruptible(call: Callable[[], list[str]]) -> list[str]:
    """Call a function in a thread of its own. Ctrl-C then ends the wait for it, even while compiled code runs."""
    future: Future[list[str]] = Future()

    def run() -> None:
        try:
            future.set_result(call())
        except BaseException as error:
            future.set_exception(error)

    Thread(target=run, daemon=True).start()
    return future.result()
