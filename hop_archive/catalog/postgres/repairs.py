"""Mending in Postgres, and rebuilding: what is missing is added, and what is there stays."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import psycopg
from psycopg.errors import UniqueViolation

from hop_archive.catalog.ledger import refuse_to_hide
from hop_archive.catalog.postgres.adding import ADD_TO_TOPIC, add, stage
from hop_archive.catalog.postgres.row_jobs import DROP_TEXTS
from hop_archive.catalog.postgres.session import Session, Tuple, columns_of, only, transaction
from hop_archive.catalog.postgres.sql import (
    ADD_BATCH,
    ADD_PART,
    COLLISION,
    COPIES_OF,
    HOLD,
    IN_LOG,
    NOTE_LOG,
    REFERRING,
    ROW_COLUMNS,
    ROWS_OF,
    STANDING,
    of_log,
)
from hop_archive.catalog.records import (
    COLUMNS,
    UNTOLD,
    Batch,
    Correction,
    Duplicate,
    Outcome,
    Reinstated,
    Row,
)
from hop_archive.catalog.refusals import about_to_be_deleted, decided_too_early, stale
from hop_archive.errors import SliceTakenError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice

_SET = ", ".join(f"{column} = %s" for column in ROW_COLUMNS.split(", "))
_IS = " AND ".join(
    f"{column} IS NOT DISTINCT FROM %s::{kind}"
    for column, kind in zip(ROW_COLUMNS.split(", "), COLUMNS.values(), strict=True)
)

CORRECT = f"UPDATE messages SET {_SET} WHERE uuid = %s AND {_IS}"
"""Index: messages_uuid_idx."""

PENDING_AMONG = """
    SELECT condemned.key, condemned.bucket FROM condemned JOIN unnest(%s::text[], %s::text[]) AS named (bucket, key)
         USING (bucket, key)
    LIMIT 1
"""
"""Index: condemned_pkey."""

LOCK_LEDGER = """
    SELECT id, lower(offsets), upper(offsets), outcome, archived, duplicates FROM batches
    WHERE topic = %s AND generation = %s AND partition = %s AND offsets && int8range(%s, %s)
    ORDER BY offsets FOR UPDATE
"""
"""Index: batches_slice_excl. Merging waits, and what was merged meanwhile does not come."""

COUNT_A_COPY = f"""
    UPDATE batches SET duplicates = duplicates + 1, absent = absent - 1
    WHERE {IN_LOG} AND offsets @> %(offset)s::bigint AND outcome = 'archived' AND absent > 0
    RETURNING id
"""
"""Index: batches_slice_excl."""

DROP_SELF_COPIES = f"""
    DELETE FROM duplicates AS d USING messages AS m
    WHERE d.topic = %(topic)s AND d.generation = %(generation)s AND d.partition = %(partition)s
          AND d."offset" >= %(start)s AND d."offset" < %(stop)s
          AND {of_log("m", "d")} AND m."offset" = d."offset" AND m.uuid = d.uuid
"""
"""Index: duplicates_pkey, messages_place_idx."""

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

_STAGED_COLUMNS = ", ".join(f"s.{column}" for column in ROW_COLUMNS.split(", "))
_OVERLAPS = f"{IN_LOG} AND offsets && int8range(%(start)s, %(stop)s)"

STILL_LOST = f"""
    WITH gone AS (
        DELETE FROM batches
        WHERE {_OVERLAPS} AND (outcome = 'lost' OR outcome = 'skipped' AND reason = %(untold)s) RETURNING *
    ), kept AS (
        SELECT gone.*, unnest(int8multirange(offsets) - int8multirange(int8range(%(start)s, %(stop)s))) AS part FROM gone
    )
    SELECT topic, generation, partition, lower(part), upper(part), outcome, reason, 0, 0, 0, 0, NULL::bigint, NULL::bigint,
           run_id, created_at
    FROM kept
