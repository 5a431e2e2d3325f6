"""``text2token serve``."""

from __future__ import annotations

import logging
import os
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from text2token.cli.options import grouped, partial_option, path_type, precision_option, quiet_libraries
from text2token.data.lines import read_lines
from text2token.serving.settings import ServerSettings
from text2token.settings.choices import Precision
from text2token.utils.errors import UserError, requires_extra

if TYPE_CHECKING:
    from text2token.serving import Service

_KEY_VARIABLE = "TEXT2TOKEN_API_KEY"
_GRACE = 60  # seconds after SIGTERM in which requests may end; whatever kills the server must wait longer


@dataclass(frozen=True)
class Address:
    """The options that say where the server listens."""

    host: str
    port: int

    def listen(self) -> socket.socket:
        """Return a listening socket. It is bound before the model is loaded, so that a port in use is told at once.

        Raises:
            UserError: The address cannot be used.
        """
        if not self.host.strip():  # a socket would take it for all addresses
            raise UserError("The value of --host is empty: name an address, or leave the option out.")
        try:
            family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
            return socket.create_server((self.host, self.port), family=family, backlog=2048)
        except (OSError, OverflowError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise UserError(
                f"Cannot listen on {self.host}:{self.port} ({reason}): choose another --port or --host."
            ) from error


@dataclass(frozen=True)
class Access:
    """The options that say who may use the server, and for what."""

    writable: bool
    given: tuple[str, ...]
    file: Path | None

    def keys(self) -> tuple[str, ...]:
        """Return the keys of the command line, or else the one of the environment, and those of the file.

        Raises:
            UserError: A key is empty, or the file cannot be read or holds none.
        """
        given = tuple(key.strip() for key in self.given)
        if not all(given):
            raise UserError("The value of --api-key is empty: name a key, or leave the option out.")
        if not given and (variable := os.environ.get(_KEY_VARIABLE)) is not None:
            given = (variable.strip(),)
            if not all(given):
                raise UserError(f"The variable {_KEY_VARIABLE} is empty: set it to a key, or unset it.")
        return (*given, *(_read_keys(self.file) if self.file else ()))


@click.command("serve")
@click.argument("model")
@click.option(
    "--index", "folders", multiple=True, type=path_type, help="Folder of an index to search. May be repeated."
)
@partial_option
@grouped(
    "address",
    Address,
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on."),
    click.option(
        "--port",
        type=click.IntRange(0, 65535),
        default=8080,
        show_default=True,
        help="Port to listen on. 0 takes any free port.",
    ),
)
@precision_option
@click.option("--against", help="Language model that explanations show beside MODEL.")
@grouped(
    "access",
    Access,
    click.option("--writable", is_flag=True, help="Allow requests that add and delete documents."),
    click.option(
        "--api-key",
        "given",
        multiple=True,
        help=f"Key that each request must carry. May be repeated. Without it, {_KEY_VARIABLE} gives the key.",
    ),
    click.option("--api-key-file", "file", type=path_type, help="File of keys, one per line."),
)
@grouped(
    "limits",
    dict,
    click.option(
        "--batch-tokens",
        type=click.IntRange(1),
        default=ServerSettings.batch_tokens,
        show_default=True,
        help="Number of padded tokens in a batch.",
    ),
    click.option(
        "--queue-tokens",
        type=click.IntRange(1),
        default=ServerSettings.queue_tokens,
        show_default=True,
        help="Number of tokens that may wait in the queue.",
    ),
    click.option(
        "--max-bytes",
        type=click.IntRange(1),
        default=ServerSettings.max_bytes,
        show_default=True,
        help="Number of bytes in the body of a request.",
    ),
)
@click.option(
    "--log-format", type=click.Choice(["lines", "json"]), default="lines", show_default=True, help="Form of the log."
)
@click.option(
    "--traces",
    is_flag=True,
    help="Send a span for each request by OpenTelemetry; the OTEL_* variables of the environment say where.",
)
def serve_command(
    model: str,
    folders: tuple[Path, ...],
    partial: bool,
    address: Address,
    precision: Precision | None,
    against: str | None,
    access: Access,
    limits: dict[str, int],
    log_format: str,
    traces: bool,
) -> None:
    """Serve MODEL over HTTP: embeddings, sparse vectors, explanations, search, and an explorer in the browser.

    Clients of OpenAI's API find it at /v1, those of text-embeddings-inference at /. The explorer is at / in a browser.

    \b
    Example:
      text2token serve model --index index --port 8080
      curl 127.0.0.1:8080/embed -H 'Content-Type: application/json' -d '{"inputs": "The cat sat on the mat."}'
    """
    keys, indexes = access.keys(), _by_name(folders)
    listener = address.listen()
    quiet_libraries()
    with requires_extra("serve"):
        import uvicorn

        from text2token.serving import create_app
        from text2token.serving.traces import trace
    settings = ServerSettings(
        model=Path(model).name or model,
        indexes=indexes,
        writable=access.writable,
        partial=partial,
        keys=keys,
        against=against,
        **limits,
    )
    app = create_app(_service(model, settings, precision or "auto"), trace if traces else None)
    own = listener.getsockname()
    shown = f"[{own[0]}]" if ":" in own[0] else own[0]
    click.echo(f"Serving {settings.model} at http://{shown}:{own[1]}", err=True)
    log = _log_config(log_format)
    config = uvicorn.Config(app, log_config=log, server_header=False, timeout_graceful_shutdown=_GRACE)
    uvicorn.Server(config).run(sockets=[listener])


def _service(model: str, settings: ServerSettings, precision: Precision) -> Service:
    """Open the models and indexes of a server."""
    from text2token.model.embedder import Embedder
    from text2token.serving import Service

    embedder = Embedder.open(model)
    against = Embedder.open(settings.against) if settings.against else None
    for opened in filter(None, (embedder, against)):
        opened.use_precision(precision)
    return Service(settings, embedder, against)


def _by_name(folders: tuple[Path, ...]) -> dict[str, Path]:
    """Index folders by their names, under which requests find them."""
    named: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in named:
            raise UserError(f"Two indexes are named '{name}': rename the folder of one.")
        named[name] = folder
    return named


def _read_keys(file: Path) -> tuple[str, ...]:
    """Return the keys in a text file; blank lines are skipped."""
    try:
        keys = tuple(key for line in read_lines(file) if (key := line.strip()))
    except OSError as error:
        raise UserError(f"Cannot read the keys in '{file}' ({error.strerror}): check the path.") from error
    if not keys:
        raise UserError(f"The file '{file}' holds no key: write one on each line.")
    return keys


def _log_config(form: str) -> dict[str, object]:
    """Return a configuration that logs to standard error. The lines of requests hold neither keys nor texts."""
    formatter = (
        {"()": f"{__name__}.JsonFormatter"} if form == "json" else {"format": "%(asctime)s %(levelname)s %(message)s"}
    )
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"own": formatter},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "stream": sys.stderr, "formatter": "own"}},
        "loggers": {
            name: {"handlers": ["stderr"], "level": "INFO", "propagate": False} for name in ("uvicorn", "text2token")
        },
    }


class JsonFormatter(logging.Formatter):
    """Writes each record as a JSON object on a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record."""
        import json

        content = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        content["message"] = record.getMessage()
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        if record.stack_info:
            content["stack"] = self.formatStack(record.stack_info)
        return json.dumps(content, ensure_ascii=False)
