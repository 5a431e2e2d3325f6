"""Addresses of engines: how they are written, and the form in which an index keeps them."""

from __future__ import annotations

import re
from typing import get_args

from text2token.settings.search import EngineName
from text2token.utils.errors import UserError, check_choice
from text2token.utils.files import local_path

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
        return full_address(uri)
    return ";".join(map(without_password, uri.split(";")))


def full_address(uri: str) -> str:
    """An address as an engine uses it: the path of a file in full, and any other as it is."""
    return uri if "://" in uri else str(local_path(uri).resolve())


def without_password(uri: str) -> str:
    """An address without its passwords; the name of the user stays."""
    return _SECRETS.sub("", _USER.sub(r"\1@", uri)).rstrip("?&")