"""
"""Index: batches_slice_excl. What was called lost, or untold, and is proven by a document is not; what is left of such rows is put
back (``ADD_PART``)."""

COVER = f"""
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, absent, run_id)
    SELECT %(topic)s, %(generation)s, %(partition)s, part, 'archived', '', upper(part) - lower(part), %(run_id)s
    FROM unnest(int8multirange(int8range(%(start)s, %(stop)s)) - (
        SELECT coalesce(range_agg(offsets), '{{}}') FROM batches WHERE {_OVERLAPS})) AS part
    ON CONFLICT ON CONSTRAINT batches_slice_excl DO NOTHING
    RETURNING id, upper(offsets) - lower(offsets)
"""
"""Index: batches_slice_excl. All of it is called absent until its rows are there and ``COUNT_COVERED`` counts them."""

ADD_STAGED = f"""
    INSERT INTO messages ({ROW_COLUMNS}, batch)
    SELECT {_STAGED_COLUMNS}, b.id
    FROM staged AS s JOIN batches AS b
        ON b.topic = s.topic AND b.generation = s.generation AND b.partition = s.partition
        AND b.offsets @> s."offset" AND b.outcome = 'archived'
    WHERE NOT EXISTS (
        SELECT FROM duplicates AS d WHERE d.topic = s.topic AND d.generation = s.generation
            AND d.partition = s.partition AND d."offset" = s."offset")
    ORDER BY s."offset"
    ON CONFLICT DO NOTHING
    RETURNING timestamp, size
"""
"""Index: batches_slice_excl, messages_uuid_idx, messages_place_idx, duplicates_pkey."""

REFUSED = """
    SELECT s.uuid, EXISTS (SELECT FROM messages AS m WHERE m.uuid = s.uuid) FROM staged AS s
    WHERE NOT EXISTS (
        SELECT FROM messages AS m WHERE m.uuid = s.uuid AND m.topic = s.topic AND m.generation = s.generation
            AND m.partition = s.partition AND m."offset" = s."offset")
"""
"""Those that have no row in their place; and whether they have one elsewhere. Index: messages_uuid_idx."""

ADD_DUPLICATE = f"""
    INSERT INTO duplicates (topic, generation, partition, "offset", timestamp, uuid, reason, batch)
    SELECT topic, generation, partition, %(offset)s, %(timestamp_ms)s, %(uuid)s, %(reason)s, id FROM batches
    WHERE {IN_LOG} AND offsets @> %(offset)s::bigint AND outcome = 'archived'
        AND NOT EXISTS (
            SELECT FROM messages AS m WHERE {of_log("m", "%")} AND m."offset" = %(offset)s)
    ON CONFLICT DO NOTHING
"""
"""Index: batches_slice_excl, messages_place_idx, duplicates_pkey."""

ADD_MISSING_COLLISION = """
    INSERT INTO findings (kind, topic, generation, partition, offsets, uuid, detail, resolved_at, resolution)
    SELECT %(kind)s, %(topic)s, %(generation)s, %(partition)s, int8range(%(offset)s, %(offset)s, '[]'), %(archived_as)s,
        jsonb_build_object('client_uuid', %(client_uuid)s::uuid, 'archived_as', %(archived_as)s::uuid),
        now(), 'archived under a UUID derived from its content'
    WHERE NOT EXISTS (
        SELECT FROM findings WHERE topic = %(topic)s AND kind = %(kind)s AND generation = %(generation)s
            AND partition = %(partition)s AND offsets @> %(offset)s::bigint)
"""
"""Index: findings_topic_idx."""

COUNT_COVERED = f"""
    UPDATE batches AS b
    SET archived = found.rows, duplicates = found.copies, bytes = found.bytes, first_timestamp = found.first,
        last_timestamp = found.last, absent = upper(b.offsets) - lower(b.offsets) - found.rows - found.copies
    FROM batches AS same, LATERAL (
        SELECT count(*) AS rows, coalesce(sum(size), 0) AS bytes, min(timestamp) AS first, max(timestamp) AS last,
            (SELECT count(*) FROM duplicates AS d
             WHERE d.topic = same.topic AND d.generation = same.generation AND d.partition = same.partition
                AND d."offset" >= lower(same.offsets) AND d."offset" < upper(same.offsets)) AS copies
        FROM messages AS m
        WHERE {of_log("m", "same")}
            AND m."offset" >= lower(same.offsets) AND m."offset" < upper(same.offsets)
    ) AS found
    WHERE same.id = ANY(%s) AND b.id = same.id
