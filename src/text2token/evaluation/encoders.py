"""An embedder as mteb wants it, which encodes each distinct text once over all tasks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder, get_prompt
from mteb.types import PromptType
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer, SparseEncoder
from torch import Tensor

from text2token.evaluation.vector_store import VectorStore, text_key
from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.progress import track

Vectors = Sequence[NDArray[np.float32]]
Encode = Callable[[Sequence[str], str | None, PromptType | None], Vectors]
"""Texts, the prompt before each, and whether they are queries or documents → one vector per text."""

_CHUNK = 256  # texts between two commits: some seconds to a minute of work


@dataclass
class Work:
    """What encoding has cost so far."""

    texts: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Session:
    """What an evaluation gives the models it runs.

    Attributes:
        store: Where vectors are kept.
        instructions: Use the benchmark's own instructions where a model has no prompt for a task.
        progress: Show a bar.
        work: Counts what encoding costs.
    """

    store: VectorStore
    instructions: bool
    progress: bool
    work: Work


class OnceEncoder(AbsEncoder):
    """Dense vectors for mteb, with prompts chosen and similarities computed as mteb's own wrapper does.

    Args:
        model: Of sentence-transformers.
        meta: Its name and revision.
        encode: The model under the settings of the evaluation.
        by_role: Do queries and documents take different ways through the model, beyond their prompts?
        session: Of the evaluation.

    Attributes:
        finish: Turns stored vectors, N×d, into those that are judged; None: they are judged as they are.
    """

    instruction_template = "Instruct: {instruction}\nQuery: "

    def __init__(
        self,
        model: SentenceTransformer | SparseEncoder,
        meta: ModelMeta,
        encode: Encode,
        by_role: bool,
        session: Session,
    ) -> None:
        self.model = model
        self.mteb_model_meta = meta
        self.model_prompts = dict(model.prompts)
        self._encode, self._by_role, self._session = encode, by_role, session
        self._size: int | None = None
        self.finish: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None

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
        """Vectors of the texts in mteb's batches."""
        texts = [text for batch in inputs for text in batch["text"]]
        vectors = self.vectors(texts, self._prompt(task_metadata, prompt_type), prompt_type)
        return self._assemble(vectors, task_metadata) if self.finish is None else self.finish(np.stack(vectors))

    def vectors(self, texts: Sequence[str], prompt: str | None, role: PromptType | None) -> Vectors:
        """A vector a text, unfinished, from the store where the text has been seen under the same prompt.

        Raises:
            UserError: The model returns too few vectors, vectors of several sizes, NaN or infinity.
        """
        store, work = self._session.store, self._session.work
        default = self.model.prompts.get(self.model.default_prompt_name)  # what sentence-transformers uses for None
        given = (default if prompt is None else prompt) or ""
        way = str(role) if self._by_role else ""
        keys = [text_key(self.mteb_model_meta.revision, given, way, text) for text in texts]
        new = store.missing(keys)
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key in new}
        longest_first = sorted(todo.items(), key=lambda item: -len(item[1]))
        chunks = [longest_first[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        for chunk in track(chunks, "Encoding", unit="texts", each=_CHUNK, enabled=self._session.progress):
            started = time.perf_counter()
            vectors = self._encode([text for _, text in chunk], prompt, role)
            work.seconds += time.perf_counter() - started
            work.texts += len(chunk)
            self._check([text for _, text in chunk], vectors)
            store.put([key for key, _ in chunk], vectors)
        return store.get(keys)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's own, N×M."""
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's own, N."""
        return self.model.similarity_pairwise(embeddings1, embeddings2)

    def _check(self, texts: Sequence[str], vectors: Vectors) -> None:
        if len(vectors) != len(texts):
            raise UserError(f"The model returns {len(vectors)} vectors for {len(texts)} texts: it cannot be judged.")
        for text, vector in zip(texts, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise UserError(f"The model returns no finite vector for the text '{text[:60]}': it cannot be judged.")
            self._check_size(vector)

    def _check_size(self, vector: NDArray[np.float32]) -> None:
        self._size = self._size or len(vector)
        if vector.shape != (self._size,):
            raise UserError(
                f"The model returns vectors of {self._size} and of {len(vector)} numbers: it cannot be judged."
            )

    def _assemble(self, vectors: Vectors, task_metadata: Any) -> Any:
        """The form that mteb takes, N×d."""
        return np.stack(vectors)

    def _prompt(self, task_metadata: Any, prompt_type: PromptType | None) -> str | None:
        """The model's own prompt for the task, else the benchmark's instruction when asked for; documents get none."""
        own = get_prompt(self.model_prompts, task_metadata, prompt_type)
        if own or not self._session.instructions or prompt_type is PromptType.document:
            return own
        return self.get_task_instruction(task_metadata, prompt_type)


class OnceSparseEncoder(OnceEncoder):
    """Sparse vectors for mteb: CSR matrices where that is enough, dense tensors N×V where mteb wants all numbers.

    In the store a vector is its token ids, then their weights; float32 holds ids below 2^24 exactly.
    """

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """The model's own; of CSR matrices cosines or dot products, N×M."""
        if not sp.issparse(embeddings1):
            return super().similarity(embeddings1, embeddings2)
        if self.model.similarity_fn_name == "cosine":
            embeddings1, embeddings2 = _unit(embeddings1), _unit(embeddings2)
        return torch.from_numpy((embeddings1 @ embeddings2.T).toarray())

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Likewise, N."""
        if not sp.issparse(embeddings1):
            return super().similarity_pairwise(embeddings1, embeddings2)
        if self.model.similarity_fn_name == "cosine":
            embeddings1, embeddings2 = _unit(embeddings1), _unit(embeddings2)
        return torch.from_numpy(embeddings1.multiply(embeddings2).sum(axis=1))

    def _check_size(self, vector: NDArray[np.float32]) -> None:
        """As many tokens as a text has."""

    def _assemble(self, vectors: Vectors, task_metadata: Any) -> Any:
        rows = [vector.reshape(2, -1) for vector in vectors]
        ids, weights = np.hstack(rows)
        ends = np.cumsum([0, *(row.shape[1] for row in rows)])
        size = (len(rows), self.model.get_embedding_dimension())
        matrix = sp.csr_array((weights, ids.astype(np.int32), ends), size)
        if task_metadata.type in _SPARSE_TYPES:
            return matrix
        needed = _COPIES * 4 * math.prod(size) / 2**30
        if needed > provenance.memory_gib():
            raise UserError(
                f"The task {task_metadata.name} holds the sparse vectors of {size[0]} texts with all their zeros, "
                f"{needed:.0f} GiB: judge the dense ones, cut it with --max-docs, or leave it out with --tasks."
            )
        return torch.from_numpy(matrix.toarray())


_SPARSE_TYPES = frozenset({"Retrieval", "Classification", "STS"})
_COPIES = 4  # of N×V at once: both sides of pairs, and what scikit-learn makes of them


def pack(tensor: Tensor) -> Vectors:
    """Sparse vectors N×V as rows of :class:`OnceSparseEncoder`."""
    nonzero = [row.nonzero().squeeze(1) for row in tensor]
    return [torch.cat([ids.float(), row[ids].float()]).numpy() for ids, row in zip(nonzero, tensor, strict=True)]


def _unit(matrix: Any) -> Any:
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    return sp.diags_array(1 / np.maximum(lengths, 1e-12)) @ matrix
