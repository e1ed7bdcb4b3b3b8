"""Rows that a query means, out of Postgres: streamed, in a read-only transaction, within a time limit.

A user's condition is text within a statement of ours. It can do nothing but hold or not hold, because

- each statement goes by the extended protocol, which takes one statement and no more;
- Postgres parses it twice before it is run, between two kinds of brackets (``sql.CONDITION_CHECKS``), so that it cannot
  leave them;
- the transaction is read-only, is always rolled back (settings that it might have made go with it) and has a time limit;
- names before parentheses that are a volatile function's are refused: those act outside of transactions
  (``pg_terminate_backend``), or change what protects us (``set_config``).

What remains is for the role's rights to settle: reading whatever the role may read, and functions that somebody
declared stable though they act. See docs/decisions/0005-conditions-in-sql.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import psycopg
from psycopg import pq
from psycopg.generators import execute

from hop_archive.catalog.postgres import sql, sql_restores
from hop_archive.catalog.postgres.errors import Server, translating
from hop_archive.catalog.postgres.pool import Connections
from hop_archive.catalog.postgres.rows import streamed
from hop_archive.catalog.postgres.user_condition import HARMLESS, called, refusal, unquoted_columns
from hop_archive.catalog.records import Measure, total
from hop_archive.errors import ConfigurationError
from hop_archive.model.query import Order, Query
from hop_archive.model.wording import MOST_SAID, cut, harmless

Tuple = tuple[Any, ...]
Statement = tuple[str, str]

_CANCELED = "57014"
_SYNTAX_ERROR = "42601"
_OF_THE_CONDITION = ("0A", "21", "22", "25001", "25006", "38", "39", "42", "54", "P0")
"""Feature not supported; cardinality; data; what a read-only transaction refuses; functions' own; syntax, names, types and rights;
program limits. (PostgreSQL 14, appendix A.) In a statement of ours that is known to be right, they are about the
condition in it."""


class Selecting:
    """One query on its way.

    Args:
        server: For messages.
        connections: Where a connection comes from; one is held while a stream is open.
        query: Which rows.
        timeout_s: Longest that the server may take over one page.
    """

    def __init__(self, server: Server, connections: Connections, query: Query, timeout_s: float) -> None:
        self._server = server
        self._connections = connections
        self._query = query
        self._timeout_s = timeout_s
        self._adopted: set[str] = set()

    def stream(self, order: Order) -> Iterator[Tuple]:
        """The rows, as ``sql.MESSAGE_COLUMNS`` has them."""
        topics = self._begin()
        left = self._query.limit
        for statement, values in self._statements(order, topics):
            if left == 0:
                return
            for row in self._rows(statement, {**values, "limit": left}):
                yield row
                left = None if left is None else left - 1

    def measured(self) -> Measure:
        """How much the query means."""
        topics = self._begin()
        return total(self._measure(*one) for one in self._measures(topics))

    def _measures(self, topics: list[str]) -> Iterator[tuple[Statement, Mapping[str, Any]]]:
        by_place, adopted = sql_restores.MEASURE_BY_PLACE, sql_restores.MEASURE_ADOPTED
        if self._query.places:
            yield from ((by_place, asdict(p)) for p in sorted(self._query.places) if p.topic in topics)
            return
        if self._query.adopted is not True:
            yield by_place, {"topics": topics}
        if self._adopted and self._query.adopted is not False:
            yield adopted, {"topics": topics}

    def _measure(self, statement: Statement, values: Mapping[str, Any]) -> Measure:
        bounds = self._bounds(values)
        with self._reading() as connection:
            found = connection.execute(self._complete(statement, bounds).encode(), bounds).fetchone()
        assert found is not None
        return Measure(*found)

    def _begin(self) -> list[str]:
        """The topics to look in, once the condition is known to be one."""
        with self._reading() as connection:
            known = [topic for (topic,) in connection.execute(sql.TOPICS)]
            if self._query.meaningless(known):
                # A topic without messages is no mistake: it has no rows, that is all.
                self._query.chosen_topics(topic for (topic,) in connection.execute(sql.KNOWN_TOPICS))
            if self._query.condition:
                self._check(connection)
            chosen = sorted(filter(self._query.means, known))
            self._adopted = {topic for (topic,) in connection.execute(sql.HAS_ADOPTED, [chosen])}
        return chosen

    def _check(self, connection: psycopg.Connection) -> None:
        condition = self._query.condition
        names = called(condition)
        for before, after in sql.CONDITION_CHECKS:
            self._parse(connection, before, after)
        for (name,) in connection.execute(sql.VOLATILE, [sorted(names)]):
            if name not in HARMLESS:
                raise refusal(
                    condition,
                    f"the function {name} may do something, and a condition may not",
                    names[name],
                    "hop-archive connect opens psql, where everything can be done that you have the rights for.",
                )

    def _parse(self, connection: psycopg.Connection, before: str, after: str) -> None:
        """Have the server parse the condition between two texts, and not run it.

        By the protocol's own Parse, which takes a single statement: psycopg sends a query without parameters by
        the simple protocol, which runs all that it is given.
        """
        text = f"{before}{self._query.condition}{after}"
        connection.pgconn.send_prepare(b"", text.encode())
        (result,) = connection.wait(execute(connection.pgconn))
        if result.status == pq.ExecStatus.FATAL_ERROR:
            raise self._refused(psycopg.errors.error_from_result(result), len(before))

    def _statements(self, order: Order, topics: list[str]) -> Iterator[tuple[Statement, Mapping[str, Any]]]:
        if self._query.places:
            for place in sorted(p for p in self._query.places if p.topic in topics):
                yield sql.SELECT_BY_PLACE, asdict(place)
        elif order is Order.ID:
            yield sql.SELECT_BY_ID, {"topics": topics} if self._query.topics else {}
        elif self._query.uuids is not None:
            yield sql.SELECT_UUIDS_BY_PLACE, {"topics": topics} if self._query.topics else {}
        else:
            for topic in topics:
                if self._query.adopted is not True:
                    yield sql.SELECT_BY_PLACE, {"topic": topic}
                if topic in self._adopted and self._query.adopted is not False:
                    yield sql.SELECT_ADOPTED, {"topic": topic}

    def _bounds(self, values: Mapping[str, Any]) -> dict[str, Any]:
        query = self._query
        return {
            "since_ms": query.since_ms,
            "until_ms": query.until_ms,
            "senders": list(query.senders) or None,
            "media_types": list(query.media_types) or None,
            "uuids": None if query.uuids is None else list(query.uuids),
            "retracted": query.retracted,
            "adopted": query.adopted,
            **values,
        }

    def _rows(self, statement: Statement, values: dict[str, Any]) -> Iterator[Tuple]:
        bounds = self._bounds(values)
        text = self._complete(statement, bounds)
        with self._reading() as connection, connection.cursor(name="selected") as cursor:
            cursor.execute(text.encode(), bounds, binary=True)
            yield from streamed(cursor)

    def _complete(self, statement: Statement, bounds: Mapping[str, Any]) -> str:
        """The statement with all conditions."""
        head, tail = statement
        said = [sql.SELECTED[name] for name in sql.SELECTED if bounds.get(name) is not None]
        before = " AND ".join([head, *said])
        if not self._query.condition:
            return f"{before} {tail}"
        condition = self._query.condition.replace("%", "%%")
        return f"{before} AND (\n{condition}\n) {tail}"

    @contextmanager
    def _reading(self) -> Iterator[psycopg.Connection]:
        """A transaction that changes nothing, not even its session; errors become ours."""
        # Postgres plans a cursor for a first row that is there soon, and would walk a whole topic in the order of
        # offsets for a few rows at its end. Within a time, all rows are wanted: those few, by the index of times.
        in_time = self._query.since_ms is not None or self._query.until_ms is not None
        settings = {
            "statement_ms": str(round(self._timeout_s * 1000)),
            "fraction": "1" if in_time else "0.1",
        }
        with (
            translating(self._server),
            self._telling(),
            self._connections.lease(commits=False) as connection,
        ):
            connection.execute(sql.SELECT_SETTINGS, settings)
            yield connection

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Tell what only this query can be the cause of."""
        try:
            yield
        except psycopg.Error as error:
            code = error.sqlstate or ""
            if code == _CANCELED:
                raise self._too_slow() from error
            if self._query.condition and code.startswith(_OF_THE_CONDITION):
                raise self._refused(error, None) from error
            raise

    def _refused(self, error: psycopg.Error, position: int | None) -> ConfigurationError:
        condition = self._query.condition
        told = f"Postgres says: {cut(harmless(error.diag.message_primary or str(error)), MOST_SAID)}"
        at = None
        if position is not None and error.diag.statement_position is not None:
            at = int(error.diag.statement_position) - 1 - position
            if at > len(condition):  # what it stumbled over is a bracket of ours
                told = "it ends too early"
        remedies = [cut(harmless(error.diag.message_hint or ""), MOST_SAID)]
        if error.sqlstate == _SYNTAX_ERROR:
            remedies += [_quoting(name) for name in unquoted_columns(condition)]
        return refusal(condition, told, at, " ".join(filter(None, remedies)))

    def _too_slow(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self._server} did not find the next messages within {self._timeout_s:g} s.",
            remedy="Narrow the selection down, by topic or time for instance, or allow more time with --timeout.",
            database=self._server.name,
            timeout_s=self._timeout_s,
        )


def _quoting(name: str) -> str:
    return f'{name} is a word of SQL\'s own: the column is written "{name}", in double quotes.'
