"""Connections to the catalog's database: made when first needed, shared by threads, replaced when they break."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import psycopg
from psycopg.abc import PQGen
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from hop_archive.catalog import sql
from hop_archive.catalog.postgres_errors import Server
from hop_archive.errors import UnavailableError

Answer = TypeVar("Answer")

_STATEMENT_S = 300.0
"""No statement of ours comes near this; one that does is stuck."""
_IDLE_IN_TRANSACTION_S = 60.0
"""A process that stops within a transaction is thrown out after this, and what it held is free."""


class _SilentError(psycopg.OperationalError):
    """The server neither answers nor closes the connection."""


class _Connection(psycopg.Connection[TupleRow]):
    """A connection that gives up a server which has stopped, or whose network lost the line without a word.

    The limits that the server keeps for us are no use then.

    Attributes:
        patience_s: How long an answer may take.
    """

    patience_s = _STATEMENT_S + 30.0  # the server, if it lives, breaks off first

    def wait(self, gen: PQGen[Answer], *args: Any, **options: Any) -> Answer:
        """Wait as psycopg does, but not for ever."""
        try:
            return super().wait(_impatient(gen, self.patience_s), *args, **options)
        except _SilentError:
            self.close()  # else the transaction's end would wait for an answer again
            raise


def _impatient(steps: PQGen[Answer], patience_s: float) -> PQGen[Answer]:
    """``steps``, broken off where the server is not ready for the next one in time.

    psycopg steps such a generator when the socket is ready, and at short intervals when it is not (then
    with a false value).
    """
    deadline = time.monotonic() + patience_s
    try:
        wanted = next(steps)
        while True:
            ready = yield wanted
            if not ready and time.monotonic() > deadline:
                raise _SilentError(f"it has said nothing for {patience_s:.0f} s")
            wanted = steps.send(ready)
    except StopIteration as done:
        answer: Answer = done.value
        return answer


class Connections:
    """A lazily opened pool of connections in autocommit mode; thread-safe.

    A connection that the server dropped is found out when it is taken, and replaced: after a restart of
    the server the next call works.

    Args:
        server: Where to.
        schema: The catalog's schema: the only one in which statements look for tables.
        size: Most connections at once.
    """

    def __init__(self, server: Server, schema: str, size: int) -> None:
        self._server = server
        self._schema = schema
        self._size = size
        self._lock = threading.Lock()
        self._pool: ConnectionPool[_Connection] | None = None

    @contextmanager
    def lease(self) -> Iterator[psycopg.Connection]:
        """A connection for the length of the block; a transaction left open is rolled back.

        Raises:
            UnavailableError, ForbiddenError, MissingSettingError: There is none to be had.
            psycopg.Error: What the block raises passes through.
        """
        pool = self._opened()
        connection = self._take(pool)
        try:
            yield connection
        finally:
            pool.putconn(connection)

    def close(self) -> None:
        """Close all connections. The next lease opens anew."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _opened(self) -> ConnectionPool[_Connection]:
        with self._lock:
            if self._pool is None:
                self._server.connect().close()  # a wrong password is told now, not tried again for 10 s
                self._pool = self._new_pool()
            return self._pool

    def _new_pool(self) -> ConnectionPool[_Connection]:
        # What the pool logs of failed attempts, our errors tell; it is for those who set up logging.
        logging.getLogger("psycopg").addHandler(logging.NullHandler())
        return ConnectionPool(
            self._server.conninfo,
            kwargs={"autocommit": True},
            min_size=0,
            max_size=self._size,
            configure=self._configure,
            connection_class=_Connection,
            check=self._check,
            timeout=self._server.timeout_s,
            reconnect_timeout=self._server.timeout_s,
            num_workers=1,
            open=True,
        )

    def _configure(self, connection: psycopg.Connection) -> None:
        milliseconds = {
            "lock_ms": self._server.timeout_s,
            "statement_ms": _STATEMENT_S,
            "idle_ms": _IDLE_IN_TRANSACTION_S,
        }
        settings = {name: str(round(seconds * 1000)) for name, seconds in milliseconds.items()}
        connection.execute(sql.CONFIGURE, {"schema": self._schema, **settings})

    def _check(self, connection: _Connection) -> None:
        """Raise where a connection that has lain idle is no good any more; the pool then takes another.

        Should all of them have fallen silent, there is still time to make a new one.
        """
        usual = connection.patience_s
        connection.patience_s = self._server.timeout_s / (self._size + 1)
        ConnectionPool.check_connection(connection)
        connection.patience_s = usual

    def _take(self, pool: ConnectionPool[_Connection]) -> _Connection:
        try:
            return pool.getconn()
        except PoolTimeout as error:
            self._server.connect().close()  # says why, where the server is why
            raise UnavailableError(
                f"{self._server}: none of the {self._size} connections that this process may have came free"
                f" within {self._server.timeout_s:.0f} s.",
                remedy="Raise pool_size, or run fewer threads.",
                database=self._server.name,
            ) from error
