"""Encoders for mteb that encode each distinct text once, over all tasks of an evaluation and over its restarts."""

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
from torch import Tensor

from text2token.evaluation.vector_store import Vectors, VectorStore, hash_key
from text2token.model.encoding import default_prompt
from text2token.model.kinds import Model
from text2token.utils import provenance
from text2token.utils.errors import UserError
from text2token.utils.progress import track

Encode = Callable[[Sequence[str], str | None, PromptType | None], Vectors]
"""Encodes texts with a prompt before each, as queries, as documents or as neither; returns one vector per text."""

_CHUNK = 256  # texts between two commits to the store: some seconds to a minute of work
_SPARSE_TYPES = frozenset({"Retrieval", "Classification", "STS"})  # task types whose code in mteb accepts CSR matrices
_DENSE_COPIES = 4  # N×V arrays held at once: both sides of the pairs, and the copies of scikit-learn


@dataclass
class Session:
    """The state that one evaluation shares with its encoders.

    Attributes:
        store: Keeps the vectors.
        instructions: Use the instruction of the benchmark where a model has no prompt for a task.
        progress: Show a bar.
        account: Key under which the store adds up the cost of encoding: one per evaluation and task.
    """

    store: VectorStore
    instructions: bool = False
    progress: bool = False
    account: bytes = b""


