"""Jobs that go over all rows once, in Postgres, and the text index that one of them fills."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import psycopg

from hop_archive.catalog.postgres.session import Session, columns_of, only, transaction
from hop_archive.catalog.postgres.sql import ROW_COLUMNS
from hop_archive.catalog.records import Row, RowJob, RowPortion, RowRange, TextBacklog, TextEntry
from hop_archive.model.annotations import REFINED

_MOST_IDS = 50_000
"""Ids that one statement looks through: rows of the topics asked for may be few, and the statement is to be short."""

LAST = "SELECT coalesce(max(id), 0) FROM messages"
"""Index: messages_pkey."""

BEGIN = "INSERT INTO row_progress (job) VALUES (%(job)s) ON CONFLICT DO NOTHING"
"""Index: row_progress_pkey."""

PLAN = """
    UPDATE row_progress SET next_to = %(last)s, next_xid = pg_current_xact_id()
    WHERE job = %(job)s AND (next_to IS NULL OR next_to <= done_to OR next_xid > pg_snapshot_xmax(pg_current_snapshot()))
"""
"""Index: row_progress_pkey. After ``LAST``, and before anything is written: so whoever has taken a number up to that one, and may
not have committed it yet, has a smaller transaction number than ours. (The snapshot's own end is no such bound: it is that of the
last that ended.) Transactions begin anew to be counted where the catalog came out of a dump."""

RANGE = """
    SELECT done_to, CASE WHEN next_xid <= pg_snapshot_xmin(pg_current_snapshot()) THEN next_to ELSE done_to END
    FROM row_progress WHERE job = %(job)s
"""
"""Index: row_progress_pkey. All transactions before ``next_xid`` are over: what they added can be seen."""

DONE = "UPDATE row_progress SET done_to = greatest(done_to, %s) WHERE job = %s"
"""Index: row_progress_pkey."""

# As values, each looked up in its index: joined, the whole text index may be read for some rows.
_NO_TEXT = "(SELECT true FROM message_ts AS t WHERE t.uuid = m.uuid LIMIT 1) IS NULL"
_CONTENT_STAYS = "(SELECT true FROM suppressions AS s WHERE s.uuid = m.uuid) IS NULL"

ROWS = """
    SELECT m.id, {} FROM messages AS m
    WHERE id > %(after)s AND id <= %(last)s AND topic = ANY(%(topics)s) AND {} AND {}
    ORDER BY id LIMIT %(most)s
"""
WANTED = {
    RowJob.INDEX_TEXT: ROWS.format(ROW_COLUMNS, _NO_TEXT, _CONTENT_STAYS),
    RowJob.MEDIA_TYPES: ROWS.format(
        ROW_COLUMNS, "digest IS NOT NULL AND media_type = ANY(%(refined)s)", _CONTENT_STAYS
    ),
    RowJob.CHECK_OBJECTS: ROWS.format(ROW_COLUMNS, "true", "true"),
    RowJob.CHECK_COPIES: ROWS.format(ROW_COLUMNS, "true", "true"),
}
"""Index: messages_pkey, in its order; message_ts_uuid_idx; suppressions_pkey."""

INDEXING = "LOCK TABLE message_ts IN ROW EXCLUSIVE MODE"
"""What inserting takes anyway, before it is looked whose content stays: who suppresses (``FORGETTING``) waits, and then finds the
text; or was first, and is seen."""

FORGETTING = "LOCK TABLE message_ts IN SHARE ROW EXCLUSIVE MODE"
"""See ``INDEXING``."""

ADD_TEXTS = """
    INSERT INTO message_ts (uuid, text_data, text_fully_indexed)
    SELECT uuid, to_tsvector(text), is_full
    FROM unnest(%s::uuid[], %s::text[], %s::boolean[]) AS given (uuid, text, is_full)
    WHERE EXISTS (SELECT FROM messages AS m WHERE m.uuid = given.uuid)
          AND NOT EXISTS (SELECT FROM message_ts AS t WHERE t.uuid = given.uuid)
          AND NOT EXISTS (SELECT FROM suppressions AS s WHERE s.uuid = given.uuid)
"""
"""Index: messages_uuid_idx, message_ts_uuid_idx, suppressions_pkey. In the database's default configuration, as archive-core."""

DROP_TEXTS = "DELETE FROM message_ts WHERE uuid = ANY(%s)"
"""Index: message_ts_uuid_idx."""

BACKLOG = f"""
    WITH looked AS (
        SELECT id, topic, uuid, generation, partition, "offset", timestamp FROM messages
        WHERE id > coalesce((SELECT done_to FROM row_progress WHERE job = %(job)s), 0) ORDER BY id LIMIT %(most)s
    ), waiting AS (
        SELECT * FROM looked AS m WHERE topic = ANY(%(topics)s) AND {_NO_TEXT} AND {_CONTENT_STAYS}
    ), first AS (
        SELECT * FROM waiting ORDER BY id LIMIT 1
    )
    SELECT (SELECT count(*) FROM waiting), (SELECT count(*) FROM looked) = %(most)s,
           (SELECT coalesce(
               (SELECT created_at FROM batches AS b WHERE b.topic = first.topic AND b.generation = first.generation
                       AND b.partition = first.partition AND b.offsets @> first."offset"),
               CASE WHEN timestamp BETWEEN 0 AND 4102444800000 THEN to_timestamp(timestamp / 1000.0) END) FROM first)
"""
"""Index: messages_pkey, message_ts_uuid_idx, suppressions_pkey, batches_slice_excl."""


class PostgresRowJobs(Session):
    """The part of a catalog in Postgres for jobs that go over all rows once."""

    @transaction
    def begin_row_job(self, connection: psycopg.Connection, job: RowJob) -> RowRange:
        (last,) = only(connection.execute(LAST).fetchone())
        values = {"job": job.value, "last": last}
        for statement in (BEGIN, PLAN):
            connection.execute(statement, values)
        done_to, settled_to = only(connection.execute(RANGE, values).fetchone())
        return RowRange(done_to, settled_to, last)

    def rows_for(self, job: RowJob, topics: Collection[str], after: int, last: int, most: int) -> RowPortion:
        end = min(last, after + _MOST_IDS)
        values = {"after": after, "last": end, "topics": list(topics), "most": most, "refined": list(REFINED)}
        found = self._fetch(WANTED[job], values)
        return RowPortion(
            [Row.of_cells(row[1:]) for row in found], found[-1][0] if len(found) == most else end
        )

    def note_row_job(self, job: RowJob, done_to: int) -> None:
        self._execute(DONE, [done_to, job.value])

    @transaction
    def add_texts(self, connection: psycopg.Connection, entries: Sequence[TextEntry]) -> int:
        connection.execute(INDEXING)
        columns = columns_of(entries) or [[], [], []]
        return connection.execute(ADD_TEXTS, columns).rowcount

    def text_backlog(self, topics: Collection[str], most: int) -> TextBacklog:
        values = {"job": RowJob.INDEX_TEXT.value, "topics": list(topics), "most": most}
        return TextBacklog(*only(self._fetch(BACKLOG, values)[0]))
