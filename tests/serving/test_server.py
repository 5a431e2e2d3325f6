"""A real server process, and the clients that people have."""

import concurrent.futures
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx2 as httpx
import numpy as np
import pytest

from conftest import SENTENCES, refused
from text2token.cli.serve import _read_keys
from text2token.model.embedder import Embedder
from text2token.search import Index

pytestmark = pytest.mark.serving


class Server:
    """A server process on a free port."""

    def __init__(self, log, *arguments):
        self.log = log
        command = [
            sys.executable,
            "-m",
            "text2token",
            "serve",
            *map(str, arguments),
            "--port",
            "0",
            "--precision",
            "fp32",
        ]
        environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
        self.process = subprocess.Popen(command, stderr=log.open("w"), env=environment)
        self.url = self._wait_for_address()

    def _wait_for_address(self):
        for _ in range(1_200):
            if found := re.search(r"at (http://\S+)", self.log.read_text()):
                url = found[1]
                break
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        for _ in range(300):
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    return url
            except httpx.HTTPError:
                time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def stop(self, number=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


@pytest.fixture
def start(tmp_path):
    servers = []

    def make(*arguments):
        servers.append(Server(tmp_path / f"{len(servers)}.log", *arguments))
        return servers[-1]

    yield make
    for server in servers:
        server.stop(signal.SIGKILL)


@pytest.fixture
def server(start, model_folder, index_folder):
    return start(model_folder, "--index", index_folder)


def test_openais_client_as_it_is(server, model_folder):
    openai = pytest.importorskip("openai")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0)
    given = client.embeddings.create(model="tiny", input=SENTENCES)  # asks for base64 by itself
    vectors = np.array([row.embedding for row in given.data])
    np.testing.assert_allclose(vectors, Embedder.open(model_folder).encode(SENTENCES), atol=1e-6)
    assert client.models.list().data[0].id == "tiny"
    with pytest.raises(openai.NotFoundError, match="'gpt-5' is not served here") as error:
        client.embeddings.create(model="gpt-5", input="a")
    assert error.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="cannot be shortened"):
        client.embeddings.create(model="tiny", input="a", dimensions=3)


def test_the_hubs_client_as_it_is(server, model_folder, monkeypatch):
    from huggingface_hub import InferenceClient

    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", False
    )  # which this client heeds even for our address
    client = InferenceClient(server.url)
    expected = Embedder.open(model_folder).encode(SENTENCES[:1])
    np.testing.assert_allclose(client.feature_extraction(SENTENCES[0]), expected, atol=1e-6)
    similarity = client.sentence_similarity(SENTENCES[0], SENTENCES[1:3])
    np.testing.assert_allclose(similarity, Embedder.open(model_folder).encode(SENTENCES[1:3]) @ expected[0], atol=1e-6)


def test_the_clients_of_the_documentation_run(start, model_folder, tmp_path):
    shutil.copytree(model_folder, tmp_path / "model")
    server = start(tmp_path / "model")
    page = (Path(__file__).parents[2] / "docs" / "serving.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) == 2
    expected = Embedder.open(model_folder).encode(["The cat sat on the mat."])[0]
    for block in blocks:
        *lines, last = block.replace("http://127.0.0.1:8080", server.url).strip().splitlines()
        namespace = {}
        exec("\n".join(lines), namespace)
        np.testing.assert_allclose(eval(last, namespace), expected, atol=1e-6)


def test_a_key_file_and_json_lines_without_keys_and_texts(start, model_folder, tmp_path):
    (tmp_path / "keys").write_text("first-key\n\nsecond-key\n")
    server = start(model_folder, "--api-key-file", tmp_path / "keys", "--log-format", "json")
    assert httpx.get(f"{server.url}/info").status_code == 401
    headers = {"Authorization": "Bearer second-key"}
    assert httpx.post(f"{server.url}/embed", json={"inputs": "a secret text"}, headers=headers).status_code == 200
    server.stop()
    written = server.log.read_text()
    assert '"message": "' in written
    assert not any(word in written for word in ("second-key", "first-key", "secret"))


def test_a_port_in_use_is_told_before_the_model_is_loaded(model_folder):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        said = refused("serve", model_folder, "--port", taken.getsockname()[1])
    assert "Cannot listen on 127.0.0.1" in said


def test_an_index_of_another_model_is_refused(backbone, index_folder):
    assert "another model" in refused("serve", backbone("qwen3"), "--index", index_folder, "--port", "0")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--index", "nowhere"], "There is no index in 'nowhere'"),
        (["--api-key-file", "nowhere"], "Cannot read the keys in 'nowhere' (No such file or directory)"),
        (["--api-key-file", "."], "Cannot read the keys in '.' (Is a directory)"),
        (["--api-key", " "], "The value of --api-key is empty"),
        (["--host", ""], "The value of --host is empty"),
    ],
)
def test_what_cannot_be_served_is_one_sentence(model_folder, arguments, said):
    assert said in refused("serve", model_folder, *arguments, "--port", "0")


def test_a_file_of_keys_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "keys").write_text("\ufeffone\r\n\ntwo\r\n", encoding="utf-8")
    assert _read_keys(tmp_path / "keys") == ("one", "two")


def test_sigterm_finishes_what_was_asked(start, model_folder):
    server = start(model_folder, "--batch-tokens", "64")
    with concurrent.futures.ThreadPoolExecutor() as pool:
        asked = pool.submit(httpx.post, f"{server.url}/embed", json={"inputs": SENTENCES * 100}, timeout=120)
        while "te_batch_next_size_count 0.0" in httpx.get(f"{server.url}/metrics").text:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        assert len(asked.result().json()) == 100 * len(SENTENCES)
    assert server.process.wait(60) in (0, -signal.SIGTERM)  # uvicorn drains, then ends by the signal