class CachingEncoder(AbsEncoder):
    """Gives mteb dense vectors. It chooses prompts and computes similarities as mteb's own wrapper does.

    Args:
        model: The model of sentence-transformers.
        meta: The name and revision of the model, for mteb.
        encode: Calls the model under the settings of the evaluation.
        by_role: Queries and documents pass through different modules of the model, beyond their prompts.
        session: The state of the evaluation.

    Attributes:
        postprocess: Turns stored vectors N×d into the vectors that are evaluated; None: they are evaluated as stored.
    """

    instruction_template = "Instruct: {instruction}\nQuery: "

    def __init__(
        self,
        model: Model,
        meta: ModelMeta,
        encode: Encode,
        by_role: bool,
        session: Session,
    ) -> None:
        self.model = model
        self.mteb_model_meta = meta
        self.model_prompts = dict(model.prompts)
        self.postprocess: Callable[[NDArray[np.float32]], NDArray[np.float32]] | None = None
        self._encode, self._by_role, self._session = encode, by_role, session
        self._size: int | None = None

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
        """Vectors of the texts in mteb's batches, N×d."""
        texts = [text for batch in inputs for text in batch["text"]]
        vectors = self.vectors(texts, self._prompt(task_metadata, prompt_type), prompt_type)
        if self.postprocess is not None:
            return self.postprocess(np.stack(vectors))
        return self._assemble(vectors, task_metadata)

    def vectors(self, texts: Sequence[str], prompt: str | None, role: PromptType | None) -> Vectors:
        """One stored vector per text. Texts that the store does not hold under this prompt are encoded first.

        Raises:
            UserError: The model returns too few vectors, vectors of different sizes, NaN or infinity.
        """
        store = self._session.store
        used_prompt = default_prompt(self.model) if prompt is None else prompt
        used_role = str(role) if self._by_role else ""
        keys = [hash_key(self.mteb_model_meta.revision, used_prompt, used_role, text) for text in texts]
        missing = store.missing(keys)
        todo = {key: text for key, text in zip(keys, texts, strict=True) if key in missing}
        longest_first = sorted(todo.items(), key=lambda item: -len(item[1]))
        chunks = [longest_first[start : start + _CHUNK] for start in range(0, len(todo), _CHUNK)]
        for chunk in track(chunks, "Encoding", unit="texts", each=_CHUNK, enabled=self._session.progress):
            chunk_keys, chunk_texts = zip(*chunk, strict=True)
            started = time.perf_counter()
            vectors = self._encode(chunk_texts, prompt, role)
            seconds = time.perf_counter() - started
            self._check(chunk_texts, vectors)
            store.put(chunk_keys, vectors, account=self._session.account, seconds=seconds)
        return store.get(keys)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """All similarities N×M, by the similarity function of the model."""
        return self.model.similarity(embeddings1, embeddings2)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Similarities of N pairs, by the similarity function of the model."""
        return self.model.similarity_pairwise(embeddings1, embeddings2)

    def _check(self, texts: Sequence[str], vectors: Vectors) -> None:
        if len(vectors) != len(texts):
            raise UserError(
                f"The model returns {len(vectors)} vectors for {len(texts)} texts, so it cannot be evaluated."
            )
        for text, vector in zip(texts, vectors, strict=True):
            if not np.isfinite(vector).all():
                raise UserError(
                    f"The model returns NaN or infinity for the text '{text[:60]}', so it cannot be evaluated."
                )
            self._check_size(vector)

    def _check_size(self, vector: NDArray[np.float32]) -> None:
        self._size = self._size or len(vector)
        if vector.shape != (self._size,):
            raise UserError(
                f"The model returns vectors of {self._size} and of {len(vector)} dimensions, so it cannot be evaluated."
            )

    def _assemble(self, vectors: Vectors, task_metadata: Any) -> Any:
        return np.stack(vectors)

    def _prompt(self, task_metadata: Any, prompt_type: PromptType | None) -> str | None:
        """The model's prompt for this task, or else the benchmark's instruction, if asked for and not for documents."""
        own = get_prompt(self.model_prompts, task_metadata, prompt_type)
        if own or not self._session.instructions or prompt_type is PromptType.document:
            return own
        return self.get_task_instruction(task_metadata, prompt_type)


class CachingSparseEncoder(CachingEncoder):
    """Gives mteb sparse vectors: CSR matrices where mteb accepts them, dense tensors N×V elsewhere.

    The store holds the token ids of a vector, followed by their weights. float32 represents ids below 2^24 exactly.
    """

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Any:
        """All similarities N×M: cosines or dot products, as the model says."""
        if not sp.issparse(embeddings1):
            return super().similarity(embeddings1, embeddings2)
        first, second = self._scaled(embeddings1, embeddings2)
        return torch.from_numpy((first @ second.T).toarray())

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Any:
        """Similarities of N pairs: cosines or dot products, as the model says."""
        if not sp.issparse(embeddings1):
            return super().similarity_pairwise(embeddings1, embeddings2)
        first, second = self._scaled(embeddings1, embeddings2)
        return torch.from_numpy(first.multiply(second).sum(axis=1))

    def _scaled(self, *matrices: Any) -> Sequence[Any]:
        return [_unit_rows(matrix) for matrix in matrices] if self.model.similarity_fn_name == "cosine" else matrices

    def _check_size(self, vector: NDArray[np.float32]) -> None:
        """Sparse vectors may have any number of tokens."""

    def _assemble(self, vectors: Vectors, task_metadata: Any) -> Any:
        rows = [vector.reshape(2, -1) for vector in vectors]
        ids, weights = np.hstack(rows)
        ends = np.cumsum([0, *(row.shape[1] for row in rows)])
        size = (len(rows), self.model.get_embedding_dimension())
        matrix = sp.csr_array((weights, ids.astype(np.int32), ends), size)
        if task_metadata.type in _SPARSE_TYPES:
            return matrix
        needed = _DENSE_COPIES * 4 * math.prod(size) / 2**30
        if needed > provenance.memory_gib():
            raise UserError(
                f"mteb stores all zeros of the {size[0]} sparse vectors of the task {task_metadata.name}, which takes "
                f"{needed:.0f} GiB: evaluate the dense vectors, set `max_docs`, or leave the task out."
            )
        return torch.from_numpy(matrix.toarray())


def pack(tensor: Tensor) -> Vectors:
    """Rows of a tensor N×V in the form that :class:`CachingSparseEncoder` stores."""
    nonzero = [row.nonzero().squeeze(1) for row in tensor]
    return [torch.cat([ids.float(), row[ids].float()]).numpy() for ids, row in zip(nonzero, tensor, strict=True)]


def _unit_rows(matrix: Any) -> Any:
    lengths = np.sqrt(matrix.multiply(matrix).sum(axis=1))
    return sp.diags_array(1 / np.maximum(lengths, 1e-12)) @ matrix
