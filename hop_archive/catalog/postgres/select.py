"""Rows that a query selects, out of Postgres: streamed, in a read-only transaction, within a time limit.

A user's condition is text within a statement of ours. It can do nothing but hold or not hold, because

- each statement goes by the extended protocol, which takes one statement and no more;
- Postgres parses it twice before it is run, between two kinds of brackets (``CONDITION_CHECKS``), so that it cannot
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

from hop_archive.catalog.postgres.errors import DatabaseServer, translating
from hop_archive.catalog.postgres.pool import Connections
from hop_archive.catalog.postgres.session import Tuple, only, streamed
from hop_archive.catalog.postgres.sql import (
    BY_INDEX,
    HAS_ADOPTED,
    KNOWN_TOPICS,
    LOGS,
    ROW_COLUMNS,
    ROW_IN_LOG,
    TOPICS,
    WITH_ROWS,
)
from hop_archive.catalog.postgres.user_condition import HARMLESS, called, refusal, unquoted_columns
from hop_archive.catalog.records import Measure, total
from hop_archive.errors import ConfigurationError
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import PartitionLog
from hop_archive.model.topics import is_glob
from hop_archive.model.wording import MOST_SAID, cut, harmless

Statement = tuple[str, str]
Asked = tuple[Statement, Mapping[str, Any]]

_CANCELED = "57014"
_SYNTAX_ERROR = "42601"
_OF_THE_CONDITION = ("0A", "21", "22", "25001", "25006", "38", "39", "42", "54", "P0")
"""Feature not supported; cardinality; data; what a read-only transaction refuses; functions' own; syntax, names, types and rights;
program limits. (PostgreSQL 14, appendix A.) In a statement of ours that is known to be right, they are about the
condition in it."""

SELECTED = {
    "topic": "topic = %(topic)s",
    "topics": "topic = ANY(%(topics)s)",
    "since_ms": "timestamp >= %(since_ms)s",
    "until_ms": "timestamp < %(until_ms)s",
    "senders": "sender = ANY(%(senders)s)",
    "media_types": "media_type = ANY(%(media_types)s)",
    "uuids": "uuid = ANY(%(uuids)s)",
    "start": '"offset" >= %(start)s',
    "stop": '"offset" < %(stop)s',
    "retracted": "retracted = %(retracted)s",
    "adopted": "(generation IS NULL) = %(adopted)s",
}
"""What each bound of a query adds to the condition of the following three, which are joined to them by AND."""

SELECT_BY_PLACE = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE {ROW_IN_LOG}",
    'ORDER BY "offset" LIMIT %(limit)s',
)
"""Of one log. Index: messages_place_idx, in its order, so that the first row comes at once."""

STORED_COLUMNS = '"offset", timestamp, uuid_send(uuid), digest, key, position, size, crc32, frame, frame_size'
"""Those of ``Stored``, in the order of its fields; the UUID as bytes, of which nothing has to be made."""

SELECT_STORED = (
    f"""
    SELECT {STORED_COLUMNS} FROM messages
    WHERE {ROW_IN_LOG} AND (NOT EXISTS (SELECT FROM suppressions WHERE topic = %(topic)s)
                            OR NOT EXISTS (SELECT FROM suppressions WHERE suppressions.uuid = messages.uuid))""",
    'ORDER BY "offset" LIMIT %(limit)s',
)
"""Of one log. Index: messages_place_idx, in its order. Of a topic without suppressions, which is told once, no row is asked for
in suppressions_pkey; by an anti-join alone all the rest of the log would be read and sorted for each page."""

SELECT_RETRACTED = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE generation IS NOT NULL",
    'ORDER BY generation, partition, "offset" LIMIT %(limit)s',
)
"""Of one topic, where only those are wanted that were taken back: few, which are sorted. Index: messages_retracted_idx."""

SELECT_ADOPTED = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE generation IS NULL AND digest IS NULL",
    "ORDER BY timestamp, id LIMIT %(limit)s",
)
"""Of one topic: the adopted rows, which have no place. Index: messages_adopted_idx; only rows of one millisecond are
sorted."""

SELECT_UUIDS_BY_PLACE = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE true",
    'ORDER BY topic COLLATE "C", generation, partition, "offset", timestamp, id LIMIT %(limit)s',
)
"""Of all topics at once, where UUIDs are named: those are what has to be sorted. Index: messages_uuid_idx."""

SELECT_BY_ID = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE true",
    "ORDER BY id LIMIT %(limit)s",
)
"""Index: messages_pkey, in its order."""

SELECT_NEWEST = (
    f"SELECT {ROW_COLUMNS} FROM messages WHERE true",
    "ORDER BY timestamp DESC, id DESC LIMIT %(limit)s",
)
"""Index: messages_topic_timestamp_idx of one topic, messages_timestamp_id_idx of all, each backwards; of some, which is cheaper."""

_MEASURE = """
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(max(size), 0),
              min(timestamp) FILTER (WHERE timestamp > 0), max(timestamp) FILTER (WHERE timestamp > 0),
              count(*) FILTER (WHERE timestamp = 0), count(*) FILTER (WHERE timestamp_type = 1)
       FROM messages
