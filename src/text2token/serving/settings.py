"""Limits and permissions of a server."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class ServerSettings:
    """What a server may do, and how much it takes at once.

    Attributes:
        model: Name or folder of the model, as requests and ``/info`` show it.
        indexes: Index folders by the name that requests use.
        writable: Whether documents may be added and deleted.
        keys: Accepted API keys; empty: no key is needed.
        batch_tokens: Padded tokens of a full batch. 1,024 (ours): on two CPU cores larger batches are not faster, and a query
            that arrives meanwhile waits for one batch.
        queue_tokens: Tokens that may wait. 2**19 (ours): 2,048 texts of 256 tokens.
        max_inputs: Texts of one request. 2,048, as OpenAI's API.
        max_bytes: Bytes of a request body. 16 MiB (ours): 2,048 texts of 8 kB.
        against: Name of the plain backbone that explanations show beside the model.
    """

    model: str
    indexes: dict[str, Path] = field(default_factory=dict)
    writable: bool = False
    keys: tuple[str, ...] = ()
    batch_tokens: int = 1_024
    queue_tokens: int = 2**19
    max_inputs: int = 2_048
    max_bytes: int = 16 * 2**20
    against: str | None = None
