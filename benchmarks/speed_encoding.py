"""The part of benchmarks/speed.py on encoding: ours beside sentence-transformers and llama.cpp, by length of text.

Every contender has a process of its own, and all take turns on the same texts, which no other turn reads. A contender of
sentence-transformers or llama.cpp has the batch size that was fastest in its warm-up. llama.cpp gets token ids instead of
texts, and returns hidden states that are not centred yet.
"""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from sentence_transformers import SentenceTransformer
from torch._inductor import config as inductor

from llama_peer import llama_process, write_gguf
from runner import PARAGRAPHS, SENTENCES, bf16, ratios, spread, usage
from speed_training import forward_gflop, save_tiny
from text2token.cli.options import quiet_libraries
from text2token.data.tables import read_table
from text2token.model.embedder import Embedder
from turns import Encode, Turn, answer, seconds

MIX = "mix"
LENGTHS = {"16": 64, "64": 24, "256": 8}  # tokens of a text, template included, and texts of a turn
MIXED = 32  # texts of a turn of the real mix: paragraphs and sentences in equal numbers
ROUNDS = 5
BATCHES = (4, 8, 32)  # tried by the contenders of sentence-transformers
SQUARES = (2048, 4096, 8192)
COMPARED = 200  # texts whose vectors are compared with those of float32
DOCUMENTS = (20_000, 200_000)
LLAMA = {"llama.cpp bf16": "BF16", "llama.cpp q8_0": "Q8_0"}
NOT_RUN = {
    "ONNX Runtime, OpenVINO": "exports of llama models are as fast as torch in float32, or give other vectors",
}
NO_LLAMA = {"llama.cpp": "llama-cpp-python was not installed"}

Start = Callable[[], AbstractContextManager[Connection]]
"""Starts the process of a contender."""


def measure(data: Path, runs: Path, model: str, llama: Path | None) -> dict[str, Any]:
    """Return ``figures`` and ``details`` of encoding.

    Args:
        data: Folder with corpus/.
        runs: Work folder.
        model: A folder that ``fit`` wrote.
        llama: Python of an environment that has llama-cpp-python; None: llama.cpp is left out.
    """
    embedder = Embedder.open(model)
    samples = {name: list(turns_of(name, data, embedder)) for name in (MIX, *LENGTHS)}
    peaks = machine_peaks()
    rivals = contenders(model) | (llama_contenders(llama, embedder, runs) if llama else {})
    rates, facts = take_turns(rivals, samples)
    gflop = forward_gflop(embedder.encoder[0].model)
    ours = {name: rates[name]["text2token"] for name in samples}
    figures = {
        "encode_over_st_fp32": median(ratios(ours[MIX], rates[MIX]["sentence-transformers fp32"])),
        "encode_share_of_peak": gflop * median(ours["256"]) / peaks["bf16" if bf16() else "fp32"],
        **{f"encode_tokens_s_{name}": median(found) for name, found in ours.items()},
        **quality(embedder, samples),
    }
    if bf16():
        halves = [rates[MIX][f"sentence-transformers bf16, {kind}"] for kind in ("autocast", "weights")]
        figures["encode_over_st_bf16"] = median(ratios(ours[MIX], max(halves, key=median)))
    details = {
        "peak_gflops": peaks, "gflop_a_token": gflop, "tokens_s": rates, **facts,
        "gflops": {name: {who: gflop * median(own) for who, own in found.items()} for name, found in rates.items()},
        "over_others": {
            name: {who: spread(ratios(found["text2token"], own)) for who, own in found.items() if who != "text2token"}
            for name, found in rates.items()
        },
        "texts_of_a_turn": {MIX: MIXED, **LENGTHS}, "rounds": ROUNDS, "not_run": NOT_RUN | ({} if llama else NO_LLAMA),
    }  # fmt: skip
    return {"figures": figures, "details": details}


def machine_peaks() -> dict[str, float]:
    """Return the best GFLOP/s of square products in float32 and bf16, with as many threads as the contenders have."""
    kinds = {"fp32": torch.float32, **({"bf16": torch.bfloat16} if bf16() else {})}
    return {name: max(square(size, kind) for size in SQUARES) for name, kind in kinds.items()}