"""
"""Index: batches_pkey, messages_place_idx, duplicates_pkey."""

ADOPT_STAGED = f"INSERT INTO messages ({ROW_COLUMNS}) SELECT {ROW_COLUMNS} FROM staged ON CONFLICT DO NOTHING"
"""Index: messages_uuid_idx. The trigger on rows without a digest counts them in the summary."""

MISCOUNTED = f"""
    SELECT id FROM batches AS b
    WHERE topic = %s AND outcome = 'archived' AND (archived, duplicates) IS DISTINCT FROM ({ROWS_OF}, {COPIES_OF})
    ORDER BY generation, partition, offsets FOR UPDATE
"""
"""Index: batches_lineage_idx, messages_place_idx, duplicates_pkey."""

HOLD_SUMMARY = """
    INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes)
    SELECT %(topic)s, NULL, NULL, 0, 0
    WHERE EXISTS (SELECT FROM messages WHERE topic = %(topic)s) OR EXISTS (SELECT FROM topics WHERE topic = %(topic)s)
    ON CONFLICT (topic) DO UPDATE SET n_messages = topics.n_messages
"""
"""Index: unique_topic, messages_topic_timestamp_idx. Who commits to the topic meanwhile waits here, and adds to what is
counted. A topic of which there is nothing gets no summary."""

RECOUNT_REBUILT = """
    UPDATE topics
    SET e_timestamp = least(e_timestamp, found.first), l_timestamp = greatest(l_timestamp, found.last),
        n_messages = found.rows, n_bytes = found.bytes
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0) AS bytes, min(timestamp) AS first, max(timestamp) AS last
          FROM messages WHERE topic = %(topic)s) AS found
    WHERE topics.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx, unique_topic."""


class PostgresRepairs(Session):
    """The part of a catalog in Postgres that is corrected, or rebuilt."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        if not corrections:
            return
        about = f"{len(corrections)} rows of topic {corrections[0].was.topic}"
        values = [(*c.now.cells(), c.was.uuid, *c.was.cells()) for c in corrections]

        def work(connection: psycopg.Connection) -> None:
            if elsewhere := [c.was.uuid for c in corrections if c.was.uuid != c.now.uuid]:
                connection.execute(DROP_TEXTS, [elsewhere])
            with connection.cursor() as cursor:
                if moved := {
                    c.now.slice.partition_log
                    for c in corrections
                    if c.now.slice and c.now.slice != c.was.slice
                }:
                    cursor.executemany(NOTE_LOG, sorted(moved))
                cursor.executemany(CORRECT, values)
                if cursor.rowcount != len(corrections):
                    raise stale(about, "not all of them stand as they were seen")
            # After the change: whoever notes an object from now on sees, once this is committed, that a row names it.
            named = {
                (now.bucket, now.object_key)
                for was, now in corrections
                if (was.bucket, was.object_key) != (now.bucket, now.object_key)
            }
            columns = [[bucket for bucket, _ in named], [key for _, key in named]]
            if named and (pending := connection.execute(PENDING_AMONG, columns).fetchone()):
                raise about_to_be_deleted(*pending)

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
            add(connection, (batch, ledger[0][0]))
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
            add(connection, (Batch(where, duplicates=[copy]), counted[0]))

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
            number = connection.execute(ADD_BATCH, columns_of([(*place, *counts, *ends)])).fetchone()
            if number is None:
                raise SliceTakenError(
                    f"{where} is in the ledger by now, all or in part.",
                    remedy="Nothing was changed.",
                    slice=str(where),
                )
            add(connection, (batch, number[0]))

        self._unless_taken(work, str(where))

    @transaction
    def recount_ledger(self, connection: psycopg.Connection, where: Slice) -> None:
        connection.execute(REFERRING)
        locked = connection.execute(LOCK_LEDGER, [*where.partition_log, where.start, where.stop])
        found = locked.fetchall()
        if [row[1:3] for row in found] != [(where.start, where.stop)]:
            raise stale(str(where), "no ledger row is of just this slice")
        ((number, _, _, outcome, archived, duplicates),) = found
        connection.execute(DROP_SELF_COPIES, asdict(where))
        rows, _, _, _, copies = _standing(connection, where)
        refuse_to_hide(where, Outcome(outcome), archived + duplicates, rows + copies)
        connection.execute(COUNT_COVERED, [[number]])

    @transaction
    def recount_summary(self, connection: psycopg.Connection, topic: str) -> None:
        connection.execute(HOLD_SUMMARY, {"topic": topic})
        connection.execute(RECOUNT_SUMMARY, {"topic": topic})

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        values = [*place.partition_log, place.start, place.stop, limit]
        return self._fetch_as(Duplicate, DUPLICATES_IN, values)

    @transaction
    def reinstate(self, connection: psycopg.Connection, batch: Batch) -> Reinstated:
        where = {**asdict(batch.slice), "run_id": batch.run_id, "untold": UNTOLD}
        # Two that reinstate in one topic come one after another: what one has added the other sees.
        self._set_all_right(connection)
        connection.execute(HOLD, [f"reinstating {batch.slice.topic}"])
        for part in connection.execute(STILL_LOST, where).fetchall():
            connection.execute(ADD_PART, part)
        covered = connection.execute(COVER, where).fetchall()
        stage(connection, batch.rows)
        added = connection.execute(ADD_STAGED).fetchall()
        unplaced: dict[uuid.UUID, bool] = dict(connection.execute(REFUSED).fetchall())
        if elsewhere := [message_uuid for message_uuid, has_row in unplaced.items() if has_row]:
            what = f"messages of {batch.slice} have rows elsewhere"
            raise decided_too_early(self._server, batch.slice, what, elsewhere)
        log = batch.slice.partition_log
        at = log._asdict()
        with connection.cursor() as cursor:
            if batch.duplicates:
                cursor.executemany(ADD_DUPLICATE, [{**at, **d._asdict()} for d in batch.duplicates])
            for collision in batch.collisions:
                cursor.execute(ADD_MISSING_COLLISION, {"kind": COLLISION, **at, **collision._asdict()})
        connection.execute(COUNT_COVERED, [[number for number, _ in covered]])
        if added:
            times, sizes = zip(*added, strict=True)
            counted = (*log, min(times), max(times), len(added), sum(sizes))
            connection.execute(ADD_TO_TOPIC, columns_of([counted]))
        refused = tuple(row for row in batch.rows if row.uuid in unplaced)
        return Reinstated(len(added), sum(length for _, length in covered), refused)

    def adopt(self, rows: Iterable[Row]) -> int:
        held = list(rows)

        def work(connection: psycopg.Connection) -> int:
            self._set_all_right(connection)
            stage(connection, held)
            return connection.execute(ADOPT_STAGED).rowcount

        return self._transact(work) if held else 0

    @transaction
    def recount(self, connection: psycopg.Connection, topic: str) -> int:
        connection.execute(REFERRING)
        numbers = [number for (number,) in connection.execute(MISCOUNTED, [topic])]
        connection.execute(COUNT_COVERED, [numbers])
        connection.execute(HOLD_SUMMARY, {"topic": topic})
        connection.execute(RECOUNT_REBUILT, {"topic": topic})
        return len(numbers)

    def _unless_taken(self, work: Callable[[psycopg.Connection], None], about: str) -> None:
        try:
            self._transact(work)
        except UniqueViolation as error:
            raise stale(about, "a UUID or an offset of them has a row already") from error


def _standing(connection: psycopg.Connection, where: Slice) -> Tuple:
    """Rows, their bytes, least and greatest timestamp, and duplicates in a slice."""
    return only(connection.execute(STANDING, asdict(where)).fetchone())
