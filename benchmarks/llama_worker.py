"""Encode with llama.cpp for the benchmark of encoding. It runs in the environment of the peer, which has llama-cpp-python alone.

    python benchmarks/llama_worker.py GGUF THREADS HANDLE

HANDLE is the number of an open pipe, see :func:`turns.answer`.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection

import llama_cpp

from turns import Encode, Turn, answer

SIZES = (512, 1024, 2048)  # tokens of a batch


def packed(texts: Sequence[list[int]], size: int) -> Iterator[list[list[int]]]:
    """Yield batches of at most ``size`` tokens in the order of the texts. A longer text is a batch of its own."""
    batch: list[list[int]] = []
    for ids in texts:
        if batch and sum(map(len, batch)) + len(ids) > size:
            yield batch
            batch = []
        batch.append(ids)
    if batch:
        yield batch


def load(file: str, threads: int) -> Encode:
    """Return the encoding of a GGUF file: the last hidden state of the last token, in one sequence for each text."""
    logging.getLogger("llama-cpp-python").setLevel(logging.ERROR)  # it writes all steps of loading otherwise
    llama_cpp.llama_backend_init()
    model = llama_cpp.llama_model_load_from_file(file.encode(), llama_cpp.llama_model_default_params())
    settings = llama_cpp.llama_context_default_params()
    settings.n_ctx = settings.n_batch = settings.n_ubatch = max(SIZES)  # a batch is computed at once
    settings.n_seq_max = 256
    settings.kv_unified = True  # otherwise llama.cpp cuts a batch into parts of equal lengths
    settings.n_threads = settings.n_threads_batch = threads
    settings.embeddings, settings.pooling_type = True, llama_cpp.LLAMA_POOLING_TYPE_LAST
    context = llama_cpp.llama_init_from_model(model, settings)
    if not context:
        raise SystemExit(f"llama.cpp cannot read {file}")
    dimension = llama_cpp.llama_model_n_embd(model)
    batch = llama_cpp.llama_batch_init(max(SIZES), 0, 1)

    def fill(texts: list[list[int]]) -> None:
        batch.n_tokens = 0
        for sequence, ids in enumerate(texts):
            for position, token in enumerate(ids):
                place = batch.n_tokens
                batch.token[place], batch.pos[place] = token, position
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                batch.logits[place] = True  # llama.cpp pools tokens that are marked
                batch.n_tokens += 1

    def encode(turn: Turn, size: int) -> list[list[float]]:
        vectors = []
        for texts in packed(turn.ids, size):
            fill(texts)
            llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), False)
            if code := llama_cpp.llama_decode(context, batch):
                raise SystemExit(f"llama.cpp cannot encode a batch: code {code}")
            found = (llama_cpp.llama_get_embeddings_seq(context, sequence) for sequence in range(len(texts)))
            vectors += [vector[:dimension] for vector in found]
        return vectors

    return encode


if __name__ == "__main__":
    file, threads, handle = sys.argv[1:]
    answer(Connection(int(handle)), load(file, int(threads)), SIZES)
