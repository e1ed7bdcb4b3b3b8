"""What rebuilding asks of a catalog in Postgres: to add what is missing, and leave what is there."""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from dataclasses import asdict

import psycopg

from hop_archive.catalog.postgres.adding import ADD_TO_TOPIC, stage
from hop_archive.catalog.postgres.session import Session
from hop_archive.catalog.postgres.sql import (
    COLLISION,
    COPIES_OF,
    HOLD,
    IN_LOG,
    REFERRING,
    ROW_COLUMNS,
    ROWS_OF,
)
from hop_archive.catalog.records import UNTOLD, Batch, Reinstated, Row
from hop_archive.errors import StaleDecisionError

_STAGED_COLUMNS = ", ".join(f"s.{column}" for column in ROW_COLUMNS.split(", "))
_OVERLAPS = f"{IN_LOG} AND offsets && int8range(%(start)s, %(stop)s)"

STILL_LOST = f"""
    WITH gone AS (
        DELETE FROM batches
        WHERE {_OVERLAPS} AND (outcome = 'lost' OR outcome = 'skipped' AND reason = %(untold)s) RETURNING *
    ), kept AS (
        SELECT gone.*, unnest(int8multirange(offsets) - int8multirange(int8range(%(start)s, %(stop)s))) AS part FROM gone
    )
    SELECT topic, generation, partition, lower(part), upper(part), outcome, reason, run_id, created_at FROM kept
"""
"""Index: batches_slice_excl. What was called lost, or untold, and is proven by a document is not; what is left of such rows is put
back by ``LOST_AGAIN``, in a statement of its own: the exclusion constraint has to see the old ones gone."""

LOST_AGAIN = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, run_id, created_at)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s)
"""
"""Index: batches_slice_excl."""

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
"""Index: batches_slice_excl, messages_uuid_idx, messages_offset_idx, duplicates_pkey."""

REFUSED = """
    SELECT s.uuid, EXISTS (SELECT FROM messages AS m WHERE m.uuid = s.uuid) FROM staged AS s
    WHERE NOT EXISTS (
        SELECT FROM messages AS m WHERE m.uuid = s.uuid AND m.topic = s.topic AND m.generation = s.generation
            AND m.partition = s.partition AND m."offset" = s."offset")
"""
"""Those that have no row in their place; and whether they have one elsewhere. Index: messages_uuid_idx."""

ADD_DUPLICATE = """
    INSERT INTO duplicates (topic, generation, partition, "offset", timestamp, uuid, reason, batch)
    SELECT topic, generation, partition, %(offset)s, %(timestamp_ms)s, %(uuid)s, %(reason)s, id FROM batches
    WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
        AND offsets @> %(offset)s::bigint AND outcome = 'archived'
        AND NOT EXISTS (
            SELECT FROM messages AS m WHERE m.topic = %(topic)s AND m.generation = %(generation)s
                AND m.partition = %(partition)s AND m."offset" = %(offset)s)
    ON CONFLICT DO NOTHING
"""
"""Index: batches_slice_excl, messages_offset_idx, duplicates_pkey."""

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

COUNT_COVERED = """
    UPDATE batches AS b
    SET archived = found.rows, duplicates = found.copies, bytes = found.bytes, first_timestamp = found.first,
        last_timestamp = found.last, absent = upper(b.offsets) - lower(b.offsets) - found.rows - found.copies
    FROM batches AS same, LATERAL (
        SELECT count(*) AS rows, coalesce(sum(size), 0) AS bytes, min(timestamp) AS first, max(timestamp) AS last,
            (SELECT count(*) FROM duplicates AS d
             WHERE d.topic = same.topic AND d.generation = same.generation AND d.partition = same.partition
                AND d."offset" >= lower(same.offsets) AND d."offset" < upper(same.offsets)) AS copies
        FROM messages AS m
        WHERE m.topic = same.topic AND m.generation = same.generation AND m.partition = same.partition
            AND m."offset" >= lower(same.offsets) AND m."offset" < upper(same.offsets)
    ) AS found
    WHERE same.id = ANY(%s) AND b.id = same.id
