"""An embedder as mteb wants it, which encodes each distinct text once over all tasks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction
from mteb.types import PromptType
from numpy.typing import NDArray
from torch import Tensor

from text2token.errors import UserError
from text2token.evaluation.vector_store import VectorStore, text_key
from text2token.progress import track

Vectors = Sequence[NDArray[np.float32]]
Encode = Callable[[Sequence[str], str | None, PromptType | None], Vectors]
"""Texts, the prompt before each, and whether they are queries or documents → a vector a text."""

_CHUNK = 1_024  # texts between two commits: some ten seconds to a minute of work


@dataclass
class Work:
    """What encoding has cost so far."""

    texts: int = 0
    seconds: float = 0.0


class OnceEncoder(AbsEncoder):
    """Dense vectors for mteb.

    Args:
        meta: Name, revision and similarity.
        encode: The model.
        store: Where vectors are kept.
        work: Counts texts and seconds.
        prompts: The model's own, by mteb's names.
        asymmetric: Does the model treat queries and documents differently beyond their prompts?
        instructions: Use the benchmark's own where the model has no prompt.
        progress: Show a bar.
    """

    instruction_template = "Instruct: {instruction}\nQuery: "

    def __init__(
        self,
        meta: ModelMeta,
        encode: Encode,
        store: VectorStore,
        work: Work,
        *,
        prompts: dict[str, str] | None = None,
        asymmetric: bool = False,
        instructions: bool = False,
        progress: bool = False,
    ) -> None:
        self.mteb_model_meta = meta
        self.model_prompts = prompts
        self._encode, self._store, self._work = encode, store, work
        self._asymmetric, self._instructions, self._progress = asymmetric, instructions, progress

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> Any:
        """Vectors N×d of the texts in mteb's batches."""
        return np.stack(self.vectors(inputs, self._prompt(task_metadata, prompt_type), prompt_type))

    def vectors(self, inputs: Any, prompt: str | None, role: PromptType | None) -> Vectors:
        """A vector a text, from the store where the text has been seen under the same prompt.

        Raises:
            UserError: The model returns NaN or infinity.
        """
        texts = [text for batch in inputs for text in batch["text"]]
        part = role.value if role and self._asymmetric else ""
        keys = [text_key(prompt or "", part, text) for text in texts]
        new = self._store.missing(keys)
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key in new}
        longest_first = sorted(todo.items(), key=lambda item: -len(item[1]))
        chunks = [longest_first[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        for chunk in track(chunks, "Encoding", unit="texts", each=_CHUNK, enabled=self._progress):
            started = time.perf_counter()
            vectors = self._encode([text for _, text in chunk], prompt, role)
            self._work.seconds += time.perf_counter() - started
            self._work.texts += len(chunk)
            for (_, text), vector in zip(chunk, vectors, strict=True):
                if not np.isfinite(vector).all():
                    raise UserError(
                        f"The model returns no finite vector for the text '{text[:60]}': it cannot be judged."
                    )
            self._store.put([key for key, _ in chunk], vectors)
        return self._store.get(keys)

    def _prompt(self, task_metadata: Any, prompt_type: PromptType | None) -> str | None:
        """The model's own prompt for the task, else the benchmark's instruction when asked for; documents get none."""
        own = self.get_prompt(task_metadata, prompt_type) if self.model_prompts else None
        if own is not None or not self._instructions or prompt_type is PromptType.document:
            return own
        return self.get_task_instruction(task_metadata, prompt_type)


class OnceSparseEncoder(OnceEncoder):
    """Sparse vectors for mteb: CSR matrices where it searches, dense tensors N×V where it wants all numbers.

    In the store a vector is its token ids, then their weights; float32 holds ids below 2^24 exactly.
    """

    def __init__(self, *arguments: Any, vocabulary: int, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._vocabulary = vocabulary

    def encode(
        self,
        inputs: Any,
        *,
        task_metadata: Any,
        hf_split: str,
        hf_subset: str,
        prompt_type: PromptType | None = None,
        **_: Any,
    ) -> Any:
        """Sparse vectors N×V of the texts in mteb's batches."""
        rows = [
            row.reshape(2, -1) for row in self.vectors(inputs, self._prompt(task_metadata, prompt_type), prompt_type)
        ]
        ids, weights = np.hstack(rows)
        ends = np.cumsum([0, *(row.shape[1] for row in rows)])
        matrix = sp.csr_array((weights, ids.astype(np.int32), ends), (len(rows), self._vocabulary))
        return matrix if task_metadata.type == "Retrieval" else torch.from_numpy(matrix.toarray())

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Dot products, N×M."""
        if sp.issparse(embeddings1):
            return torch.from_numpy((embeddings1 @ embeddings2.T).toarray())
        return super().similarity(embeddings1, embeddings2)


def pack(tensor: Tensor) -> Vectors:
    """Sparse vectors N×V as rows of :class:`OnceSparseEncoder`."""
    nonzero = [row.nonzero().squeeze(1) for row in tensor]
    return [torch.cat([ids.float(), row[ids].float()]).numpy() for ids, row in zip(nonzero, tensor, strict=True)]


def model_meta(name: str, revision: str, similarity: str) -> ModelMeta:
    """What mteb needs to know of a model."""
    function = ScoringFunction.DOT_PRODUCT if similarity == "dot" else ScoringFunction.COSINE
    return ModelMeta.create_empty({"name": f"text2token/{name}", "revision": revision, "similarity_fn_name": function})
