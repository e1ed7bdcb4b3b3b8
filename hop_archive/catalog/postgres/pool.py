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
from psycopg.errors import ReadOnlySqlTransaction
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

from hop_archive.catalog.postgres.errors import NO_SESSION, DatabaseServer
from hop_archive.catalog.postgres.sql import REVISION, SETTINGS, VERSION_TABLE
from hop_archive.errors import HopArchiveError, UnavailableError

Answer = TypeVar("Answer")

_STATEMENT_S = 300.0
"""No statement of ours comes near this; one that does is stuck."""
_IDLE_IN_TRANSACTION_S = 60.0
"""A process that stops within a transaction is thrown out after this, and what it held is free."""

BEGIN = f"BEGIN ISOLATION LEVEL READ COMMITTED; {SETTINGS}"
"""Each transaction begins with it. What waits for another's row has to see what that one made of it, whatever the role's
``default_transaction_isolation`` is. ``default_transaction_read_only`` stands: who sets it wants it."""


VERSION = f"SELECT version_num FROM {VERSION_TABLE}"

MAY_KNOW_VERSION = """
    SELECT coalesce(has_table_privilege(to_regclass(%(table)s), 'SELECT'), false),
           EXISTS (SELECT FROM pg_namespace WHERE nspname = %(schema)s AND NOT has_schema_privilege(oid, 'USAGE'))
"""
"""And whether the schema is closed to us: Postgres says of what is in one that it is not there, as if nobody had migrated it."""


class _SilentError(psycopg.OperationalError):
    """The server neither answers nor closes the connection."""


class _Connection(psycopg.Connection[TupleRow]):
    """A connection that gives up a server which has stopped, or whose network lost the line without a word.

    The limits that the server keeps for us are no use then.

    Attributes:
        patience_s: How long an answer may take.
        has_answered: Whether it was of use before, so that a silence means that it is broken.
    """

    patience_s = _STATEMENT_S + 30.0  # the server, if it lives, breaks off first
    has_answered = False

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
        awaited = next(steps)
        while True:
            ready = yield awaited
            if not ready and time.monotonic() > deadline:
                raise _SilentError(f"it has said nothing for {patience_s:.0f} s")
            awaited = steps.send(ready)
    except StopIteration as done:
        answer: Answer = done.value
        return answer


