"""What every part of the catalog in Postgres stands on: connections, transactions, streams of rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, SerializationFailure

from hop_archive.catalog import sql
from hop_archive.catalog.postgres_errors import Server, translating
from hop_archive.catalog.postgres_pool import Connections
from hop_archive.catalog.postgres_rows import streamed

Result = TypeVar("Result")
Tuple = tuple[Any, ...]

_ATTEMPTS = 3
"""How often a transaction is tried that the server broke off to resolve a deadlock."""


class Session:
    """A database and the ways to ask it; the parts of the catalog inherit from this.

    Args:
        name: The stanza's name, for messages.
        dsn: Connection string, ``postgresql://…`` or ``host=… port=…``; its password is in no message.
        schema: Where the catalog's tables are.
        pool_size: Most connections at once. Every open stream of rows holds one.
        timeout_s: Longest wait for a connection, and for what another transaction holds.

    Raises:
        ConfigurationError: ``dsn`` is not a connection string.
    """

    def __init__(
        self, name: str, dsn: str, *, schema: str = "public", pool_size: int = 4, timeout_s: float = 10.0
    ) -> None:
        self._server = Server.of(name, dsn, timeout_s)
        self._connections = Connections(self._server, schema, pool_size)

    def __repr__(self) -> str:
        return f"PostgresCatalog({self._server})"

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""
        return self._server.name

    def close(self) -> None:
        """Let go of connections; closing twice is harmless, and a later call connects anew."""
        self._connections.close()

    def _fetch_raw(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Tuple]:
        with self._connections.lease() as connection:
            return connection.execute(statement, values, binary=True).fetchall()

    def _fetch(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Tuple]:
        with translating(self._server):
            return self._fetch_raw(statement, values)

    def _transact(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """``work`` in a transaction of its own, tried again where the server broke off a deadlock."""
        with translating(self._server):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._attempt(work)
                except (DeadlockDetected, SerializationFailure):
                    continue
            return self._attempt(work)

    def _attempt(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        with self._connections.lease() as connection, connection.transaction():
            return work(connection)

    def _stream(self, statement: str, *values: object) -> Iterator[Tuple]:
        """Rows through a server-side cursor; holds a connection and a transaction until it ends or is closed."""
        with translating(self._server), self._connections.lease() as connection, connection.transaction():
            connection.execute(sql.NO_IDLE_LIMIT)
            with connection.cursor(name="stream") as cursor:
                cursor.execute(statement, values, binary=True)
                yield from streamed(cursor)
