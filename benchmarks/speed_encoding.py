"""The part of benchmarks/speed.py on encoding: ours beside sentence-transformers on the same folder, by length of text.

Every contender has a process of its own, and all take turns on the same texts, which no other turn reads. A contender of
sentence-transformers has the batch size that was fastest in its warm-up.
"""

from __future__ import annotations

import json
import multiprocessing
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
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

from runner import bf16, ratios, spread, usage
from speed_training import forward_gflop, save_tiny
from text2token.cli.options import quiet_libraries
from text2token.data.tables import read_table
from text2token.model.embedder import Embedder

PARAGRAPHS = "corpus/wiki-paragraphs.jsonl"
SENTENCES = "corpus/wiki-sentences.txt"
MIX = "mix"
LENGTHS = {"16": 64, "64": 24, "256": 8}  # tokens of a text, template included, and texts of a turn
MIXED = 32  # texts of a turn of the real mix: paragraphs and sentences in equal numbers
ROUNDS = 5
BATCHES = (4, 8, 32)  # tried by the contenders of sentence-transformers
SQUARES = (2048, 4096, 8192)
COMPARED = 200  # texts whose vectors are compared with those of float32
DOCUMENTS = (20_000, 200_000)
NOT_RUN = {
    "llama.cpp": "llama-cpp-python has no wheel for this Python, and was not built from source",
    "ONNX Runtime, OpenVINO": "exports of llama models are as fast as torch in float32, or give other vectors",
}

Encode = Callable[[Sequence[str], int], Any]
"""Encodes texts in batches of a size."""


def measure(data: Path, model: str, peaks: dict[str, float]) -> dict[str, Any]:
    """Return ``figures`` and ``details`` of encoding.

    Args:
        data: Folder with corpus/.
        model: A folder that ``fit`` wrote.
        peaks: GFLOP/s of the machine, see :func:`machine_peaks`.
    """
    embedder = Embedder.open(model)
    samples = {name: list(texts_of(name, data, embedder)) for name in (MIX, *LENGTHS)}
    tokens = {
        name: [sum(map(len, embedder.tokenizer(turn, truncation=True)["input_ids"])) for turn in turns]
        for name, turns in samples.items()
    }
    rates, memory, batches = take_turns(contenders(model), samples, tokens)
    gflop = forward_gflop(embedder.encoder[0].model)
    ours = {name: rates[name]["text2token"] for name in samples}
    figures = {
        "encode_over_st_fp32": median(ratios(ours[MIX], rates[MIX]["sentence-transformers fp32"])),
        "encode_share_of_peak": gflop * median(ours["256"]) / peaks["bf16" if bf16() else "fp32"],
        **{f"encode_tokens_s_{name}": median(found) for name, found in ours.items()},
        **quality(embedder, samples),
    }
    if bf16():
        halves = [rates[MIX][name] for name in rates[MIX] if name.startswith("sentence-transformers bf16")]
        figures["encode_over_st_bf16"] = median(ratios(ours[MIX], max(halves, key=median)))
    details = {
        "peak_gflops": peaks, "gflop_a_token": gflop, "tokens_s": rates, "peak_rss_gib": memory, "batch_size": batches,
        "gflops": {name: {who: gflop * median(own) for who, own in found.items()} for name, found in rates.items()},
        "over_sentence_transformers": {
            name: {who: spread(ratios(found["text2token"], own)) for who, own in found.items() if who.startswith("sentence")}
            for name, found in rates.items()
        },
        "texts_of_a_turn": {MIX: MIXED, **LENGTHS}, "rounds": ROUNDS, "not_run": NOT_RUN,
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


def seconds(step: Callable[[], Any]) -> float:
    """Measure a step by the wall clock."""
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


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


def contenders(model: str) -> dict[str, tuple[str, str]]:
    """Return how each contender encodes, by its name: the library, and its precision."""
    made = {"text2token": ("ours", "auto"), "sentence-transformers fp32": ("theirs", "fp32")}
    if bf16():
        made |= {
            "text2token fp32": ("ours", "fp32"),
            "sentence-transformers bf16, autocast": ("theirs", "autocast"),
            "sentence-transformers bf16, weights": ("theirs", "bf16"),
        }
    return {name: (f"{library} {precision}", model) for name, (library, precision) in made.items()}


def take_turns(
    contenders: dict[str, tuple[str, str]], samples: dict[str, list[list[str]]], tokens: dict[str, list[int]]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float], dict[str, dict[str, int]]]:
    """Return tokens/s of each turn by sample and contender, GiB of peak memory, and batch sizes."""
    rates: dict[str, dict[str, list[float]]] = {name: {who: [] for who in contenders} for name in samples}
    batches: dict[str, dict[str, int]] = {name: {} for name in samples}
    memory: dict[str, float] = {}
    with workers(contenders) as running:
        for name, (warm_up, *turns) in samples.items():
            for who, worker in running.items():
                worker.send(("choose", warm_up))
                batches[name][who] = worker.recv()
            for turn, count in zip(turns, tokens[name][1:], strict=True):
                for who, worker in running.items():
                    worker.send(("encode", turn))
                    rates[name][who].append(count / worker.recv())
        for who, worker in running.items():
            worker.send(("memory", None))
            memory[who] = worker.recv()
    return rates, memory, batches


@contextmanager
def workers(contenders: dict[str, tuple[str, str]]) -> Iterator[dict[str, Connection]]:
    """Start a process for each contender, and end them after the block."""
    context = multiprocessing.get_context("spawn")
    running, processes = {}, []
    for name, arguments in contenders.items():
        running[name], other = context.Pipe()
        process = context.Process(target=work, args=(other, *arguments), daemon=True)
        process.start()
        processes.append(process)
    try:
        yield running
    finally:
        for process in processes:
            process.terminate()
            process.join()


def work(pipe: Connection, kind: str, model: str) -> None:
    """Answer the requests of :func:`take_turns`, in a process of its own."""
    quiet_libraries()
    library, precision = kind.split()
    encode = ours(model, precision) if library == "ours" else theirs(f"{model}/dense", precision)
    sizes = (32,) if library == "ours" else BATCHES
    size = sizes[0]
    while True:
        what, texts = pipe.recv()
        if what == "choose":
            encode(texts, size)  # warm-up
            size = min(sizes, key=lambda own, read=texts: seconds(partial(encode, read, own)))
            pipe.send(size)
        elif what == "encode":
            pipe.send(seconds(partial(encode, texts, size)))
        else:
            pipe.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def ours(model: str, precision: Any) -> Encode:
    """Return the encoding of text2token."""
    embedder = Embedder.open(model)
    embedder.use_precision(precision)
    return lambda texts, size: embedder.encode(texts, batch_size=size)


def theirs(folder: str, precision: str) -> Encode:
    """Return the encoding of sentence-transformers."""
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    encoder = SentenceTransformer(folder, model_kwargs={"dtype": kind})

    def encode(texts: Sequence[str], size: int) -> Any:
        cast = precision == "autocast"
        with torch.autocast(encoder.device.type, dtype=torch.bfloat16) if cast else nullcontext():
            return encoder.encode(list(texts), batch_size=size, convert_to_tensor=True)

    return encode


def quality(embedder: Embedder, samples: dict[str, list[list[str]]]) -> dict[str, float]:
    """Compare the vectors of the precision that ``auto`` takes with those of float32.

    Returns:
        Spearman's correlation of the cosines of all pairs of texts, and the share of the ten strongest tokens that stay.
    """
    texts = [text for turn in samples[MIX] for text in turn][:COMPARED]
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