"""
"""Index: batches_pkey, messages_offset_idx, duplicates_pkey."""

ADOPT_STAGED = f"INSERT INTO messages ({ROW_COLUMNS}) SELECT {ROW_COLUMNS} FROM staged ON CONFLICT DO NOTHING"
"""Index: messages_uuid_idx. The trigger on rows without a digest counts them in the summary."""

MISCOUNTED = f"""
    SELECT id FROM batches AS b
    WHERE topic = %s AND outcome = 'archived' AND (archived, duplicates) IS DISTINCT FROM ({ROWS_OF}, {COPIES_OF})
    ORDER BY generation, partition, offsets FOR UPDATE
"""
"""Index: batches_lineage_idx, messages_offset_idx, duplicates_pkey."""

HOLD_SUMMARY = """
    INSERT INTO topics (topic, e_timestamp, l_timestamp, n_messages, n_bytes)
    SELECT %(topic)s, NULL, NULL, 0, 0
    WHERE EXISTS (SELECT FROM messages WHERE topic = %(topic)s) OR EXISTS (SELECT FROM topics WHERE topic = %(topic)s)
    ON CONFLICT (topic) DO UPDATE SET n_messages = topics.n_messages
"""
"""Index: unique_topic, messages_topic_timestamp_idx. Who commits to the topic meanwhile waits here, and adds to what is
counted. A topic of which there is nothing gets no summary."""

RECOUNT_SUMMARY = """
    UPDATE topics
    SET e_timestamp = least(e_timestamp, found.first), l_timestamp = greatest(l_timestamp, found.last),
        n_messages = found.rows, n_bytes = found.bytes
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0) AS bytes, min(timestamp) AS first, max(timestamp) AS last
          FROM messages WHERE topic = %(topic)s) AS found
    WHERE topics.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx, unique_topic."""


class PostgresRebuilding(Session):
    """The part of a catalog in Postgres that is rebuilt."""

    def reinstate(self, batch: Batch) -> Reinstated:
        return self._transact(lambda connection: self._reinstate(connection, batch))

    def _reinstate(self, connection: psycopg.Connection, batch: Batch) -> Reinstated:
        where = {**asdict(batch.slice), "run_id": batch.run_id, "untold": UNTOLD}
        # Two that reinstate in one topic come one after another: what one has added the other sees.
        self._set_all_right(connection)
        connection.execute(HOLD, [f"reinstating {batch.slice.topic}"])
        for part in connection.execute(STILL_LOST, where).fetchall():
            connection.execute(LOST_AGAIN, part)
        covered = connection.execute(COVER, where).fetchall()
        stage(connection, batch.rows)
        added = connection.execute(ADD_STAGED).fetchall()
        unplaced: dict[uuid.UUID, bool] = dict(connection.execute(REFUSED).fetchall())
        if elsewhere := [str(message_uuid) for message_uuid, has_row in unplaced.items() if has_row]:
            raise StaleDecisionError(
                f"{self._server}: messages of {batch.slice} have rows elsewhere: {', '.join(elsewhere[:10])}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=elsewhere[:10],
            )
        at = batch.slice.partition_log._asdict()
        with connection.cursor() as cursor:
            if batch.duplicates:
                cursor.executemany(ADD_DUPLICATE, [{**at, **d._asdict()} for d in batch.duplicates])
            for collision in batch.collisions:
                cursor.execute(ADD_MISSING_COLLISION, {"kind": COLLISION, **at, **collision._asdict()})
        connection.execute(COUNT_COVERED, [[number for number, _ in covered]])
        if added:
            times, sizes = zip(*added, strict=True)
            summary = [batch.slice.topic, min(times), max(times), len(added), sum(sizes)]
            connection.execute(ADD_TO_TOPIC, summary)
        refused = tuple(row for row in batch.rows if row.uuid in unplaced)
        return Reinstated(len(added), sum(length for _, length in covered), refused)

    def adopt(self, rows: Iterable[Row]) -> int:
        held = list(rows)

        def work(connection: psycopg.Connection) -> int:
            self._set_all_right(connection)
            stage(connection, held)
            return connection.execute(ADOPT_STAGED).rowcount

        return self._transact(work) if held else 0

    def recount(self, topic: str) -> int:
        def work(connection: psycopg.Connection) -> int:
            connection.execute(REFERRING)
            numbers = [number for (number,) in connection.execute(MISCOUNTED, [topic])]
            connection.execute(COUNT_COVERED, [numbers])
            connection.execute(HOLD_SUMMARY, {"topic": topic})
            connection.execute(RECOUNT_SUMMARY, {"topic": topic})
            return len(numbers)

        return self._transact(work)
