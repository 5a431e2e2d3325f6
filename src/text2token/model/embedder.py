"""The embedder: dense vectors, sparse vectors and readable tokens from one pooled hidden state."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense
from sentence_transformers.util import batch_to_device
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.data.text import check_texts
from text2token.model.backbone import EncoderSettings, encoder_around, load_encoder
from text2token.model.correction import correction
from text2token.model.decoding import AlignedToken, SparseVectors, aligned_tokens, displayed_tokens, sparse_vectors
from text2token.model.encoding import default_prompt, encode_in_batches
from text2token.model.folders import is_whole, load_parts, save_parts, saved_head
from text2token.model.head import DecodingHead, mean_logits
from text2token.model.names import from_anywhere, locate
from text2token.model.original_head import open_head
from text2token.model.precision import encoding, use_of_bf16
from text2token.model.saved import is_saved
from text2token.model.spans import correction_sample
from text2token.model.tokens import TOKENIZING
from text2token.settings.choices import NumberFormat, Precision
from text2token.settings.corrections import parse_steps
from text2token.utils.errors import UserError, check_count
from text2token.utils.files import local_path

_UNLIMITED = 2**20


@dataclass(eq=False)  # tensors have no single truth value, so an embedder equals itself alone
class Embedder:
    """A backbone with pooling, its decoding head, and what was learnt about its vectors from a corpus.

    Attributes:
        encoder: ``SentenceTransformer`` of Transformer and Pooling: texts → embeddings ``h``, N×d.
        head: Decodes embeddings to token logits; None if the model came without one.
        correction: Affine map from ``h`` to the dense vector before it is normalised; None leaves ``h`` as it is.
        mean_logits: Corpus-mean token logits, V numbers; sparse vectors and explanations subtract them. None until learnt.
        top_k: Tokens in a sparse vector. 128 (ours): a short text aligns with far fewer, a paragraph with about as many.
        bf16: Encode in bfloat16 where the hardware has it, see :meth:`use_precision`.
        batch_size: Size of a batch in texts of 128 tokens; a call can name another.
        backbone: Name of the language model, a local path in full. None for a finished embedder.
        settings: Attention, pooling, template and length of that language model. None for a finished embedder.
    """

    encoder: SentenceTransformer
    head: DecodingHead | None = None
    correction: Dense | None = None
    mean_logits: Tensor | None = None
    top_k: int = 128
    bf16: bool = False
    batch_size: int = 32
    backbone: str | None = None
    settings: EncoderSettings | None = None

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
        """Open any model as an embedder; this is the only function that does.

        Args:
            name: A folder written by ``fit``, ``adapt`` or ``baseline``, its dense folder alone, a SentenceTransformer, or a
                language model: packaged name, folder, ``.gguf`` file or hub id.
            head: The decoding head that reads the embeddings. ``own`` takes the head that the model brings along, if any.
                ``original`` takes that, or else the head of the backbone that the model was made from. Any other value names a
                language model whose head is taken, without a corpus mean. Training changes the body and never the head, so the
                original head reads what a vector says in the words of its backbone (arXiv 2406.17378).
            corrected: Apply the correction and corpus mean that were saved with the model. False gives pooled hidden states as
                they are. A language model has neither.
            top_k: Tokens in a sparse vector; a finished embedder keeps its own number.
            settings: Attention, pooling, template and length of a language model, see
                :func:`text2token.model.backbone.encoder_around`. A finished embedder ignores them, since it has its own.

        Raises:
            UserError: The model or head cannot be loaded, or they do not fit together.
        """
        name = str(name)
        check_count("top_k", top_k)
        if is_saved(name):
            parts = load_parts(name, pooled=not corrected or (head != "own" and not is_whole(locate(name))))
            embedder = cls(*parts[:4], top_k=parts.top_k or top_k)
        else:
            encoder, own = load_encoder(name, **settings)
            embedder = cls(encoder, own, top_k=top_k, backbone=from_anywhere(name), settings=settings)
        if head not in ("own", "original") or (head == "original" and embedder.head is None):
            embedder.head = open_head(head, name, embedder.encoder)
            embedder.mean_logits = None  # a saved mean is one of the logits of the saved head
        return embedder

    def with_settings(self, **settings: Unpack[EncoderSettings]) -> Embedder:
        """Return an embedder of the same language model with another template, pooling or length; the weights are shared.

        Settings that are not given stay as they are. The attention is part of the shared weights' configuration and cannot be
        changed. A finished embedder keeps its own settings, as in :meth:`open`, and is returned itself.

        Raises:
            UserError: The settings leave no room for text, or ``attention`` differs.
        """
        if self.backbone is None or self.settings is None:
            return self
        merged: EncoderSettings = {**self.settings, **settings}
        if merged.get("attention", "own") != self.settings.get("attention", "own"):
            raise UserError("Embedders that share their weights share their attention: open the language model again.")
        encoder = encoder_around(self.encoder[0].model, self.backbone, **merged)
        return replace(self, encoder=encoder, correction=None, mean_logits=None, settings=merged)

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The backbone's tokenizer, with the template inside."""
        return self.encoder.tokenizer

    @property
    def decoding_head(self) -> DecodingHead:
        """The decoding head.

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
    def max_length(self) -> int:
        """Tokens that the model reads of a text, template included; 2**20 for a model without a limit."""
        return int(min(self.encoder.max_seq_length or _UNLIMITED, _UNLIMITED))

    @property
    def similarity(self) -> str:
        """The similarity that the model was made for: ``cosine``, ``dot``, ``euclidean`` or ``manhattan``.

        ``cosine`` unless a SentenceTransformer says otherwise (its ``similarity_fn_name``). :meth:`encode` normalises the vectors
        of a ``cosine`` model only, so the inner product of two encoded vectors is the right score for ``cosine`` and ``dot``.
        """
        return str(self.encoder.similarity_fn_name)

    @property
    def alignment_threshold(self) -> float:
        """The weight above which a token counts as aligned: 0, the corpus mean. Plain logits have no zero, so then -inf."""
        return -math.inf if self.mean_logits is None else 0.0

    @property
    def vocabulary_size(self) -> int:
        """V, the rows of the decoding head."""
        return len(self.decoding_head.weight)

    def require_calibration(self) -> Tensor:
        """Return the corpus-mean token logits, V numbers, which sparse vectors need.

        Raises:
            UserError: The model has no decoding head, or has not been calibrated on a corpus.
        """
        _ = self.decoding_head  # the error of a model without one comes first
        if self.mean_logits is None:
            raise UserError(
                "Sparse vectors are token logits above the mean of a corpus, and this model knows none: "
                "let 'text2token adapt' or 'text2token fit' learn it from texts, or calibrate the embedder on some."
            )
        return self.mean_logits

    @property
    def precision(self) -> NumberFormat:
        """The precision in which texts are encoded here: bf16 only if :attr:`bf16` is set and the hardware has it."""
        return "bf16" if self.bf16 and use_of_bf16(self.encoder, "auto") else "fp32"

    def use_precision(self, precision: Precision) -> None:
        """Encode in a precision from now on. A new embedder encodes in fp32, so that its vectors do not depend on the hardware.

        Args:
            precision: ``bf16`` takes about half the time on hardware that has it, and vectors differ in the third digit. ``auto``
                is bf16 where the hardware has it, else fp32.

        Raises:
            UserError: ``bf16`` is asked for, but the hardware has no bf16 or the model has no transformer body.
        """
        self.bf16 = use_of_bf16(self.encoder, precision)

    def embed(
        self, texts: Sequence[str], *, prompt: str | None = None, batch_size: int | None = None, progress: bool = False
    ) -> Tensor:
        """Return embeddings ``h``: pooled last hidden states without correction, N×d float32 on the CPU.

        Args:
            texts: N texts; see :func:`text2token.model.encoding.encode_in_batches` for how they are grouped into batches. They
                are not brought into the Unicode form NFC, as those of a corpus are: the exported folders must give equal vectors.
            prompt: Text before each text, inside the template; None: the model's default prompt, if it has one.
            batch_size: Size of a batch in texts of 128 tokens. None: the one of the embedder.
            progress: Show a progress bar on a terminal.

        Raises:
            UserError: ``texts`` is a single string instead of a list, or an item is not a string or cannot be tokenised.
        """
        if prompt is None:
            prompt = default_prompt(self.encoder)
        if any(module.training for module in self.encoder.modules()):
            self.encoder.eval()
        with encoding(self.encoder, bf16=self.bf16, prompt=prompt):
            return encode_in_batches(
                self.encoder,
                texts,
                partial(self._encode_batch, prompt=prompt),
                prompt=prompt,
                batch_size=self.batch_size if batch_size is None else batch_size,
                progress=progress,
            )

    @torch.no_grad()  # in inference mode, FSDP would make tensors of which a later training step cannot compute gradients
    def _encode_batch(self, texts: list[str], prompt: str | None) -> Tensor:
        """Encode a batch as the encoder's own ``encode`` does, but without its check of every module and weight of the model."""
        with TOKENIZING:
            features = self.encoder.preprocess(texts, prompt=prompt)
        features = batch_to_device(features, self.encoder.device)
        pooled: Tensor = self.encoder(features)["sentence_embedding"]
        return pooled[:, : self.encoder.truncate_dim]

    def encode(
        self, texts: Sequence[str], *, batch_size: int | None = None, progress: bool = False
    ) -> NDArray[np.float32]:
        """Return dense vectors, N×k: corrected, and of length 1 unless the model was made for another similarity than cosine.

        The exported dense folder gives the same vectors. Arguments and errors are those of :meth:`embed`.
        """
        return self.densify(self.embed(texts, batch_size=batch_size, progress=progress)).numpy()

    def encode_sparse(
        self, texts: Sequence[str], *, batch_size: int | None = None, progress: bool = False
    ) -> SparseVectors:
        """Return sparse vectors: the ``top_k`` largest token logits above the corpus mean.

        The exported sparse folder gives the same vectors. Arguments are those of :meth:`embed`.

        Raises:
            UserError: The errors of :meth:`embed` and :meth:`require_calibration`.
        """
        self.require_calibration()  # raise the error before the texts are encoded
        return self.sparsify(self.embed(texts, batch_size=batch_size, progress=progress))

    def explain(
        self, texts: Sequence[str], *, k: int = 10, filtered: bool = False, stop_words: str = "en"
    ) -> list[list[AlignedToken]]:
        """Return at most ``k`` aligned tokens of each text by falling weight.

        Args:
            texts: N texts.
            k: Tokens of a text; only those above :attr:`alignment_threshold` are returned.
            filtered: Leave out tokens without a meaning, see :meth:`displayed_tokens`.
            stop_words: Languages of the stop lists.
        """
        shown = self.displayed_tokens(filtered, stop_words)
        return aligned_tokens(
            self.embed(texts), self.logits, self.tokenizer, k, shown=shown, threshold=self.alignment_threshold
        )

    def displayed_tokens(self, filtered: bool, stop_words: str = "en") -> Tensor:
        """Return the tokens that an explanation may show; see :func:`text2token.model.decoding.displayed_tokens`."""
        return displayed_tokens(self.tokenizer, self.vocabulary_size, filtered=filtered, stop_words=stop_words)

    @torch.no_grad()
    def correct(self, embeddings: Tensor) -> Tensor:
        """Return embeddings N×d under the correction of dense vectors, N×k; without a correction they stay as they are."""
        if self.correction is None:
            return embeddings
        corrected: Tensor = self.correction({"sentence_embedding": embeddings})["sentence_embedding"]
        return corrected

    @torch.no_grad()
    def densify(self, embeddings: Tensor) -> Tensor:
        """Return the dense vectors of embeddings N×d: corrected, then normalised if :attr:`similarity` is cosine."""
        corrected = self.correct(embeddings)
        return torch.nn.functional.normalize(corrected, dim=1) if self.similarity == "cosine" else corrected

    @torch.no_grad()
    def logits(self, embeddings: Tensor) -> Tensor:
        """Return token logits N×V of embeddings N×d, minus the corpus mean if it is known.

        The final soft cap is not applied: it keeps the order of tokens, and a plain sparse folder has no place for it.

        Raises:
            UserError: The model has no decoding head.
        """
        logits = self.decoding_head.uncapped(embeddings)
        return logits if self.mean_logits is None else logits - self.mean_logits

    def sparsify(self, embeddings: Tensor) -> SparseVectors:
        """Return the sparse vectors of embeddings N×d, decoded batch by batch.

        Raises:
            UserError: The errors of :meth:`require_calibration`.
        """
        self.require_calibration()
        return sparse_vectors(embeddings, self.logits, min(self.top_k, self.vocabulary_size))

    @torch.no_grad()
    def calibrate(
        self,
        texts: Sequence[str],
        steps: Sequence[str] = ("centre",),
        keep: tuple[float, float] = (0.0, 1.0),
        *,
        seed: int = 0,
        progress: bool = False,
        embed: Callable[[Sequence[str]], Tensor] | None = None,
    ) -> None:
        """Learn the corpus-mean token logits and the correction of dense vectors from a sample, in place.

        The mean is learnt from the texts, the correction from :func:`text2token.model.spans.correction_sample` of them.

        Args:
            texts: A sample of the corpus; with 500 texts the error of a mean is about 4 % of the spread.
            steps: Steps of the correction, see :func:`text2token.model.correction.correction`.
            keep: Part of the spectrum that the step ``filter`` keeps.
            seed: Seed of the sample that the correction is learnt from.
            progress: Show a progress bar on a terminal.
            embed: Embeds texts in place of :meth:`embed`, for a caller that shares them out over several processes.

        Raises:
            UserError: There is no text, the model has no decoding head, or the errors of :meth:`embed` and
                :func:`text2token.model.correction.correction`.
        """
        check_texts(texts)
        if not len(texts):
            raise UserError("A calibration learns from texts: give at least one.")
        parse_steps(steps)  # refuses what is no step before the texts are encoded
        embed = embed or partial(self.embed, progress=progress)
        mean = mean_logits(self.decoding_head, embed(texts))
        sample = embed(correction_sample(texts, seed) if steps else [])
        self.correction = correction(steps, sample, self.decoding_head, keep)
        self.mean_logits = mean  # now that nothing can be refused any more

    def save(self, path: str | Path) -> None:
        """Write the plain folders ``path/dense`` and ``path/sparse``, see :func:`text2token.model.folders.save_parts`.

        Raises:
            UserError: The model has no decoding head, or has not been calibrated on a corpus.
        """
        save_parts(
            local_path(path), self.encoder, self.decoding_head, self.correction, self.require_calibration(), self.top_k
        )

    def finished(self) -> Embedder:
        """Return the embedder as :meth:`open` reads it from the folder that :meth:`save` writes; the body is shared.

        Its fingerprint is that of the folder, so an index or a student that was made with one can be used with the other.

        Raises:
            UserError: The errors of :meth:`save`.
        """
        mean = self.require_calibration()
        head = saved_head(self.decoding_head, mean)
        zero = torch.zeros_like(mean)  # the mean is part of the bias
        return Embedder(self.encoder, head, self.correction, zero, self.top_k, self.bf16, self.batch_size)