def test_a_client_that_hangs_up_frees_its_place(start, model_folder):
    server = start(model_folder, "--batch-tokens", "32")
    with pytest.raises(httpx.TimeoutException):
        httpx.post(f"{server.url}/embed", json={"inputs": SENTENCES * 200}, timeout=0.5)
    for _ in range(100):
        if "te_queue_size 0.0" in httpx.get(f"{server.url}/metrics").text:
            break
        time.sleep(0.05)
        httpx.post(f"{server.url}/embed", json={"inputs": "a"})
    else:
        raise AssertionError("the texts of the client that is gone still wait")


def test_a_client_that_hangs_up_stops_its_stream(start, model_folder, index_folder):
    server = start(model_folder, "--index", index_folder)
    body = {"queries": ["a sitting cat", "the bank of a river"] * 1_000, "mode": "dense"}
    with httpx.stream("POST", f"{server.url}/search/stream", json=body, timeout=60) as response:
        next(response.iter_lines())

    def batches():
        return re.search(r"te_batch_next_size_count (\S+)", httpx.get(f"{server.url}/metrics").text)[1]

    time.sleep(0.5)
    stopped = batches()
    time.sleep(0.5)
    assert batches() == stopped
    assert float(stopped) < 2_000


def test_a_full_queue_says_when_to_come_back_and_recovers(start, model_folder):
    server = start(model_folder, "--queue-tokens", "2000", "--batch-tokens", "64")
    with concurrent.futures.ThreadPoolExecutor(32) as pool:
        body = {"inputs": SENTENCES * 5}
        answers = list(pool.map(lambda _: httpx.post(f"{server.url}/embed", json=body, timeout=120), range(64)))
    statuses = {answer.status_code for answer in answers}
    assert statuses == {200, 429}
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status_code == 429)
    assert httpx.post(f"{server.url}/embed", json=body, timeout=60).status_code == 200


def test_killed_during_additions_nothing_acknowledged_is_lost(start, model_folder, index_folder, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(index_folder, folder)
    server = start(model_folder, "--index", folder, "--writable")
    acknowledged = []
    for number in range(6):
        body = {"documents": [{"id": f"new-{number}-{row}", "text": f"A zebra, number {row}."} for row in range(20)]}
        answer = httpx.post(f"{server.url}/indexes/own/documents", json=body, timeout=60)
        acknowledged += [document["id"] for document in body["documents"]] if answer.status_code == 200 else []
        if number == 4:
            threading.Timer(0.05, server.stop, [signal.SIGKILL]).start()
            body = {"documents": [{"id": f"late-{row}", "text": f"A late text, number {row}."} for row in range(500)]}
            with pytest.raises(httpx.HTTPError):
                httpx.post(f"{server.url}/indexes/own/documents", json=body, timeout=60)
            break
    again = start(model_folder, "--index", folder)
    body = {"query": "zebra", "mode": "bm25", "k": 1_000}
    hits = httpx.post(f"{again.url}/search", json=body).json()["results"][0]["hits"]
    assert {hit["id"] for hit in hits} == set(acknowledged)
    assert len(Index.open(folder)) >= len(SENTENCES) + len(acknowledged)


def test_searches_go_on_while_documents_are_added(start, model_folder, index_folder, tmp_path):
    folder = tmp_path / "own"
    shutil.copytree(index_folder, folder)
    server = start(model_folder, "--index", folder, "--writable")
    stop, problems = threading.Event(), []

    def search():
        while not stop.is_set():
            answer = httpx.post(f"{server.url}/search", json={"query": "a sitting cat"}, timeout=60)
            if answer.status_code != 200 or not answer.json()["results"][0]["hits"]:
                problems.append(answer.text)

    threads = [threading.Thread(target=search) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(5):
        body = {"documents": [{"id": f"new-{number}", "text": f"A zebra crosses road {number}."}]}
        assert httpx.post(f"{server.url}/indexes/own/documents", json=body, timeout=60).status_code == 200
    stop.set()
    for thread in threads:
        thread.join()
    assert problems == []


def test_64_clients_for_a_minute(start, model_folder, index_folder):
    """Nothing lost, nothing wrong, and memory stays."""
    server = start(model_folder, "--index", index_folder)
    expected = Embedder.open(model_folder).encode(SENTENCES)
    seconds, wrong, done = 60, [], []
    ends = time.monotonic() + seconds

    def ask(number):
        with httpx.Client(base_url=server.url, timeout=60) as client:
            while time.monotonic() < ends:
                place = (number + len(done)) % len(SENTENCES)
                given = client.post("/embed", json={"inputs": SENTENCES[place]})
                if given.status_code != 200 or not np.allclose(given.json()[0], expected[place], atol=1e-5):
                    wrong.append(given.text)
                done.append(1)

    sizes = []

    def watch():
        while time.monotonic() < ends:
            sizes.append(int(Path(f"/proc/{server.process.pid}/statm").read_text().split()[1]))
            time.sleep(1)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(64)] + [threading.Thread(target=watch)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(done) > 64
    read = httpx.get(f"{server.url}/metrics").text
    assert f'te_request_success{{method="embed"}} {float(len(done))}' in read
    third = len(sizes) // 3
    assert max(sizes[-5:]) <= 1.05 * max(sizes[third : third + 5])