class Connections:
    """A lazily opened pool of connections; thread-safe.

    A connection lives from transaction to transaction, and nothing in between: no setting, prepared statement, cursor or
    lock of ours outlives the transaction that it is made in. So a pooler that gives each transaction another session of
    the server (PgBouncer in transaction mode, RDS Proxy) may stand in between, and what others do to those sessions
    does not reach us: see ``sql.SETTINGS``.

    A connection that the server dropped is found out when it is taken, and replaced: after a restart of
    the server the next call works.

    Args:
        server: Where to.
        schema: The catalog's schema: the only one in which statements look for tables.
        size: Most connections at once.
    """

    def __init__(self, server: DatabaseServer, schema: str, size: int) -> None:
        self._server = server
        self._schema = schema
        self._size = size
        self._lock = threading.Lock()
        self._pool: ConnectionPool[_Connection] | None = None
        self._refusal: psycopg.Error | None = None
        self._is_known = False

    @contextmanager
    def lease(self, *, commits: bool = True) -> Iterator[psycopg.Connection]:
        """A connection with a transaction open that lasts as long as the block; rolled back where the block raises.

        Args:
            commits: Whether the transaction is committed at the block's end, or rolled back there, too.

        Raises:
            UnavailableError, ForbiddenError, MissingSettingError: There is no connection to be had, or the schema is closed to it.
            ConfigurationError: A later version has migrated the catalog.
            psycopg.Error: What the block or the commit raises passes through; it may have been committed where the
                connection was lost in between.
        """
        pool = self._opened()
        connection = self._take(pool)
        try:
            self._refuse_later_version(connection)
            yield connection
            if commits:
                connection.commit()
        except ReadOnlySqlTransaction:
            # This was the primary once, and another is: by its name, the next connection finds that one.
            if commits:
                connection.close()
            raise
        except (psycopg.OperationalError, HopArchiveError):
            raise
        except Exception as error:
            # Where a pooler loses the server, its answer comes after the server's own last one, and psycopg, which expects
            # one answer, calls that whatever it was about.
            if not _roll_back(connection):
                raise psycopg.OperationalError(f"the connection was lost: {error}") from error
            raise
        finally:
            _roll_back(connection)
            pool.putconn(connection)

    def close(self) -> None:
        """Close all connections. The next lease opens anew."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.close()

    def _refuse_later_version(self, connection: psycopg.Connection) -> None:
        """Once, whoever asks first: a command, a run or tick of Dagster, a notebook. Who works on while it is migrated may."""
        if not self._is_known:
            # Asked first: an error would end the transaction. A reader's role may be of somebody else's making, without the right.
            names = {"table": VERSION_TABLE, "schema": self._schema}
            ((may, is_closed),) = connection.execute(MAY_KNOW_VERSION, names).fetchall()
            if is_closed:
                raise self._server.closed(self._schema)
            found = connection.execute(VERSION).fetchall() if may else []
            for version in (version for (version,) in found if version > REVISION):
                raise self._server.too_new(version)
            self._is_known = True

    def _opened(self) -> ConnectionPool[_Connection]:
        with self._lock:
            if self._pool is None:
                self._server.connect().close()  # a wrong password is found now, not tried again for 10 s
                # What the pool logs of failed attempts, our errors tell; it is for those who set up logging.
                logging.getLogger("psycopg").addHandler(logging.NullHandler())
                self._pool = ConnectionPool(
                    lambda: self._server.conninfo,  # asked at each attempt: it changes with the password
                    kwargs={"autocommit": True, **NO_SESSION},  # transactions are begun here, not by psycopg
                    min_size=0,
                    max_size=self._size,
                    connection_class=_Connection,
                    check=self._begin,
                    timeout=self._server.timeout_s,
                    reconnect_timeout=self._server.timeout_s,
                    num_workers=1,
                    open=True,
                )
            return self._pool

    def _begin(self, connection: _Connection) -> None:
        """Begin a transaction with our settings, which also shows whether a connection that has lain idle is any good.

        Should all of them have fallen silent, there is still time to make a new one. A new one may be silent, too: a pooler
        lets in whoever comes, and then waits for a server.
        """
        limits = {
            "lock_ms": self._server.timeout_s,
            "statement_ms": _STATEMENT_S,
            "idle_ms": _IDLE_IN_TRANSACTION_S,
        }
        settings = {name: str(round(limit * 1000)) for name, limit in limits.items()}
        usual = connection.patience_s
        connection.patience_s = self._server.timeout_s / (self._size + 1 if connection.has_answered else 1)
        try:
            # Bound by the client: only so do two statements go in one message, and begin a transaction in one round trip.
            psycopg.ClientCursor(connection).execute(BEGIN, {"schema": self._schema, **settings})
        except psycopg.Error as error:
            self._refusal = error  # the pool does not tell it
            raise
        connection.patience_s, connection.has_answered = usual, True
        self._refusal = None

    def _take(self, pool: ConnectionPool[_Connection]) -> _Connection:
        try:
            return pool.getconn()
        except PoolTimeout as error:
            tried = self._server.conninfo
            self._server.connect().close()  # says why, where the server is why
            if self._server.conninfo == tried:
                raise self._in_vain() from error
        try:  # with the credentials that there are now
            return pool.getconn()
        except PoolTimeout as error:
            raise self._in_vain() from error

    def _in_vain(self) -> Exception:
        """Why no connection was to be had, though the server takes those that are asked for it."""
        if self._refusal is not None:
            return self._server.translated(self._refusal)
        return UnavailableError(
            f"{self._server}: none of the {self._size} connections that this process may have came free"
            f" within {self._server.timeout_s:.0f} s.",
            remedy="Raise pool_size, or run fewer threads.",
            database=self._server.name,
        )


def _roll_back(connection: psycopg.Connection) -> bool:
    """Whether the connection is still good for something; one that is not has rolled back by itself."""
    try:
        connection.rollback()
    except psycopg.Error:
        return False
    return not connection.broken
