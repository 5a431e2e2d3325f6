"""The benchmark of encoding: how a contender's process answers, and the batches and weights of the peer llama.cpp."""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from threading import Thread

import gguf
import pytest
import torch
from transformers import AutoModel, AutoModelForCausalLM

import llama_peer
import turns
from speed_encoding import take_turns
from turns import Turn, answer

# Stands in for llama_cpp. A vector is the last token of its text, the token's position, and the number of tokens of the batch.
PEER = """
from types import SimpleNamespace as Some

LLAMA_POOLING_TYPE_LAST = 3
vectors = {}
llama_backend_init = lambda: None
llama_model_default_params = llama_context_default_params = Some
llama_model_load_from_file = llama_init_from_model = lambda source, settings: settings
llama_model_n_embd = lambda model: 3
llama_get_memory = lambda context: context
llama_memory_clear = lambda memory, data: vectors.clear()
llama_get_embeddings_seq = lambda context, sequence: [*vectors[sequence], "beyond the vector"]

def llama_batch_init(tokens, dimension, sequences):
    counts = [[0] * tokens for _ in range(4)]
    names = ("token", "pos", "n_seq_id", "logits")
    return Some(n_tokens=0, seq_id=[[0] * sequences for _ in range(tokens)], **dict(zip(names, counts)))

def llama_decode(context, batch):
    for place in range(batch.n_tokens):
        vectors[batch.seq_id[place][0]] = [batch.token[place], batch.pos[place], batch.n_tokens]
    return 0
"""
TURN = Turn(["a", "b", "c"], [[5, 6, 7], [8], [9, 10]])


@pytest.fixture
def peer(tmp_path, monkeypatch) -> None:
    """An environment whose Python finds a small ``llama_cpp``."""
    (tmp_path / "llama_cpp.py").write_text(PEER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


def test_a_process_answers_with_its_fastest_batch_size(monkeypatch):
    encoded, (pipe, other) = [], multiprocessing.Pipe()
    monkeypatch.setattr(turns, "seconds", lambda step: step())

    def encode(turn, size):
        encoded.append((len(turn.texts), size))
        return abs(size - 9) + turn.tokens

    worker = Thread(target=answer, args=(other, encode, (4, 8, 32)))
    worker.start()
    answers = []
    for request in (("choose", TURN), ("encode", Turn(["d"], [[1]])), ("memory", None)):
        pipe.send(request)
        answers.append(pipe.recv())
    pipe.close()
    worker.join(10)
    assert not worker.is_alive()
    assert answers[:2] == [8, 2]
    assert answers[2] > 0
    assert encoded == [(3, 4), (3, 4), (3, 8), (3, 32), (1, 8)]


def test_llama_gets_every_text_as_a_sequence_in_packed_batches(peer):
    import llama_worker

    assert list(llama_worker.packed([[1] * 5, [2], [3] * 2, [4]], 3)) == [[[1] * 5], [[2], [3] * 2], [[4]]]
    encode = llama_worker.load("a file", 1)
    assert encode(TURN, 512) == [[7, 2, 6], [8, 0, 6], [10, 1, 6]]
    assert encode(TURN, 4) == [[7, 2, 4], [8, 0, 4], [10, 1, 2]]


def test_the_process_of_llama_takes_turns(peer):
    start = lambda: llama_peer.llama_process(Path(sys.executable), Path("a file"))  # noqa: E731
    rates, facts = take_turns({"llama.cpp": start}, {"mix": [TURN, TURN, TURN]})
    assert len(rates["mix"]["llama.cpp"]) == 2
    assert min(rates["mix"]["llama.cpp"]) > 0
    assert facts["batch_size"]["mix"]["llama.cpp"] in (512, 1024, 2048)
    assert facts["peak_rss_gib"]["llama.cpp"] > 0


def test_a_process_that_ends_early_ends_the_benchmark(tmp_path):
    start = lambda: llama_peer.llama_process(Path(sys.executable), Path("a file"))  # noqa: E731
    with pytest.raises((EOFError, ConnectionError)):
        take_turns({"llama.cpp": start}, {"mix": [TURN]})  # this Python has no llama_cpp


def test_the_gguf_file_holds_the_weights_in_the_order_of_llama(backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(llama_peer, "ARCHITECTURE", "llama")  # the name by which transformers reads the same tensors
    body = AutoModel.from_pretrained(backbone("llama"))
    llama_peer.write_gguf(body, "F32", tmp_path / "model.gguf")
    read = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32).model
    for name, weights in body.state_dict().items():
        torch.testing.assert_close(read.state_dict()[name], weights, rtol=0, atol=0)
    assert read.config.rope_parameters["rope_theta"] == pytest.approx(body.config.rope_parameters["rope_theta"])


def test_the_gguf_file_names_an_architecture_without_logits_and_keeps_norms(backbone, tmp_path):
    file = tmp_path / "model.gguf"
    llama_peer.write_gguf(AutoModel.from_pretrained(backbone("llama")), "BF16", file)
    reader = gguf.GGUFReader(file)
    assert reader.get_field("general.architecture").contents() == "llama-embed"
    kinds = {tensor.name.split(".")[-2]: tensor.tensor_type.name for tensor in reader.tensors}
    assert (kinds["attn_norm"], kinds["attn_q"], kinds["token_embd"]) == ("F32", "BF16", "BF16")


def test_other_architectures_are_refused(backbone, tmp_path):
    with pytest.raises(ValueError, match="omit --llama"):
        llama_peer.write_gguf(AutoModel.from_pretrained(backbone("qwen3")), "BF16", tmp_path / "model.gguf")
