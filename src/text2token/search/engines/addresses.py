"""Addresses of engines: how they are written, and the form in which an index keeps them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from text2token.settings.search import EngineName
from text2token.utils.errors import UserError, check_choice

_USER = re.compile(r"^(\w+://[^:@/?]*):[^/?]*@")
_SECRETS = re.compile(r"(?<=[?&])(password|sslpassword)=[^&]*(&|$)")
EXAMPLES: dict[EngineName, str] = {
    "milvus": "http://host:19530, or to a file that ends in .db",
    "postgres": "postgresql://user@host:5432/database (';' between shards, ',' between the hosts of a shard)",
    "qdrant": "http://host:6333",
}
"""How the address of each engine is written; the embedded engine has none."""
_FORMS: dict[EngineName, re.Pattern[str]] = {
    "milvus": re.compile(r".+://.+|.+\.db"),
    "postgres": re.compile(r"(postgres(ql)?://[^;/?]*([/?][^;@]*)?)(;postgres(ql)?://[^;/?]*([/?][^;@]*)?)*"),
    "qdrant": re.compile(r"https?://[^@]+"),
}


def stored_address(engine: EngineName, uri: str | None) -> str | None:
    """Check an address, and return the form that an index keeps: without passwords, and the path of a file in full.

    Raises:
        UserError: It is not an address of the engine. The message does not repeat an address that may hold a password.
    """
    check_choice("engine", engine, get_args(EngineName))
    if engine == "embedded":
        if uri is not None:
            raise UserError("The embedded engine has no address: leave `uri` out, or choose another `engine`.")
        return None
    if uri is None:
        if engine == "milvus":
            return None
        raise UserError(f"The engine {engine} needs an address: set `uri` to {EXAMPLES[engine]}.")
    if not _FORMS[engine].fullmatch(uri):
        named = f"'{uri}'" if "@" not in uri else "The `uri`"
        raise UserError(f"{named} is not an address of {engine}: set `uri` to {EXAMPLES[engine]}.")
    if "://" not in uri:
        return str(Path(uri).resolve())
    return ";".join(map(without_password, uri.split(";")))


def without_password(uri: str) -> str:
    """An address without its passwords; the name of the user stays."""
    return _SECRETS.sub("", _USER.sub(r"\1@", uri)).rstrip("?&")
