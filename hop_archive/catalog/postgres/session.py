"""What every part of the catalog in Postgres stands on: connections, transactions, streams of rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, SerializationFailure, UniqueViolation

from hop_archive.catalog.postgres import sql
from hop_archive.catalog.postgres.errors import Server, translating
from hop_archive.catalog.postgres.pool import Connections
from hop_archive.catalog.postgres.rows import streamed
from hop_archive.catalog.postgres.sequences import advance, sequences
from hop_archive.errors import SequenceBehindError
from hop_archive.model.conditions import SequenceCondition

log = logging.getLogger(__name__)

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
        renew: Asks for ``dsn`` anew where the server refuses the credentials; None: nobody can tell others.

    Raises:
        ConfigurationError: ``dsn`` is not a connection string.
    """

    def __init__(
        self,
        name: str,
        dsn: str,
        *,
        schema: str = "public",
        pool_size: int = 4,
        timeout_s: float = 10.0,
        renew: Callable[[], str] | None = None,
    ) -> None:
        self._server = Server.of(name, dsn, timeout_s, renew)
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
        """``work`` in a transaction of its own, tried again where the server broke off a deadlock.

        Where a sequence gave a number that is taken, it is set right, and ``work`` tried again.

        Raises:
            SequenceBehindError: It cannot be set right by this role.
        """
        with translating(self._server):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._attempt(work)
                except (DeadlockDetected, SerializationFailure):
                    continue
                except UniqueViolation as error:
                    if not self._set_right(error):
                        raise
            return self._attempt(work)

    def _sequences(self) -> list[SequenceCondition]:
        with translating(self._server), self._connections.lease() as connection:
            return sequences(connection)

    def _set_right(self, error: UniqueViolation) -> bool:
        """Whether an error is about a number that a sequence gave; then no sequence stands behind its table any more."""
        found = self._sequences()
        broken = [one for one in found if one.key and one.key == error.diag.constraint_name]
        if not broken:
            return False
        with self._connections.lease() as connection:
            for behind in {*broken, *(one for one in found if one.is_behind)}:
                self._advance(connection, behind)
        return True

    def _set_all_right(self, connection: psycopg.Connection) -> None:
        """See that no sequence stands behind, before rows are added by what leaves out those that break a key."""
        for found in sequences(connection):
            if found.is_behind:
                self._advance(connection, found)

    def _advance(self, connection: psycopg.Connection, behind: SequenceCondition) -> None:
        try:
            advance(connection, behind)
        except InsufficientPrivilege as error:
            raise self._behind(behind) from error
        told = (self._server, behind.name, behind.last, behind.table, behind.greatest)
        log.warning("%s: sequence %s stood at %s, and %s has %d already: it goes on after that.", *told)

    def _behind(self, behind: SequenceCondition) -> SequenceBehindError:
        return SequenceBehindError(
            f"{self._server}: the sequence {behind.name} gives numbers that rows of {behind.table} have already, up to"
            f" {behind.greatest}: the catalog was restored or copied without it.",
            remedy=f"Nothing was changed. Let the owner of the tables run {self._server.migrate_command}, or:"
            f" {behind.remedy};",
            sequence=behind.name,
            table=behind.table,
            last=behind.last,
            greatest=behind.greatest,
        )

    def _attempt(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        with self._connections.lease() as connection:
            return work(connection)

    def _stream(self, statement: str, *values: object) -> Iterator[Tuple]:
        """Rows through a server-side cursor; holds a connection and a transaction until it ends or is closed."""
        with translating(self._server), self._connections.lease() as connection:
            connection.execute(sql.NO_IDLE_LIMIT)
            with connection.cursor(name="stream") as cursor:
                cursor.execute(statement, values, binary=True)
                yield from streamed(cursor)
