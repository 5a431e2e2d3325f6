"""The embedder: dense vectors, sparse vectors and readable tokens from one pooled hidden state."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.backbone import EncoderSettings, load_encoder, load_head
from text2token.model.correction import correction
from text2token.model.folders import Parts, is_whole, load_parts, save_parts
from text2token.model.head import DecodingHead, mean_logits
from text2token.model.original_head import find_original_head
from text2token.model.precision import body_in_bf16, mixed_precision
from text2token.model.saved import is_saved
from text2token.model.vocabulary import read_vocabulary
from text2token.utils.errors import UserError

_DECODE_BATCH = 256  # embeddings decoded at once: 256 × V float32 logits are 50 to 270 MB


class SparseVectors(NamedTuple):
    """Token vectors of N texts: ids N×K by falling weight, weights N×K ≥ 0; unused places have weight 0."""

    ids: NDArray[np.int32]
    weights: NDArray[np.float32]


class AlignedToken(NamedTuple):
    """A vocabulary entry that an embedding aligns with, and how much."""

    token: str
    weight: float


@dataclass
class Embedder:
    """A backbone with pooling, its decoding head, and what a corpus taught about its vectors.

    Attributes:
        encoder: ``SentenceTransformer`` of Transformer and Pooling: texts → embeddings ``h``, N×d.
        head: Decodes embeddings to token logits; None where the model came without one.
        correction: Affine map from ``h`` to the dense vector before it is normalised; None leaves ``h`` as it is.
        mean_logits: V corpus-mean token logits, the zero of sparse vectors and explanations; None until known.
        top_k: Tokens a sparse vector keeps. 128 (ours): a short text aligns with far fewer, a paragraph with about so many.
        bf16: Embed in mixed precision where the hardware has it; :meth:`use_bf16` refuses where it has not.
    """

    encoder: SentenceTransformer
    head: DecodingHead | None = None
    correction: Dense | None = None
    mean_logits: Tensor | None = None
    top_k: int = 128
    bf16: bool = False

    @classmethod
    def open(
        cls,
        name: str | Path,
        *,
        head: str = "own",
        corrected: bool = True,
        top_k: int = 128,
        **settings: Unpack[EncoderSettings],
    ) -> Embedder:
        """Open any model as an embedder; the one function that does.

        Args:
            name: A folder that ``fit``, ``adapt`` or ``baseline`` wrote, its dense or sparse folder alone, a SentenceTransformer
                or SparseEncoder, or a language model: packaged name, folder, ``.gguf`` file or hub id.
            head: Which decoding head reads the embeddings. ``own``: the one that the model brings along, if it does;
                ``original``: that, or else the head of the backbone it was made from; anything else: the head of the language
                model of this name. Training moves the body and never the head, so the original one reads what a vector
                says with the words of its backbone (arXiv 2406.17378).
            corrected: With the correction and corpus mean that were saved with the model. False: pooled hidden states as they
                are. A language model has neither.
            top_k: Tokens of a sparse vector. 128 (ours): a short text aligns with far fewer, a paragraph with about so many.
                A finished embedder keeps its own number.
            settings: Attention, pooling, template and length of a language model. A finished embedder ignores them,
                since it has its own.

        Raises:
            UserError: Model or head cannot be loaded, or do not fit together.
        """
        name = str(name)
        if is_saved(name):
            parts = load_parts(name, pooled=not corrected or (head != "own" and not is_whole(Path(name))))
        else:
            parts = Parts(*load_encoder(name, **settings))
        embedder = cls(*parts[:4], top_k=parts.top_k or top_k)
        if head not in ("own", "original") or (head == "original" and embedder.head is None):
            embedder.head = find_original_head(name) if head == "original" else load_head(head)
            embedder._check_head(name)
        return embedder

    def _check_head(self, name: str) -> None:
        own, dimension = self.decoding_head.weight.shape[1], self.encoder.get_embedding_dimension()
        if own != dimension:
            raise UserError(
                f"The decoding head has {own} dimensions, the embeddings of '{name}' have {dimension}: "
                "name the language model it was made from with --head."
            )

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's, with the template inside."""
        return self.encoder.tokenizer

    @property
    def decoding_head(self) -> DecodingHead:
        """The head.

        Raises:
            UserError: The model has none.
        """
        if self.head is None:
            raise UserError(
                "This model has no decoding head, so its vectors cannot be read as tokens: "
                "use a folder that 'text2token fit' wrote, or a language model."
            )
        return self.head

    @property
    def floor(self) -> float:
        """The weight above which a token is aligned: the corpus mean, 0; plain logits have no zero, so there is no floor."""
        return -math.inf if self.mean_logits is None else 0.0

    @property
    def corpus_mean(self) -> Tensor:
        """V mean token logits of a corpus, the zero of sparse vectors.

        Raises:
            UserError: The model has no decoding head, or knows no corpus.
        """
        _ = self.decoding_head  # which raises where there is none
        if self.mean_logits is None:
            raise UserError(
                "Sparse vectors are token logits above the mean of a corpus, and this model knows none: "
                "let 'text2token adapt' or 'text2token fit' learn it from texts, or calibrate the embedder on some."
            )
        return self.mean_logits

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the head."""
        return len(self.decoding_head.weight)

    def use_bf16(self) -> None:
        """Embed in mixed precision from now on: half the time where the hardware multiplies bfloat16, the third digit differs.

        Raises:
            UserError: The hardware does not, or the model has no transformer body.
        """
        body_in_bf16(self.encoder)
        self.bf16 = True

    def embed(
        self, texts: Sequence[str], *, prompt: str | None = None, batch_size: int = 32, progress: bool = False
    ) -> Tensor:
        """Embeddings ``h``: pooled last hidden states, N×d float32 on the CPU, uncorrected.

        A ``prompt`` stands before each text, inside the template, as sentence-transformers has it.

        Raises:
            UserError: ``texts`` is one text and no list.
        """
        if isinstance(texts, str):
            raise UserError("A list of texts is expected, not a text alone: write [text].")
        if not len(texts):
            return torch.zeros(0, self.encoder.get_embedding_dimension())
        with mixed_precision(self.encoder[0].model) if self.bf16 else nullcontext():
            vectors = self.encoder.encode(
                list(texts),
                prompt=prompt,
                batch_size=batch_size,
                show_progress_bar=progress and sys.stderr.isatty(),
                convert_to_tensor=True,
            )
        return vectors.float().cpu()

    def encode(self, texts: Sequence[str], *, batch_size: int = 32, progress: bool = False) -> NDArray[np.float32]:
        """Dense vectors: corrected, of length 1, N×k. The same as the exported dense folder gives."""
        return self.densify(self.embed(texts, batch_size=batch_size, progress=progress)).numpy()

    def encode_sparse(self, texts: Sequence[str], *, batch_size: int = 32, progress: bool = False) -> SparseVectors:
        """Sparse vectors: the ``top_k`` token logits above :attr:`corpus_mean`. The same as the exported sparse folder gives."""
        _ = self.corpus_mean  # refuse before the work, not after it
        return self.sparsify(self.embed(texts, batch_size=batch_size, progress=progress))

    def explain(
        self, texts: Sequence[str], *, k: int = 10, filtered: bool = False, stop_words: str = "en"
    ) -> list[list[AlignedToken]]:
        """The ``k`` aligned tokens of each text by falling weight, above :attr:`floor`; see :meth:`shown` for which."""
        hidden, explained = ~self.shown(filtered, stop_words), []
        for part in self.embed(texts).split(_DECODE_BATCH):
            best = self.logits(part).masked_fill(hidden, -torch.inf).topk(min(k, len(hidden)), dim=1)
            for ids, weights in zip(best.indices.tolist(), best.values.tolist(), strict=True):
                pairs = zip(ids, weights, strict=True)
                explained.append([AlignedToken(self.tokenizer.decode([i]), w) for i, w in pairs if w > self.floor])
        return explained

    def shown(self, filtered: bool, stop_words: str = "en") -> Tensor:
        """Which tokens an explanation may show, V booleans: all; or, ``filtered``, those without a meaning left out.

        Args:
            filtered: No stop words, punctuation, special tokens and pieces of characters.
            stop_words: Languages of the stop lists, see :func:`text2token.model.vocabulary.read_vocabulary`.
        """
        size = self.vocabulary_size
        if not filtered:
            return torch.ones(size, dtype=torch.bool)
        return torch.from_numpy(read_vocabulary(self.tokenizer, size, stop_words).meaningful)

    @torch.no_grad()
    def densify(self, embeddings: Tensor) -> Tensor:
        """Dense vectors of embeddings N×d."""
        corrected = embeddings
        if self.correction is not None:
            corrected = self.correction({"sentence_embedding": embeddings})["sentence_embedding"]
        return torch.nn.functional.normalize(corrected, dim=1)

    @torch.no_grad()
    def logits(self, embeddings: Tensor) -> Tensor:
        """Token logits of embeddings N×d, less the corpus mean where it is known: N×V.

        A soft cap is left out: it keeps the order of tokens, and a plain sparse folder has no place for it.

        Raises:
            UserError: The model has no decoding head.
        """
        logits = self.decoding_head.uncapped(embeddings)
        return logits if self.mean_logits is None else logits - self.mean_logits

    def sparsify(self, embeddings: Tensor) -> SparseVectors:
        """Sparse vectors of embeddings N×d, decoded batch by batch."""
        _ = self.corpus_mean
        parts = [
            self.logits(part).relu().topk(min(self.top_k, self.vocabulary_size), dim=1)
            for part in embeddings.split(_DECODE_BATCH)
        ]
        return SparseVectors(
            torch.cat([part.indices for part in parts]).int().numpy(),
            torch.cat([part.values for part in parts]).numpy(),
        )

    @torch.no_grad()
    def calibrate(
        self,
        texts: Sequence[str],
        steps: Sequence[str] = ("centre",),
        keep: tuple[float, float] = (0.0, 1.0),
        *,
        progress: bool = False,
    ) -> None:
        """Learn the corpus means from a sample, and set the correction of dense vectors.

        Args:
            texts: A sample of the corpus; 1,000 texts settle a mean to about 3 % of the spread.
            steps: Of the correction, see :func:`text2token.model.correction.correction`.
            keep: The part of the spectrum that its filter keeps.
            progress: Show a bar.
        """
        embeddings = self.embed(texts, progress=progress)
        self.mean_logits = mean_logits(self.decoding_head, embeddings)
        self.correction = correction(steps, embeddings, self.decoding_head, keep)

    def save(self, path: str | Path) -> None:
        """Write the plain folders ``path/dense`` and ``path/sparse``, see :func:`text2token.model.folders.save_parts`."""
        save_parts(Path(path), self.encoder, self.decoding_head, self.correction, self.corpus_mean, self.top_k)
