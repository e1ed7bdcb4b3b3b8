"""What every part of the catalog in Postgres stands on: connections, transactions, streams of rows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from itertools import groupby
from operator import itemgetter
from typing import Any, Concatenate, ParamSpec, TypeVar

import psycopg
from psycopg.errors import (
    DeadlockDetected,
    ForeignKeyViolation,
    InsufficientPrivilege,
    SerializationFailure,
    UniqueViolation,
)

from hop_archive.catalog.postgres.errors import DatabaseServer, translating
from hop_archive.catalog.postgres.pool import Connections
from hop_archive.catalog.postgres.sql import BY_INDEX, NO_IDLE_LIMIT
from hop_archive.errors import SequenceBehindError
from hop_archive.model.conditions import TABLES, SequenceCondition
from hop_archive.model.slices import PartitionLog

log = logging.getLogger(__name__)

Item = TypeVar("Item")
Owner = TypeVar("Owner", bound="Session")
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Tuple = tuple[Any, ...]
Values = Sequence[Any] | Mapping[str, Any]

_ATTEMPTS = 5
"""How often a transaction is tried that met another one."""
_STREAMED_ROWS = 2_000
"""Rows that a stream fetches at once: about 1 MB."""

SEQUENCES = """
    SELECT numbering.relnamespace::regnamespace || '.' || quote_ident(numbering.relname),
           numbered.relnamespace::regnamespace || '.' || quote_ident(numbered.relname),
           quote_ident(attname), coalesce(conname, ''),
           has_sequence_privilege(numbering.oid, 'SELECT')
    FROM pg_class AS numbered
         JOIN pg_attrdef ON adrelid = numbered.oid
         JOIN pg_attribute ON attrelid = adrelid AND attnum = adnum
         JOIN pg_depend ON classid = 'pg_attrdef'::regclass AND objid = pg_attrdef.oid
                           AND refclassid = 'pg_class'::regclass
         JOIN pg_class AS numbering ON numbering.oid = refobjid AND numbering.relkind = 'S'
         LEFT JOIN pg_constraint ON conrelid = numbered.oid AND contype = 'p' AND conkey = ARRAY[attnum]
    WHERE numbered.relnamespace = quote_ident(current_schema())::regnamespace AND numbered.relname = ANY(%s)
    ORDER BY 1
"""
"""By the columns' defaults, which a dump and logical replication keep, though not who owns the sequence.

A sequence stands behind its table where rows came in by another way than through it: a dump that was restored without its
``setval``, logical replication, a copy of tables. What is numbered next then breaks the primary key; or, where rows of
those numbers were taken away, it gets numbers that readers of archive-core, who remember how far they read, have passed.
"""


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

    def _fetch(self, statement: str, values: Values = (), *, by_index: bool = False) -> list[Tuple]:
        with translating(self._server), self._connections.lease() as connection:
            if by_index:
                connection.execute(BY_INDEX)
            return connection.execute(statement, values, binary=True).fetchall()

    def _fetch_as(self, kind: Callable[..., Item], statement: str, values: Values = ()) -> list[Item]:
        """What ``kind`` makes of each row: its arguments are the columns, in their order."""
        return [kind(*row) for row in self._fetch(statement, values)]

    def _execute(self, statement: str, values: Values) -> int:
        """One statement in a transaction of its own; how many rows it changed."""
        return self._transact(lambda connection: connection.execute(statement, values).rowcount)

    def _transact(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        """``work`` in a transaction of its own, tried again where the server broke off to resolve a deadlock.

        So it is where a text and its message met (there is no other foreign key): one was being added while the other was
        deleted, or given another UUID.

        Where a sequence gave a number that is taken, it is set right, and ``work`` tried again.

        Raises:
            SequenceBehindError: It cannot be set right by this role.
        """
        with translating(self._server):
            for _ in range(_ATTEMPTS - 1):
                try:
                    return self._attempt(work)
                except (DeadlockDetected, SerializationFailure, ForeignKeyViolation):
                    continue
                except UniqueViolation as error:
                    if not self._set_right(error):
                        raise
            return self._attempt(work)

    def _attempt(self, work: Callable[[psycopg.Connection], Result]) -> Result:
        with self._connections.lease() as connection:
            return work(connection)

    def _set_right(self, error: UniqueViolation) -> bool:
        """Whether an error is about a number that a sequence gave; then no sequence stands behind its table any more."""
        with self._connections.lease() as connection:
            found = sequences(connection)
            broken = {sequence for sequence in found if sequence.key == error.diag.constraint_name}
            if broken:
                self._advance(connection, {*broken, *(sequence for sequence in found if sequence.is_behind)})
        return bool(broken)

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

    def _stream(self, statement: str, values: Values, *, by_index: bool = False) -> Iterator[Tuple]:
        """Rows through a server-side cursor; holds a connection and a transaction until it ends or is closed."""
        with translating(self._server), self._connections.lease() as connection:
            connection.execute(NO_IDLE_LIMIT)
            if by_index:
                connection.execute(BY_INDEX)
            with connection.cursor(name="stream") as cursor:
                cursor.execute(statement, values, binary=True)
                yield from streamed(cursor)


def transaction(
    work: Callable[Concatenate[Owner, psycopg.Connection, Parameters], Result],
) -> Callable[Concatenate[Owner, Parameters], Result]:
    """A method of a ``Session`` that is given a connection, and is one transaction; see ``Session._transact``."""

    @wraps(work)
    def called(self: Owner, /, *args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        return self._transact(lambda connection: work(self, connection, *args, **kwargs))

    return called


def columns_of(rows: Iterable[tuple[Any, ...]]) -> list[list[Any]]:
    """Some rows as arrays that a statement unnests, one a column; of no rows none."""
    return [list(column) for column in zip(*rows, strict=True)]


def streamed(cursor: psycopg.ServerCursor) -> Iterator[Tuple]:
    """All rows of a server-side cursor, fetched some at a time.

    Made by the page: one by one, as psycopg's own iteration makes them, they cost twice as much.
    """
    while rows := cursor.fetchmany(_STREAMED_ROWS):
        yield from rows


def sequences(connection: psycopg.Connection) -> list[SequenceCondition]:
    """Every sequence of the catalog's tables, sorted, and where it stands.

    To execute a condition's ``remedy`` lets a sequence go on, which takes the right to UPDATE it. Who is given a number at
    the same moment may be given one that is taken: then this is done once more.
    """
    found: list[SequenceCondition] = []
    for name, table, column, key, readable in connection.execute(SEQUENCES, [list(TABLES)]).fetchall():
        last = (
            f"(SELECT last_value - (NOT is_called)::int FROM {name})" if readable else "NULL::bigint"
        )  # (names, quoted)
        statement = f"SELECT {last}, coalesce(max({column}), 0) FROM {table}"
        ((number, greatest),) = connection.execute(statement.encode()).fetchall()
        found.append(SequenceCondition(name, table, column, key, number, greatest))
    return found


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
