"""Measure the server against the library that it serves and against a peer: overhead, fairness, memory, generated requests.

    python benchmarks/serving.py --model model --data ../data --peer .venv-infinity/bin/infinity_emb

The texts are Wikipedia sentences, and the server computes in fp32. The peer is infinity (infinity-emb) on the same dense folder,
in the same precision, with as many threads, in an environment of its own, which ``make bench-serving`` makes. It is compared in
fp32 and in bf16; ``peer_ratio`` is that of the default precision, which is bf16 where the hardware has it.
"""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import click
import httpx2 as httpx
import numpy as np
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode

import infinity
from http_server import ours, server
from runner import DATA, SENTENCES, bf16, data_checksums, merged, ratios, runs_option, spread, write_results
from text2token.data.corpus import open_corpus, sample
from text2token.model.embedder import Embedder
from text2token.model.fingerprint import embedder_fingerprint
from text2token.utils.resume import cached
from turns import seconds

SEED = 0
ROUNDS = 5  # turns of each of two contenders
TEXTS = 128  # texts of one turn
CLIENTS = 64  # clients that send requests at the same time
PEER_PORT = 7997
PEER_BATCHES = (8, 32)  # batch sizes of the peer; the better one counts


@click.command()
@DATA
@runs_option("serving")
@click.option("--model", type=click.Path(exists=True, path_type=Path), required=True, help="folder that fit wrote")
@click.option("--peer", type=click.Path(path_type=Path), required=True, help="command of infinity-emb[torch,server]")
@click.option("--minutes", type=float, default=10, show_default=True, help="length of the load for memory")
@click.option("--requests", type=int, default=5_000, show_default=True, help="requests made from the OpenAPI document")
def main(data: Path, runs: Path, model: Path, peer: Path, minutes: float, requests: int) -> None:
    """Measure everything and write ``results/serving.json``."""
    texts = sample(open_corpus(data / SENTENCES), 2_048, SEED)
    embedder = Embedder.open(model)
    with ours(model, "fp32") as (url, process):
        parts: dict[str, Callable[[], dict[str, Any]]] = {
            "library": lambda: beside_library(url, embedder, texts),
            "queries": lambda: queries(url, texts),
            "load": lambda: under_load(url, embedder, texts),
            "peer": lambda: beside_peer(peer, model, texts[:TEXTS]),
            "memory": lambda: memory_growth(url, process, texts, minutes),
            "requests": lambda: made_requests(url, requests),
        }
        figures, details = merged({name: cached(runs / f"{name}.json", measure) for name, measure in parts.items()})
    details |= {"model": embedder_fingerprint(embedder), "texts": TEXTS, "clients": CLIENTS}
    click.echo(write_results("serving", SEED, data_checksums(data, [SENTENCES]), figures, details))


def in_turns(base: Callable[[], float], contender: Callable[[], float]) -> list[float]:
    """Measure the rate of ``contender`` over that of ``base``, in turns. The first turn of each is a warm-up."""
    base(), contender()
    references, rates = zip(*((base(), contender()) for _ in range(ROUNDS)), strict=True)
    return ratios(rates, references)


def beside_library(url: str, embedder: Embedder, texts: Sequence[str]) -> dict[str, Any]:
    """Compare the texts per second through HTTP, in batches of 64, with those of the library."""
    turns = spread(in_turns(lambda: library(embedder, texts[:TEXTS]), lambda: over_http(url, texts[:TEXTS], 64)))
    return {"figures": {"http_over_library": turns["median"]}, "details": turns}


def beside_peer(program: Path, model: Path, texts: Sequence[str]) -> dict[str, Any]:
    """Compare the texts per second of 64 clients with one text each with those of the peer at its better batch size."""
    precisions = ("fp32", "bf16") if bf16() else ("fp32",)
    details: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as copy:
        flat = infinity.flat_form(model / "dense", Path(copy) / "dense")
        for precision in precisions:
            found = {size: _over_peer(program, flat, model, precision, size, texts) for size in PEER_BATCHES}
            size, lowest = min(found.items(), key=lambda item: np.median(item[1]))
            details[precision] = {"batch_size": size, **spread(lowest)}
    medians = {precision: own["median"] for precision, own in details.items()}
    return {"figures": {"peer_ratio": medians[precisions[-1]], "peer_ratio_fp32": medians["fp32"]}, "details": details}


def _over_peer(
    program: Path, folder: Path, model: Path, precision: str, batch_size: int, texts: Sequence[str]
) -> list[float]:
    peer = f"http://127.0.0.1:{PEER_PORT}"
    command = infinity.command(program, folder, PEER_PORT, batch_size, precision)
    with ours(model, precision) as (url, _), server(*command, address=peer):
        return in_turns(
            lambda: singles(texts, f"{peer}/embeddings", lambda text: {"input": text, "model": folder.name}),
            lambda: singles(texts, f"{url}/embed", lambda text: {"inputs": text}),
        )


def library(embedder: Embedder, texts: Sequence[str]) -> float:
    """Measure the texts per second that the library encodes."""
    return len(texts) / seconds(lambda: embedder.encode(texts))


def over_http(url: str, texts: Sequence[str], batch: int) -> float:
    """Measure the texts per second of one client that sends batches and always has two requests open."""
    started = time.perf_counter()
    with httpx.Client(base_url=url, timeout=600) as client, ThreadPoolExecutor(2) as pool:
        parts = [list(texts[start : start + batch]) for start in range(0, len(texts), batch)]
        for answer in pool.map(lambda part: client.post("/embed", json={"inputs": part}), parts):
            answer.raise_for_status()
    return len(texts) / (time.perf_counter() - started)


