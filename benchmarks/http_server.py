"""Start a server in a process of its own, and end it after its measurement."""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import httpx2 as httpx


def ours(model: Path, precision: str) -> AbstractContextManager[tuple[str, subprocess.Popen[bytes]]]:
    """Start our server, see :func:`server`."""
    return server(sys.executable, "-m", "text2token", "serve", model, "--port", "0", "--precision", precision)


@contextmanager
def server(*command: str | Path, address: str = "") -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Start a server process, yield its address and the process once it answers, and end it after the block.

    Args:
        command: Program and arguments.
        address: Address of the server; without one, the server prints it.
    """
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        process = subprocess.Popen(command, stderr=log.open("w"), stdout=subprocess.DEVNULL)
        try:
            yield _address(log, process, address), process
        finally:
            process.terminate()
            process.wait(60)


def _address(log: Path, process: subprocess.Popen[bytes], address: str) -> str:
    while True:
        found = address or next(iter(re.findall(r"at (http://\S+)", log.read_text())), "")
        try:
            if found:
                httpx.get(found + "/health").raise_for_status()
                return found
        except httpx.HTTPError:
            pass
        if process.poll() is not None:
            raise SystemExit(log.read_text())
        time.sleep(0.1)
