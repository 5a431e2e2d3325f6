"""One shard of the PostgreSQL engine: a database that one or several servers hold, and how it is reached."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, TypeVar

from psycopg import Connection, Error, OperationalError, ProgrammingError, conninfo, errors
from psycopg_pool import ConnectionPool, PoolTimeout

from text2token.search.engines.base import LostShardError
from text2token.utils.errors import UnavailableError, UserError

T = TypeVar("T")
_DEFAULTS = {  # of the connection; an address may say otherwise
    "connect_timeout": "2",  # seconds for each host, so that a replica answers soon
    "tcp_user_timeout": "5000",  # milliseconds until a host that vanished without a word counts as gone
    "application_name": "text2token",
}
_WAIT = 5.0  # seconds for a free connection, which includes connecting
_CONNECTIONS = 8  # searches that one shard answers at the same time
_QUOTED = 300  # characters of a message of the server
_LOST = ("08", "57P")  # classes of error codes of a server that ends a connection; if it just vanishes there is no code

logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)  # it logs every failed attempt; we raise an error


class Shard:
    """A database with a part of the documents.

    Reads go to the primary; if it does not answer, a replica answers. A write needs the primary.

    Attributes:
        number: Number of the shard, from 1.
        count: Number of all shards.
        name: What messages call the shard: its number and hosts.
    """

    def __init__(self, uri: str, number: int, count: int, session: Mapping[str, str]) -> None:
        """Read an address. Nothing is connected yet.

        Args:
            uri: Address of one database on one or several hosts, as libpq reads it.
            number: Number of the shard, from 1.
            count: Number of all shards.
            session: Settings of the server for every connection.

        Raises:
            UserError: libpq cannot read the address.
        """
        try:
            given = {key: value for key, value in conninfo.conninfo_to_dict(uri).items() if value is not None}
        except ProgrammingError:  # its message repeats the address, which may hold a password
            raise UserError(
                f"PostgreSQL cannot read the address of shard {number}: write postgresql://user@host:5432/database, "
                "and special characters as %XX."
            ) from None
        self.number, self.count = number, count
        self.name = f"shard {number} of {count} ({given.get('host') or 'this host'})"
        self._conninfo = conninfo.make_conninfo("", **{**_DEFAULTS, **given})
        self._session = session

    def run(self, work: Callable[[Connection[Any]], T]) -> T:
        """Do some work with a connection. If the connection is lost, the work is done again with another one.

        Raises:
            LostShardError: No server answers, or only a replica does, which takes no additions.
            UnavailableError: The server refuses the work.
        """
        try:
            try:
                return self._attempt(work)
            except Error as error:
                if not _is_lost(error):
                    raise
                self._connect().close()  # if no server answers, its error is raised at once
                self._pool.drain()  # the other connections lead to the same server as the lost one
                return self._attempt(work)
        except errors.ReadOnlySqlTransaction as error:
            raise LostShardError(
                f"{self._title}: only a replica answers, which takes no changes: start or promote a primary, "
                "then repeat the command."
            ) from error
        except Error as error:
            if not _is_lost(error):
                raise UnavailableError(f"{self._title} refuses the work ({_said(error)}).") from error
            raise LostShardError(
                f"{self._title} does not answer ({_said(error)}): start it, or check `uri`, PGUSER and PGPASSWORD."
            ) from error

    def close(self) -> None:
        """Close the connections, if there are any."""
        if "_pool" in vars(self):
            self._pool.close()

    @property
    def _title(self) -> str:
        return f"PostgreSQL, {self.name}"

    def _attempt(self, work: Callable[[Connection[Any]], T]) -> T:
        pool = self._pool
        try:
            with pool.connection() as connection:
                return work(connection)
        except PoolTimeout as error:
            self._connect().close()  # raises the reason, which the pool does not tell
            raise OperationalError(f"all {_CONNECTIONS} connections are busy") from error

    @cached_property
    def _pool(self) -> ConnectionPool[Connection[Any]]:
        """Open connections. The first one is made here, so that its error is raised at once."""
        self._connect().close()
        return ConnectionPool(
            self._conninfo,
            connection_class=_PrimaryFirst,
            kwargs={"autocommit": True},
            configure=self._configure,
            min_size=0,
            max_size=_CONNECTIONS,
            timeout=_WAIT,
            reconnect_timeout=0,  # each search tries again; there is no growing pause between attempts
            num_workers=1,
            open=True,
        )

    def _connect(self) -> Connection[Any]:
        return _PrimaryFirst.connect(self._conninfo)

    def _configure(self, connection: Connection[Any]) -> None:
        for name, value in self._session.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, value))


class _PrimaryFirst(Connection[Any]):
    """A connection to the primary among the hosts; if there is none, to any host."""

    @classmethod
    def connect(cls, conninfo: str = "", **settings: Any) -> Any:
        """Ask each host once, so that a host that does not answer costs one timeout."""
        replica, failures = None, []
        for address in _hosts(conninfo):
            try:
                connection = super().connect(address, **settings)
            except OperationalError as error:
                failures.append(error)
                continue
            if connection.info.parameter_status("in_hot_standby") != "on":
                if replica:
                    replica.close()
                return connection
            if replica:
                connection.close()
            replica = replica or connection
        if replica is None:
            raise failures[0]
        return replica


def _hosts(address: str) -> list[str]:
    """An address of several hosts as one address for each; with one port or one for each host, as libpq reads it."""
    parts = conninfo.conninfo_to_dict(address)
    split = {name: str(parts[name]).split(",") for name in ("host", "hostaddr", "port") if parts.get(name)}
    number = max((len(values) for values in split.values()), default=1)
    return [
        conninfo.make_conninfo("", **parts | {name: values[i % len(values)] for name, values in split.items()})
        for i in range(number)
    ]


def _is_lost(error: Error) -> bool:
    """Whether another connection may do better: this one is lost, or leads to a replica that was asked to write."""
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return True
    return isinstance(error, OperationalError) and (error.sqlstate or "08").startswith(_LOST)


def _said(error: Error) -> str:
    """The message of an error in one line."""
    return " ".join((error.diag.message_primary or str(error)).split())[:_QUOTED].rstrip(".")
