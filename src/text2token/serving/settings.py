"""Limits and permissions of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ServerSettings:
    """Limits and permissions of a server.

    Attributes:
        model: Name of the model in requests and in ``/info``.
        indexes: Name of an index in requests → its folder.
        writable: Whether requests may add and delete documents.
        partial: Whether a search goes on without the shards of a database that do not answer; the note of its results names them.
        keys: Accepted API keys. If there are none, a request needs no key.
        batch_tokens: Maximum number of padded tokens in a batch. 1,024 (ours): larger batches are not faster on two CPU cores,
            and a new query has to wait for the running batch.
        queue_tokens: Maximum number of tokens in the queue. 2**19 (ours): 2,048 texts of 256 tokens.
        max_inputs: Maximum number of texts in a request. 2,048, as in OpenAI's API.
        max_bytes: Maximum size of a request body in bytes. 16 MiB (ours): 2,048 texts of 8 kB.
        against: Name of the plain backbone that explanations show beside the model.
    """

    model: str
    indexes: dict[str, Path] = field(default_factory=dict)
    writable: bool = False
    partial: bool = False
    keys: tuple[str, ...] = ()
    batch_tokens: int = 1_024
    queue_tokens: int = 2**19
    max_inputs: int = 2_048
    max_bytes: int = 16 * 2**20
    against: str | None = None
