"""``text2token serve``."""

from __future__ import annotations

import logging
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from text2token.cli.options import quiet_libraries
from text2token.utils.errors import UserError

if TYPE_CHECKING:
    from text2token.serving import Service


@click.command("serve")
@click.argument("model")
@click.option(
    "--index",
    "folders",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Folder of an index to search. May be repeated.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="Port to listen on. 0 takes any free port.",
)
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "bf16"]),
    default="auto",
    show_default=True,
    help="bf16 is twice as fast where the hardware has it. auto takes it there.",
)
@click.option("--against", help="Language model that explanations show beside MODEL.")
@click.option("--writable", is_flag=True, help="Allow requests that add and delete documents.")
@click.option(
    "--api-key",
    "keys",
    multiple=True,
    envvar="TEXT2TOKEN_API_KEY",
    help="Key that each request must carry. May be repeated.",
)
@click.option("--api-key-file", type=click.Path(path_type=Path), help="File of keys, one per line.")
@click.option(
    "--batch-tokens",
    type=click.IntRange(1),
    default=1024,
    show_default=True,
    help="Number of padded tokens in a batch.",
)
@click.option(
    "--queue-tokens",
    type=click.IntRange(1),
    default=2**19,
    show_default=True,
    help="Number of tokens that may wait in the queue.",
)
@click.option(
    "--log-format", type=click.Choice(["lines", "json"]), default="lines", show_default=True, help="Form of the log."
)
def serve_command(
    model: str,
    folders: tuple[Path, ...],
    host: str,
    port: int,
    precision: str,
    against: str | None,
    writable: bool,
    keys: tuple[str, ...],
    api_key_file: Path | None,
    batch_tokens: int,
    queue_tokens: int,
    log_format: str,
) -> None:
    """Serve MODEL over HTTP: embeddings, sparse vectors, explanations, search, and an explorer in the browser.

    Clients of OpenAI's API find it at /v1, those of text-embeddings-inference at /. The explorer is at / in a browser.

    \b
    Example:
      text2token serve model --index index --port 8080
      curl 127.0.0.1:8080/embed -H 'Content-Type: application/json' -d '{"inputs": "The cat sat on the mat."}'
    """
    try:
        import uvicorn
    except ImportError:
        raise UserError("The server needs more packages: install text2token[serve].") from None
    listener = _listen(host, port)
    quiet_libraries()
    from text2token.serving import ServerSettings, create_app

    settings = ServerSettings(
        model=Path(model).name or model,
        indexes=_by_name(folders),
        writable=writable,
        keys=(*keys, *(_read_keys(api_key_file) if api_key_file else ())),
        batch_tokens=batch_tokens,
        queue_tokens=queue_tokens,
        against=against,
    )
    app = create_app(_service(model, settings, precision))
    own = listener.getsockname()
    shown = f"[{own[0]}]" if ":" in own[0] else own[0]
    click.echo(f"Serving {settings.model} at http://{shown}:{own[1]}", err=True)
    config = uvicorn.Config(app, log_config=_log_config(log_format), server_header=False, timeout_graceful_shutdown=60)
    uvicorn.Server(config).run(sockets=[listener])


def _service(model: str, settings: object, precision: str) -> Service:
    """The models and indexes of a server, opened."""
    from text2token.model.embedder import Embedder
    from text2token.model.precision import has_bf16
    from text2token.serving import ServerSettings, Service

    assert isinstance(settings, ServerSettings)
    embedder = Embedder.open(model)
    against = Embedder.open(settings.against) if settings.against else None
    for opened in filter(None, (embedder, against)):
        if precision == "bf16" or (precision == "auto" and has_bf16(opened.encoder.device)):
            opened.use_bf16()
    return Service(settings, embedder, against)


def _listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound before the model is loaded so that a port in use is told at once."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UserError(f"Cannot listen on {host}:{port} ({reason}): choose another --port or --host.") from error


def _by_name(folders: tuple[Path, ...]) -> dict[str, Path]:
    named: dict[str, Path] = {}
    for folder in folders:
        name = folder.resolve().name
        if name in named:
            raise UserError(f"Two indexes are named '{name}': rename the folder of one.")
        named[name] = folder
    return named


def _read_keys(file: Path) -> tuple[str, ...]:
    try:
        keys = tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"Cannot read the keys in '{file}': {error}.") from error
    if not keys:
        raise UserError(f"The file '{file}' holds no key: write one on each line.")
    return keys


def _log_config(form: str) -> dict[str, object]:
    """Logging of uvicorn and of ours to standard error; no line holds a key or a text of a request."""
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
    """A JSON object on each line."""

    def format(self, record: logging.LogRecord) -> str:
        """One record."""
        import json

        content = {"time": self.formatTime(record), "level": record.levelname, "logger": record.name}
        return json.dumps(content | {"message": record.getMessage()}, ensure_ascii=False)
