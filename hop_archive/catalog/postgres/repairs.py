"""Mending in Postgres."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict

import psycopg
from psycopg.errors import UniqueViolation

from hop_archive.catalog.postgres.adding import add
from hop_archive.catalog.postgres.session import Session, Tuple, only
from hop_archive.catalog.postgres.sql import ADD_BATCH, REFERRING, ROW_COLUMNS, STANDING
from hop_archive.catalog.records import COLUMNS, Batch, Correction, Duplicate, Outcome
from hop_archive.catalog.rules import refuse_to_hide, stale
from hop_archive.errors import SliceTakenError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice

_SET = ", ".join(f"{column} = %s" for column in ROW_COLUMNS.split(", "))
_IS = " AND ".join(
    f"{column} IS NOT DISTINCT FROM %s::{kind}"
    for column, kind in zip(ROW_COLUMNS.split(", "), COLUMNS.values(), strict=True)
)

CORRECT = f"UPDATE messages SET {_SET} WHERE uuid = %s AND {_IS}"
"""Index: messages_uuid_idx."""

LOCK_LEDGER = """
    SELECT id, lower(offsets), upper(offsets), outcome, archived, duplicates FROM batches
    WHERE topic = %s AND generation = %s AND partition = %s AND offsets && int8range(%s, %s)
    ORDER BY offsets FOR UPDATE
"""
"""Index: batches_slice_excl. Merging waits, and what was merged meanwhile does not come."""

COUNT_A_COPY = """
    UPDATE batches SET duplicates = duplicates + 1, absent = absent - 1
    WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
          AND offsets @> %(offset)s::bigint AND outcome = 'archived' AND absent > 0
    RETURNING id
"""
"""Index: batches_slice_excl."""

DROP_SELF_COPIES = """
    DELETE FROM duplicates AS d USING messages AS m
    WHERE d.topic = %(topic)s AND d.generation = %(generation)s AND d.partition = %(partition)s
          AND d."offset" >= %(start)s AND d."offset" < %(stop)s
          AND m.topic = d.topic AND m.generation = d.generation AND m.partition = d.partition
          AND m."offset" = d."offset" AND m.uuid = d.uuid
"""
"""Index: duplicates_pkey, messages_offset_idx."""

RECOUNT_LEDGER = """
    UPDATE batches SET archived = %(archived)s, duplicates = %(duplicates)s, absent = %(absent)s, bytes = %(bytes)s,
           first_timestamp = %(first)s, last_timestamp = %(last)s
    WHERE id = %(id)s
"""
"""Index: batches_pkey."""

LOCK_SUMMARY = """
    INSERT INTO topics (topic, n_messages, n_bytes) VALUES (%(topic)s, 0, 0)
    ON CONFLICT (topic) DO UPDATE SET n_messages = topics.n_messages
"""
"""Index: unique_topic. Whoever commits to the topic waits here; what committed before is counted by the next statement."""

RECOUNT_SUMMARY = """
    UPDATE topics SET n_messages = found.messages, n_bytes = found.bytes, e_timestamp = found.first,
           l_timestamp = found.last
    FROM (SELECT count(*) AS messages, coalesce(sum(size), 0) AS bytes, min(timestamp) AS first, max(timestamp) AS last
          FROM messages WHERE topic = %(topic)s) AS found
    WHERE topics.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx."""

DUPLICATES_IN = """
    SELECT "offset", timestamp, uuid, reason FROM duplicates
    WHERE topic = %s AND generation = %s AND partition = %s AND "offset" >= %s AND "offset" < %s
    ORDER BY "offset" LIMIT %s