"""
MEASURE_BY_PLACE = (f"{_MEASURE} WHERE {ROW_IN_LOG}", "")
"""Of one log, or a part of it. Index: messages_place_idx."""

MEASURE_PLACED = (f"{_MEASURE} WHERE generation IS NOT NULL", "")
"""Of topics. Index: messages_topic_timestamp_idx; of many of them the table."""

MEASURE_ADOPTED = (f"{_MEASURE} WHERE generation IS NULL AND digest IS NULL", "")
"""Of one topic's adopted rows. Index: messages_adopted_idx."""

SELECT_SETTINGS = """
    SELECT set_config('transaction_read_only', 'on', true),
           set_config('statement_timeout', %(statement_ms)s, true),
           set_config('idle_in_transaction_session_timeout', '0', true),
           set_config('standard_conforming_strings', 'on', true),
           set_config('cursor_tuple_fraction', %(fraction)s, true)
"""
"""For one transaction, which cannot be made writable again once it has read. The timeout bounds each page of rows that is fetched, not the whole stream."""

VOLATILE = "SELECT DISTINCT proname::text FROM pg_catalog.pg_proc WHERE proname = ANY(%s::text[]) AND provolatile = 'v'"
"""Which of these names a function has that may do something. Index: pg_proc_proname_args_nsp_index."""

CONDITION_CHECKS = (
    ("SELECT FROM messages WHERE (\n", "\n)"),
    ("SELECT FROM messages WHERE ARRAY[\n", "\n] IS NOT NULL"),
)
"""What a user's condition is put between to be parsed, and not run. What closes the parenthesis of the first closes
none in the second, and the other way round: both parse only where the condition stays within."""


