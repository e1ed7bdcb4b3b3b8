"""What every part of the catalog in Postgres stands on: connections, transactions, streams of rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, TypeVar

import psycopg
from psycopg.errors import DeadlockDetected, InsufficientPrivilege, SerializationFailure, UniqueViolation

from hop_archive.catalog.postgres.errors import DatabaseServer, translating
from hop_archive.catalog.postgres.pool import Connections
from hop_archive.catalog.postgres.sequences import sequences
from hop_archive.catalog.postgres.sql import NO_IDLE_LIMIT
from hop_archive.errors import SequenceBehindError
from hop_archive.model.conditions import SequenceCondition
from hop_archive.model.slices import PartitionLog

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")
Tuple = tuple[Any, ...]
Values = Sequence[Any] | Mapping[str, Any]

_ATTEMPTS = 3
"""How often a transaction is tried that the server broke off to resolve a deadlock."""
_STREAMED_ROWS = 2_000
"""Rows that a stream fetches at once: about 1 MB."""


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
        self._server = DatabaseServer.of(name, dsn, timeout_s, renew)
        self._connections = Connections(self._server, schema, pool_size)

    def __repr__(self) -> str:
        return f"PostgresCatalog({self._server})"

    @property
    def name(self) -> str:
        return self._server.name

    def close(self) -> None:
        """Let go of connections; a later call connects anew."""
        self._connections.close()

    def _fetch(self, statement: str, values: Values = ()) -> list[Tuple]:
        with translating(self._server), self._connections.lease() as connection:
            return connection.execute(statement, values, binary=True).fetchall()

    def _execute(self, statement: str, values: Values) -> int:
        """One statement in a transaction of its own; how many rows it changed."""
        return self._transact(lambda connection: connection.execute(statement, values).rowcount)

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

    def _attempt(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        with self._connections.lease() as connection:
            return work(connection)

    def _sequences(self) -> list[SequenceCondition]:
        with translating(self._server), self._connections.lease() as connection:
            return sequences(connection)

    def _set_right(self, error: UniqueViolation) -> bool:
        """Whether an error is about a number that a sequence gave; then no sequence stands behind its table any more."""
        found = self._sequences()
        broken = [
            sequence for sequence in found if sequence.key and sequence.key == error.diag.constraint_name
        ]
        if not broken:
            return False
        with self._connections.lease() as connection:
            self._advance(connection, {*broken, *(sequence for sequence in found if sequence.is_behind)})
        return True

    def _set_all_right(self, connection: psycopg.Connection) -> None:
        """See that no sequence stands behind, before rows are added by what leaves out those that break a key."""
        self._advance(connection, [found for found in sequences(connection) if found.is_behind])

    def _advance(self, connection: psycopg.Connection, behind: Iterable[SequenceCondition]) -> None:
        for found in behind:
            try:
                connection.execute(found.remedy.encode())
            except InsufficientPrivilege as error:
                raise SequenceBehindError(
                    f"{self._server}: the sequence {found.name} gives numbers that rows of {found.table} have already,"
                    f" up to {found.greatest}: the catalog was restored or copied without it.",
                    remedy=f"Nothing was changed. Let the owner of the tables run {self._server.migrate_command}, or:"
                    f" {found.remedy};",
                    sequence=found.name,
                    table=found.table,
                    last=found.last,
                    greatest=found.greatest,
                ) from error
            facts = (self._server, found.name, found.last, found.table, found.greatest)
            log.warning("%s: sequence %s stood at %s, and %s has %d already: it goes on after that.", *facts)

    def _stream(self, statement: str, *values: object) -> Iterator[Tuple]:
        """Rows through a server-side cursor; holds a connection and a transaction until it ends or is closed."""
        with translating(self._server), self._connections.lease() as connection:
            connection.execute(NO_IDLE_LIMIT)
            with connection.cursor(name="stream") as cursor:
                cursor.execute(statement, values, binary=True)
                yield from streamed(cursor)


def streamed(cursor: psycopg.ServerCursor) -> Iterator[Tuple]:
    """All rows of a server-side cursor, fetched some at a time.

    Made by the page: one by one, as psycopg's own iteration makes them, they cost twice as much.
    """
    while rows := cursor.fetchmany(_STREAMED_ROWS):
        yield from rows


def only(row: Tuple | None) -> Tuple:
    """The row of a statement that always returns one."""
    assert row is not None
    return row


def listed(items: Collection[Item] | None) -> list[Item] | None:
    """As Postgres takes an array; None, which means all, stays."""
    return None if items is None else list(items)


def by_log(rows: Iterable[Tuple]) -> Iterator[tuple[PartitionLog, list[Tuple]]]:
    """The rest of rows that begin with topic, generation and partition, by these; they come sorted."""
    for place, some in groupby(rows, key=itemgetter(0, 1, 2)):
        yield PartitionLog(*place), [row[3:] for row in some]
