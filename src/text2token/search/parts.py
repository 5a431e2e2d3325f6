"""Long texts in parts that a model reads whole, and what it says of them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from semantic_text_splitter import TextSplitter
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from text2token.model.embedder import Embedder
from text2token.search.vectors import TokenVectors
from text2token.utils.errors import UserError

Role = Literal["document", "query"]
_PROMPTS: dict[Role, tuple[str, ...]] = {"document": ("document", "passage", "corpus"), "query": ("query",)}

_DECODE_BATCH = 128  # parts decoded at once: 128 × V float32 logits are 25 to 134 MB
_REDUCE = {"max": "amax", "sum": "sum"}
_UNLIMITED = 2**20  # tokens per part, of a model without a limit


class PartEncoder:
    """Embeds texts of any length, part by part.

    Cuts are made where a text has its largest border: paragraph, line, sentence, and inside a sentence that is longer than the
    model between words (or letters). Only white space at the cuts is left out. A part is as long as the encoder's length allows
    with its template around.

    Args:
        embedder: What the parts are embedded with.
        role: Whose prompt, if the model has one, stands before each part: that of ``encode_document`` or of ``encode_query`` in
            sentence-transformers.
    """

    def __init__(self, embedder: Embedder, role: Role = "document") -> None:
        self._embedder = embedder
        prompts = embedder.encoder.prompts
        self._prompt = next((prompts[name] for name in _PROMPTS[role] if name in prompts), "")
        taken = len(embedder.tokenizer(self._prompt)["input_ids"])
        room = min(embedder.encoder.max_seq_length or _UNLIMITED, _UNLIMITED) - taken
        if room < 1:
            raise UserError(f"The prompt of the model, '{self._prompt}', leaves no room for text: shorten it.")
        backend = untruncated(embedder.tokenizer).backend_tokenizer
        self._splitter = TextSplitter.from_huggingface_tokenizer(backend, room)

    def parts(self, text: str) -> list[str]:
        """The parts of a text, in order; a text that is short enough is one."""
        return list(self._splitter.chunks(text))

    def embed(self, texts: Sequence[str], *, progress: bool = False) -> tuple[Tensor, NDArray[np.int64]]:
        """Embeddings of all parts, P×d, and for each the number of its text."""
        parts = [self.parts(text) for text in texts]
        owners = np.repeat(np.arange(len(texts)), [len(own) for own in parts])
        every = [part for own in parts for part in own]
        return self._embedder.embed(every, prompt=self._prompt, progress=progress), owners

    def dense(self, embeddings: Tensor, owners: NDArray[np.int64], count: int) -> NDArray[np.float32]:
        """Dense vectors of ``count`` texts: the mean of those of their parts, of length 1 again."""
        vectors = self._embedder.densify(embeddings)
        sums = torch.zeros(count, vectors.shape[1]).index_add_(0, torch.from_numpy(owners), vectors)
        return torch.nn.functional.normalize(sums, dim=1).numpy()

    def aligned(
        self, tokens: TokenVectors, embeddings: Tensor, owners: NDArray[np.int64], count: int, k: int
    ) -> csr_array:
        """The ``k`` aligned tokens of ``count`` texts, N×C, from the logits of their parts above the corpus mean.

        Weights of the ``weighted`` form are of meaningful entries only and divided by the text's largest, which is 1 then: how
        far logits reach differs between models and lengths of text.

        Args:
            tokens: Columns and form of the sparse vectors.
            embeddings: Of all parts, P×d.
            owners: P numbers of their texts.
            count: N.
            k: Columns kept per text.
        """
        space = tokens.space
        weighted = tokens.settings.form == "weighted"
        mask = torch.from_numpy(space.vocabulary.meaningful if weighted else ~space.vocabulary.special)
        columns = torch.from_numpy(space.columns)
        pooled = torch.zeros(count, space.width)
        for rows, texts in zip(
            embeddings.split(_DECODE_BATCH), torch.from_numpy(owners).split(_DECODE_BATCH), strict=True
        ):
            logits = self._embedder.logits(rows).relu() * mask
            if space.merge_forms:
                empty = torch.zeros(len(rows), space.width)
                logits = empty.scatter_reduce(1, columns.expand_as(logits), logits, "amax")
            pooled.scatter_reduce_(0, texts[:, None].expand_as(logits), logits, _REDUCE[tokens.settings.parts])
        best = pooled.topk(min(k, space.width), dim=1)
        values = best.values / best.values[:, :1].clamp(min=1e-9) if weighted and k else best.values
        rows_of = np.repeat(np.arange(count), best.indices.shape[1])
        found = csr_array((values.numpy().ravel(), (rows_of, best.indices.numpy().ravel())), shape=(count, space.width))
        found.eliminate_zeros()
        return found


def untruncated(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy that cuts and pads nothing; sentence-transformers sets both on the one it encodes with."""
    whole = copy.deepcopy(tokenizer)
    whole.backend_tokenizer.no_truncation()
    whole.backend_tokenizer.no_padding()
    return whole
