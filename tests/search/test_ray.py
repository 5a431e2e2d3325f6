"""Shards on a Ray cluster: the files of one process, also after the death of a worker and of the driver."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from conftest import SENTENCES, done, write_lines

pytestmark = pytest.mark.processes
SHARDS = 12
LIMIT = 300  # seconds for a driver; half a minute is usual, and several where other work has the processors
SETTINGS = ["--template", "none", "--pooling", "mean", "--max-length", "300"]


@pytest.fixture(scope="module")
def arguments(backbone, tmp_path_factory):
    documents = tmp_path_factory.mktemp("documents") / "docs.jsonl"
    rows = [{"id": i, "text": " ".join(SENTENCES[i % 10 :] * 4) + f" {i}", "number": i} for i in range(40 * SHARDS)]
    write_lines(documents, rows)
    return [backbone("llama"), str(documents), "--shards", str(SHARDS), "--precision", "fp32", *SETTINGS]


@pytest.fixture(scope="module")
def expected(arguments, tmp_path_factory):
    """The files of one process, by their names."""
    folder = tmp_path_factory.mktemp("one") / "shards"
    finish(start(*arguments, "-o", folder))
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def start(*arguments):
    """A driver in a process of its own, with one thread."""
    command = [sys.executable, "-m", "text2token", "encode", *map(str, arguments)]
    return subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True)


def finish(driver):
    assert end(driver)[0] == 0


def end(driver):
    """Exit code and standard error. A cluster that hangs is ended."""
    try:
        _, said = driver.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        driver.kill()
        raise
    return driver.returncode, said


def wait_for(found, driver):
    last = time.monotonic() + LIMIT
    while not found():
        assert driver.poll() is None, driver.stderr.read()
        if time.monotonic() > last:
            driver.kill()
            pytest.fail("nothing happened")
        time.sleep(0.02)


def actors(driver):
    processes = [child for child in psutil.Process(driver.pid).children(recursive=True) if child.is_running()]
    return [process for process in processes if "MapWorker" in " ".join(process.cmdline())]


def finished(folder):
    """Finished shards and when they were written."""
    return {file.name: file.stat().st_mtime_ns for file in folder.glob("shard-*.parquet")}


def test_two_actors_give_the_files_of_one_process_also_after_kills(arguments, expected, tmp_path):
    assert len(expected) == SHARDS + 1
    on_ray = ["--actors", "2", "--ray", "local"]

    folder = tmp_path / "worker"
    driver = start(*arguments, "-o", folder, *on_ray)
    wait_for(lambda: finished(folder), driver)
    before = finished(folder)
    actors(driver)[0].send_signal(signal.SIGKILL)
    assert len(before) < SHARDS
    finish(driver)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == expected
    assert before.items() <= finished(folder).items()  # no finished shard was encoded a second time

    folder = tmp_path / "driver"
    driver = start(*arguments, "-o", folder, *on_ray)
    wait_for(lambda: finished(folder), driver)
    workers = actors(driver)
    driver.kill()
    driver.communicate()
    assert not psutil.wait_procs(workers, timeout=60)[1]  # they end with the driver
    before = finished(folder)
    assert len(before) < SHARDS
    finish(start(*arguments, "-o", folder, *on_ray))
    assert before.items() <= finished(folder).items()
    assert {file.name: file.read_bytes() for file in folder.glob("s*")} == expected


@pytest.mark.parametrize("address", ["127.0.0.1:1", "ray://127.0.0.1:1"])
def test_a_cluster_that_is_not_there_is_refused(arguments, tmp_path, address):
    code, said = end(start(*arguments, "-o", tmp_path / "s", "--ray", address))
    assert (code, said.count("\n")) == (2, 1), said
    assert f"Error: There is no Ray cluster at '{address}'" in said


def test_an_error_in_an_actor_is_a_sentence(arguments, tmp_path):
    backbone, documents, *settings = arguments
    own = tmp_path / "docs.jsonl"
    shutil.copy(documents, own)
    done("encode", backbone, own, *settings, "-o", tmp_path / "s", "--shard", "0")
    own.write_text(own.read_text()[:-3] + "  \n")  # the same size, and no object at the end
    code, said = end(start(backbone, own, *settings, "-o", tmp_path / "s", "--ray", "local"))
    (error,) = [line for line in said.splitlines() if not line.startswith("[")]  # Ray logs its own level
    assert code == 2
    assert "malformed JSON" in error


@pytest.fixture
def cluster():
    """A cluster of one machine with two CPUs, as ``ray start`` makes it."""
    command = [Path(sys.executable).with_name("ray"), "start", "--head", "--block", "--num-cpus", "2", "--port", "0"]
    options = ["--include-dashboard", "false", "--object-store-memory", str(100 * 2**20), "--disable-usage-stats"]
    process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
    assert any("Ray runtime started" in line for line in process.stdout)
    yield
    processes = [process, *psutil.Process(process.pid).children(recursive=True)]
    process.terminate()
    psutil.wait_procs(processes, timeout=60)


def test_a_cluster_that_runs_already_is_used_or_waited_for(cluster, arguments, expected, tmp_path):
    finish(start(*arguments, "-o", tmp_path / "cluster", "--ray", "auto"))
    assert {file.name: file.read_bytes() for file in (tmp_path / "cluster").iterdir()} == expected
    driver = start(*arguments, "-o", tmp_path / "waits", "--ray", "auto", "--actor-gpus", "1")
    assert any("Ray waits until one joins" in line for line in driver.stderr)
    driver.kill()
    driver.communicate()