def singles(texts: Sequence[str], address: str, body: Callable[[str], dict[str, str]]) -> float:
    """Measure the texts per second of many clients that send one text per request."""
    started = time.perf_counter()
    limits = httpx.Limits(max_connections=CLIENTS)
    with httpx.Client(timeout=600, limits=limits) as client, ThreadPoolExecutor(CLIENTS) as pool:
        for answer in pool.map(lambda text: client.post(address, json=body(text)), texts):
            answer.raise_for_status()
    return len(texts) / (time.perf_counter() - started)


def queries(url: str, texts: Sequence[str]) -> dict[str, Any]:
    """Measure the milliseconds of short queries beyond the model's own time, which the server states: median over 200 queries."""
    times: list[tuple[float, float]] = []
    client = http.client.HTTPConnection(url.removeprefix("http://"))  # the client with the least time of its own
    for text in texts[:200]:
        started = time.perf_counter()
        client.request("POST", "/embed", json.dumps({"inputs": short(text)}), {"Content-Type": "application/json"})
        answer = client.getresponse()
        answer.read()
        times.append((1_000 * (time.perf_counter() - started), float(answer.headers["x-inference-time"])))
    whole, own = np.array(times).T
    details = {"http_ms": float(np.median(whole)), "model_ms": float(np.median(own)), **spread((whole - own).tolist())}
    return {"figures": {"query_overhead_ms": float(np.median(whole - own))}, "details": details}


def short(text: str) -> str:
    """Return the first five words of a text, as a query."""
    return " ".join(text.split()[:5])


def under_load(url: str, embedder: Embedder, texts: Sequence[str]) -> dict[str, Any]:
    """Measure how slow single queries get while another client sends batches of 512 texts, and how fast that client stays."""
    batch = list(texts[:512])
    alone = over_http(url, batch, 512)
    quiet = latencies(url, texts, 40)
    answered: list[float] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            answered.append(over_http(url, batch, 512))

    thread = threading.Thread(target=load)
    thread.start()
    time.sleep(2)
    busy = latencies(url, texts, 100)
    stop.set()
    thread.join()
    full = batch_seconds(embedder, batch)
    worst, best = np.percentile(busy, 99), np.percentile(quiet, 99)
    details = {
        "batch_s": full, "p99_alone_s": float(best), "p99_busy_s": float(worst), "texts_s_alone": alone, "texts_s_busy": answered,
    }  # fmt: skip
    figures = {
        "query_p99_under_load_batches": float((worst - best) / full),
        "throughput_kept_under_queries": float(np.mean(answered) / alone),
    }
    return {"figures": figures, "details": details}


def latencies(url: str, texts: Sequence[str], number: int) -> list[float]:
    """Measure the seconds of single short queries that are sent one after another."""
    found = []
    with httpx.Client(base_url=url, timeout=600) as client:
        for text in texts[:number]:
            started = time.perf_counter()
            client.post("/embed", json={"inputs": short(text)}).raise_for_status()
            found.append(time.perf_counter() - started)
    return found


def batch_seconds(embedder: Embedder, texts: Sequence[str]) -> float:
    """Measure the seconds in which the library encodes one full batch of the server's default size."""
    tokens, taken = 0, []
    for text in sorted(texts, key=len):
        tokens += len(embedder.tokenizer(text)["input_ids"])
        taken.append(text)
        if tokens >= 1_024:
            break
    return float(np.median([seconds(lambda: embedder.encode(taken)) for _ in range(ROUNDS)]))


def memory_growth(url: str, process: subprocess.Popen[bytes], texts: Sequence[str], minutes: float) -> dict[str, Any]:
    """Measure how much the server's memory grows from the second of ten samples to the last, while many clients send requests."""
    ends, sizes = time.monotonic() + 60 * minutes, []

    def ask(number: int) -> None:
        with httpx.Client(base_url=url, timeout=600) as client:
            while time.monotonic() < ends:
                number = (number * 1_103_515_245 + 12_345) % 2**31
                client.post("/embed", json={"inputs": texts[number % len(texts)]}).raise_for_status()

    with ThreadPoolExecutor(CLIENTS) as pool:
        work = [pool.submit(ask, number) for number in range(CLIENTS)]
        while time.monotonic() < ends:
            time.sleep(60 * minutes / 10)
            sizes.append(resident_mib(process.pid))
        for one in work:
            one.result()
    return {"figures": {"memory_growth_10min": sizes[-1] / sizes[1] - 1}, "details": {"minutes": minutes, "mib": sizes}}


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process in MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def made_requests(url: str, number: int) -> dict[str, Any]:
    """Send valid and invalid requests that are generated from the OpenAPI document, and count server errors."""
    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    steady = settings(
        max_examples=number // len(operations), deadline=None, database=None, suppress_health_check=list(HealthCheck)
    )
    statuses: list[int] = []
    for operation in operations:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):

            @steady
            @given(operation.as_strategy(generation_mode=mode))
            def send(case: Any) -> None:
                statuses.append(case.call(timeout=300).status_code)

            try:
                send()
            except Unsatisfiable:  # a route without parameters takes no wrong request
                continue
    broken = sum(status >= 500 for status in statuses)
    return {"figures": {"schemathesis_500": broken}, "details": {"requests": len(statuses)}}


if __name__ == "__main__":
    main()