class Selecting:
    """One query on its way.

    Args:
        server: For messages.
        connections: Where a connection comes from; one is held while a stream is open.
        query: Which rows.
        timeout_s: Longest that the server may take over one page.
    """

    def __init__(
        self, server: DatabaseServer, connections: Connections, query: Query, timeout_s: float
    ) -> None:
        self._server = server
        self._connections = connections
        self._query = query
        self._timeout_s = timeout_s

    def stream(self, order: Order) -> Iterator[Tuple]:
        """The rows, as ``records.COLUMNS`` has them."""
        left = self._query.limit
        for statement, values in self._statements(order, *self._begin()):
            if left == 0:
                return
            text, bounds = self._complete(statement, {**values, "limit": left})
            with self._reading() as connection, connection.cursor(name="selected") as cursor:
                cursor.execute(text, bounds, binary=True)
                for row in streamed(cursor):
                    yield row
                    left = None if left is None else left - 1

    def stored(self) -> list[Tuple]:
        """Of the rows of its places, as ``STORED_COLUMNS`` has them."""
        topics, _ = self._begin()
        found: list[Tuple] = []
        for place in sorted(place for place in self._query.places if place.topic in topics):
            left = None if self._query.limit is None else self._query.limit - len(found)
            text, bounds = self._complete(SELECT_STORED, {**asdict(place), "limit": left})
            with self._reading() as connection:
                found += connection.execute(text, bounds, binary=True).fetchall()
        return found

    def measured(self) -> Measure:
        """How much the query selects."""
        topics, adopted = self._begin()
        asked: list[Asked] = []
        if self._query.places:
            places = (p for p in sorted(self._query.places) if p.topic in topics)
            asked = [(MEASURE_BY_PLACE, asdict(place)) for place in places]
        else:
            if self._query.adopted is not True:
                asked.append((MEASURE_PLACED, {"topics": topics}))
            if adopted and self._query.adopted is not False:
                asked.append((MEASURE_ADOPTED, {"topics": topics}))
        measures: list[Measure] = []
        for statement, values in asked:
            text, bounds = self._complete(statement, values)
            with self._reading() as connection:
                measures.append(Measure(*only(connection.execute(text, bounds).fetchone())))
        return total(measures)

    def _begin(self) -> tuple[list[str], set[str]]:
        """The topics to look in, and those of them with adopted rows, once the condition is known to be one."""
        with self._reading() as connection:
            named = self._named()
            asked = connection.execute(TOPICS) if named is None else connection.execute(WITH_ROWS, [named])
            known = [topic for (topic,) in asked]
            if self._query.meaningless(known):
                # A topic without messages is no mistake: it has no rows, that is all.
                self._query.chosen_topics(topic for (topic,) in connection.execute(KNOWN_TOPICS))
            if self._query.condition:
                self._check(connection)
            chosen = sorted(filter(self._query.means, known))
            return chosen, {topic for (topic,) in connection.execute(HAS_ADOPTED, [chosen])}

    def _named(self) -> list[str] | None:
        """The only topics that may be meant, so that not all of a large archive are looked for; None: any may be."""
        if self._query.places:
            return sorted({place.topic for place in self._query.places})
        if self._query.topics and not any(map(is_glob, self._query.topics)):
            return sorted(self._query.topics)
        return None

    def _check(self, connection: psycopg.Connection) -> None:
        """Have the server parse the condition, and not run it; refuse what may do something.

        By the protocol's own Parse, which takes a single statement: psycopg sends a query without parameters by
        the simple protocol, which runs all that it is given.
        """
        condition = self._query.condition
        names = called(condition)
        for before, after in CONDITION_CHECKS:
            connection.pgconn.send_prepare(b"", f"{before}{condition}{after}".encode())
            (result,) = connection.wait(execute(connection.pgconn))
            if result.status == pq.ExecStatus.FATAL_ERROR:
                raise self._refused(psycopg.errors.error_from_result(result), len(before))
        for (name,) in connection.execute(VOLATILE, [sorted(names)]):
            if name not in HARMLESS:
                raise refusal(
                    condition,
                    f"the function {name} may do something, and a condition may not",
                    names[name],
                    "hop-archive connect opens psql, where everything can be done that you have the rights for.",
                )

    def _statements(self, order: Order, topics: list[str], adopted: set[str]) -> Iterator[Asked]:
        if self._query.places:
            for place in sorted(p for p in self._query.places if p.topic in topics):
                yield SELECT_BY_PLACE, asdict(place)
        elif order is not Order.PLACE:
            chosen: dict[str, Any] = {"topics": topics} if self._query.topics else {}
            if len(topics) == 1:
                chosen = {"topic": topics[0]}
            yield SELECT_BY_ID if order is Order.ID else SELECT_NEWEST, chosen
        elif self._query.uuids is not None:
            yield SELECT_UUIDS_BY_PLACE, {"topics": topics} if self._query.topics else {}
        else:
            for topic in topics:
                if self._query.adopted is not True and self._query.retracted:
                    yield SELECT_RETRACTED, {"topic": topic}
                elif self._query.adopted is not True:
                    with self._reading() as connection:
                        logs = sorted(connection.execute(LOGS, {"topic": topic}).fetchall())
                    for log in logs:
                        yield SELECT_BY_PLACE, PartitionLog(*log)._asdict()
                if topic in adopted and self._query.adopted is not False:
                    yield SELECT_ADOPTED, {"topic": topic}

    def _complete(self, statement: Statement, values: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
        """The statement with all conditions, and what is bound in it."""
        query = self._query
        bounds = {
            "since_ms": query.since_ms,
            "until_ms": query.until_ms,
            "senders": list(query.senders) or None,
            "media_types": list(query.media_types) or None,
            "uuids": None if query.uuids is None else list(query.uuids),
            "retracted": query.retracted,
            "adopted": query.adopted,
            **values,
        }
        head, tail = statement
        text = " AND ".join([head, *(SELECTED[name] for name in SELECTED if bounds.get(name) is not None)])
        if query.condition:
            text += " AND (\n" + query.condition.replace("%", "%%") + "\n)"
        return f"{text} {tail}".encode(), bounds

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
        with translating(self._server):
            try:
                with self._connections.lease(commits=False) as connection:
                    connection.execute(SELECT_SETTINGS, settings)
                    if self._query.places:
                        connection.execute(BY_INDEX)
                    yield connection
            except psycopg.Error as error:  # what only this query can be the cause of
                code = error.sqlstate or ""
                if code == _CANCELED:
                    raise ConfigurationError(
                        f"{self._server} did not find the next messages within {self._timeout_s:g} s.",
                        remedy="Narrow the selection down, by topic or time for instance, or allow more time with --timeout.",
                        database=self._server.name,
                        timeout_s=self._timeout_s,
                    ) from error
                if self._query.condition and code.startswith(_OF_THE_CONDITION):
                    raise self._refused(error, None) from error
                raise

    def _refused(self, error: psycopg.Error, position: int | None) -> ConfigurationError:
        condition = self._query.condition
        reason = f"Postgres says: {cut(harmless(error.diag.message_primary or str(error)), MOST_SAID)}"
        at = None
        if position is not None and error.diag.statement_position is not None:
            at = int(error.diag.statement_position) - 1 - position
            if at > len(condition):  # what it stumbled over is a bracket of ours
                reason = "it ends too early"
        remedies = [cut(harmless(error.diag.message_hint or ""), MOST_SAID)]
        if error.sqlstate == _SYNTAX_ERROR:
            remedies += [
                f'{name} is a word of SQL\'s own: the column is written "{name}", in double quotes.'
                for name in unquoted_columns(condition)
            ]
        return refusal(condition, reason, at, " ".join(filter(None, remedies)))