"""
"""Index: duplicates_pkey, in its order."""


class PostgresRepairs(Session):
    """The part of a catalog in Postgres that is corrected."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        if not corrections:
            return
        about = f"{len(corrections)} rows of topic {corrections[0].was.topic}"
        values = [(*c.now.cells(), c.was.uuid, *c.was.cells()) for c in corrections]

        def work(connection: psycopg.Connection) -> None:
            with connection.cursor() as cursor:
                cursor.executemany(CORRECT, values)
                if cursor.rowcount != len(corrections):
                    raise stale(about, "not all of them stand as they were seen")

        self._unless_taken(work, about)

    def put_back(self, batch: Batch) -> None:
        where = batch.slice

        def work(connection: psycopg.Connection) -> None:
            connection.execute(REFERRING)
            locked = connection.execute(LOCK_LEDGER, [*where.partition_log, where.start, where.stop])
            ledger = [row for row in locked.fetchall() if row[3] == Outcome.ARCHIVED.value]
            covered = OffsetSet.of((row[1], row[2]) for row in ledger)
            if not all(offset in covered for offset in batch.offsets):
                raise stale(str(where), "the ledger does not cover all of it as archived")
            add(connection, batch, ledger[0][0])
            for _, start, stop, _, archived, duplicates in ledger:
                rows, _, _, _, copies = _standing(connection, where.within(start, stop))
                if rows > archived or copies > duplicates:
                    raise stale(str(where), "the ledger counts no more than is there")

        self._unless_taken(work, str(where))

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        where = Slice(*at, copy.offset, copy.offset + 1)

        def work(connection: psycopg.Connection) -> None:
            connection.execute(REFERRING)
            counted = connection.execute(COUNT_A_COPY, {**at._asdict(), "offset": copy.offset}).fetchone()
            if counted is None:
                raise stale(str(where), "the ledger does not call it absent")
            if _standing(connection, where)[0]:
                raise stale(str(where), "a row stands there")
            add(connection, Batch(where, duplicates=[copy]), *counted)

        self._unless_taken(work, str(at))

    def account(self, batch: Batch) -> None:
        where = batch.slice

        def work(connection: psycopg.Connection) -> None:
            connection.execute(DROP_SELF_COPIES, asdict(where))
            rows, size_bytes, first, last, copies = _standing(connection, where)
            archived, duplicates = rows + len(batch.rows), copies + len(batch.duplicates)
            absent = len(where) - archived - duplicates
            if absent < 0:
                raise stale(str(where), "an offset of it stands there twice")
            times = [t for t in (first, last, *batch.ends_ms) if t is not None]
            place = (*where.partition_log, where.start, where.stop, Outcome.ARCHIVED.value, "")
            counts = (archived, duplicates, absent, size_bytes + batch.size_bytes)
            ends = (min(times, default=None), max(times, default=None), batch.run_id)
            number = connection.execute(ADD_BATCH, (*place, *counts, *ends)).fetchone()
            if number is None:
                raise SliceTakenError(
                    f"{where} is in the ledger by now, all or in part.",
                    remedy="Nothing was changed.",
                    slice=str(where),
                )
            add(connection, batch, *number)

        self._unless_taken(work, str(where))

    def recount_ledger(self, where: Slice) -> None:
        def work(connection: psycopg.Connection) -> None:
            connection.execute(REFERRING)
            locked = connection.execute(LOCK_LEDGER, [*where.partition_log, where.start, where.stop])
            found = locked.fetchall()
            if [row[1:3] for row in found] != [(where.start, where.stop)]:
                raise stale(str(where), "no ledger row is of just this slice")
            ((number, _, _, outcome, archived, duplicates),) = found
            connection.execute(DROP_SELF_COPIES, asdict(where))
            rows, size_bytes, first, last, copies = _standing(connection, where)
            refuse_to_hide(where, Outcome(outcome), archived + duplicates, rows + copies)
            counts = {"archived": rows, "duplicates": copies, "absent": len(where) - rows - copies}
            values = {"id": number, **counts, "bytes": size_bytes, "first": first, "last": last}
            connection.execute(RECOUNT_LEDGER, values)

        self._transact(work)

    def recount_summary(self, topic: str) -> None:
        def work(connection: psycopg.Connection) -> None:
            connection.execute(LOCK_SUMMARY, {"topic": topic})
            connection.execute(RECOUNT_SUMMARY, {"topic": topic})

        self._transact(work)

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        values = [*place.partition_log, place.start, place.stop, limit]
        return [Duplicate(*row) for row in self._fetch(DUPLICATES_IN, values)]

    def _unless_taken(self, work: Callable[[psycopg.Connection], None], about: str) -> None:
        try:
            self._transact(work)
        except UniqueViolation as error:
            raise stale(about, "a UUID or an offset of them has a row already") from error


def _standing(connection: psycopg.Connection, where: Slice) -> Tuple:
    """Rows, their bytes, least and greatest timestamp, and duplicates in a slice."""
    return only(connection.execute(STANDING, asdict(where)).fetchone())