def square(size: int, kind: torch.dtype) -> float:
    """Measure the best GFLOP/s of a few products of square matrices."""
    matrix = torch.randn(size, size).to(kind)
    return max(2e-9 * size**3 / seconds(lambda: matrix @ matrix) for _ in range(4))


def turns_of(name: str, data: Path, embedder: Embedder) -> Iterator[Turn]:
    """Yield the turns of a sample, the warm-up first."""
    for texts in texts_of(name, data, embedder):
        yield Turn(texts, embedder.tokenizer(texts, truncation=True)["input_ids"])


def texts_of(name: str, data: Path, embedder: Embedder) -> Iterator[list[str]]:
    """Yield the distinct texts of each turn, the warm-up first: of one length in tokens, or paragraphs and sentences."""
    paragraphs = (row.text("text") for row in read_table(data / PARAGRAPHS))
    if name == MIX:
        with (data / SENTENCES).open(encoding="utf-8") as lines:
            for _ in range(ROUNDS + 1):
                yield [*islice(paragraphs, MIXED // 2), *(line.strip() for line in islice(lines, MIXED // 2))]
        return
    length, count = int(name), LENGTHS[name]
    tokenizer = embedder.tokenizer
    room = length - len(tokenizer("")["input_ids"])
    for _ in range(ROUNDS + 1):
        turn: list[str] = []
        while len(turn) < count:
            ids = tokenizer(next(paragraphs), add_special_tokens=False, truncation=False)["input_ids"]
            while len(ids) < room:
                ids += tokenizer(" " + next(paragraphs), add_special_tokens=False, truncation=False)["input_ids"]
            turn.append(tokenizer.decode(ids[:room]).strip())
        yield turn


def contenders(model: str) -> dict[str, Start]:
    """Return how each contender starts, by its name."""
    made = {"text2token": ("ours", "auto"), "sentence-transformers fp32": ("theirs", "fp32")}
    if bf16():
        made |= {
            "text2token fp32": ("ours", "fp32"),
            "sentence-transformers bf16, autocast": ("theirs", "autocast"),
            "sentence-transformers bf16, weights": ("theirs", "bf16"),
            "sentence-transformers bf16, compiled": ("theirs", "compiled"),
        }
    return {name: partial(process, library, precision, model) for name, (library, precision) in made.items()}


def llama_contenders(python: Path, embedder: Embedder, runs: Path) -> dict[str, Start]:
    """Write the backbone for llama.cpp in each precision, and return how the contenders start."""
    runs.mkdir(parents=True, exist_ok=True)
    made: dict[str, Start] = {}
    for name, kind in LLAMA.items():
        file = runs / f"{kind}.gguf"
        write_gguf(embedder.encoder[0].model, kind, file)
        made[name] = partial(llama_process, python, file)
    return made


def take_turns(
    contenders: Mapping[str, Start], samples: Mapping[str, list[Turn]]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, Any]]:
    """Let all contenders encode every turn, one after the other.

    Returns:
        Tokens/s of each turn by sample and contender, and ``batch_size`` (texts; tokens with llama.cpp), ``peak_rss_gib`` and
        ``ready_s`` (seconds until the first batch size is chosen: what is left of loading, compiling, and the warm-up).
    """
    rates: dict[str, dict[str, list[float]]] = {name: {who: [] for who in contenders} for name in samples}
    batches: dict[str, dict[str, int]] = {name: {} for name in samples}
    memory: dict[str, float] = {}
    ready: dict[str, float] = {}
    with ExitStack() as stack:
        running = {who: stack.enter_context(start()) for who, start in contenders.items()}
        for name, (warm_up, *turns) in samples.items():
            for who, worker in running.items():
                started = time.perf_counter()
                worker.send(("choose", warm_up))
                batches[name][who] = worker.recv()
                ready.setdefault(who, time.perf_counter() - started)
            for turn in turns:
                for who, worker in running.items():
                    worker.send(("encode", turn))
                    rates[name][who].append(turn.tokens / worker.recv())
        for who, worker in running.items():
            worker.send(("memory", None))
            memory[who] = worker.recv()
    return rates, {"batch_size": batches, "peak_rss_gib": memory, "ready_s": ready}


@contextmanager
def process(library: str, precision: str, model: str) -> Iterator[Connection]:
    """Start a process that encodes with a library in a precision, and end it after the block."""
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    with pipe, other:
        worker = context.Process(target=work, args=(other, library, precision, model), daemon=True)
        worker.start()
        other.close()
        try:
            yield pipe
        finally:
            worker.terminate()
            worker.join()


def work(pipe: Connection, library: str, precision: str, model: str) -> None:
    """Answer the requests of :func:`take_turns`, in a process of its own."""
    quiet_libraries()
    if library == "ours":
        answer(pipe, ours(model, precision), (32,))
    else:
        answer(pipe, theirs(f"{model}/dense", precision), BATCHES)


def ours(model: str, precision: Any) -> Encode:
    """Return the encoding of text2token."""
    embedder = Embedder.open(model)
    embedder.use_precision(precision)
    return lambda turn, size: embedder.encode(turn.texts, batch_size=size)


def theirs(folder: str, precision: str) -> Encode:
    """Return the encoding of sentence-transformers."""
    kind = torch.bfloat16 if precision in ("bf16", "compiled") else torch.float32
    encoder = SentenceTransformer(folder, model_kwargs={"dtype": kind})
    if precision == "compiled":
        inductor.freezing = True  # weights are constants, packed once
        encoder[0].model = torch.compile(encoder[0].model, dynamic=True)

    def encode(turn: Turn, size: int) -> Any:
        cast = precision == "autocast"
        with torch.autocast(encoder.device.type, dtype=torch.bfloat16) if cast else nullcontext():
            return encoder.encode(turn.texts, batch_size=size, convert_to_tensor=True)

    return encode


def quality(embedder: Embedder, samples: Mapping[str, list[Turn]]) -> dict[str, float]:
    """Compare the vectors of the precision that ``auto`` takes with those of float32.

    Returns:
        Spearman's correlation of the cosines of all pairs of texts, and the share of the ten strongest tokens that stay.
    """
    texts = [text for turn in samples[MIX] for text in turn.texts][:COMPARED]
    exact = embedder.embed(texts)
    embedder.use_precision("auto")
    fast = embedder.embed(texts)
    pairs = np.triu_indices(len(texts), 1)
    cosines = [(own @ own.T)[pairs] for own in (embedder.densify(part).numpy() for part in (exact, fast))]
    tops = [embedder.logits(part).topk(10).indices.tolist() for part in (exact, fast)]
    kept = [len({*one} & {*other}) / 10 for one, other in zip(*tops, strict=True)]
    return {
        "encode_spearman": float(spearmanr(*cosines).statistic),
        "encode_top10_kept": sum(kept) / len(kept),
    }


def memory(data: Path, runs: Path) -> dict[str, Any]:
    """Compare the peak memory of building an index with that of one of ten times the documents, in the embedded engine.

    The model is tiny and random, with the vocabulary of the default backbone, since what grows with the documents is measured.
    """
    runs.mkdir(parents=True, exist_ok=True)
    if not (tiny := runs / "tiny").is_dir():
        save_tiny(tiny)
    peaks = [index_peak(data / SENTENCES, number, tiny, runs) for number in DOCUMENTS]
    details = {"documents": list(DOCUMENTS), "peak_rss_gib": peaks}
    return {"figures": {"memory_x10_index": peaks[1] / peaks[0]}, "details": details}


def index_peak(sentences: Path, number: int, tiny: Path, runs: Path) -> float:
    """Build an index of so many sentences in a process of its own, and return its peak memory in GiB."""
    file, output = runs / f"{number}.jsonl", runs / f"index-{number}"
    with sentences.open(encoding="utf-8") as lines, file.open("w", encoding="utf-8") as written:
        for place, line in enumerate(islice(lines, number)):
            written.write(json.dumps({"_id": str(place), "text": line.strip()}) + "\n")
    return usage("index", str(tiny), str(file), "--output", str(output)).ru_maxrss / 2**20
