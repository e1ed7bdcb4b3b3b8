"""The ledger, and numbers by topic and day, in Postgres."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from functools import partial

import psycopg

from hop_archive.catalog.postgres.session import Session, by_log, listed, only
from hop_archive.catalog.postgres.sql import COPIES_OF, REFERRING, ROWS_OF
from hop_archive.catalog.records import LedgerDay, LedgerEntry, MessageDay, Miscount, Outcome, TopicSummary
from hop_archive.model.slices import OffsetRange, OffsetSet, PartitionLog, Slice

COVERAGE = """
    SELECT topic, generation, partition, lower(covered), upper(covered)
    FROM (
        SELECT topic, generation, partition, unnest(range_agg(offsets)) AS covered
        FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic, generation, partition
    ) AS logs
    ORDER BY topic, generation, partition, covered
"""
"""Index: batches_lineage_idx, for some topics. Postgres merges what touches: ranges come normalized."""

LEDGER = """
    SELECT topic, generation, partition, lower(offsets), upper(offsets), outcome, reason,
           archived, duplicates, absent, bytes, run_id, created_at
    FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ORDER BY topic COLLATE "C", generation, partition, offsets
"""
"""Index: batches_lineage_idx, for some topics."""

SUMMARIES = """
    SELECT topic, coalesce(n_messages, 0), coalesce(duplicates, 0), coalesce(absent, 0), coalesce(lost, 0),
           coalesce(skipped, 0), coalesce(n_bytes, 0), e_timestamp, l_timestamp, last_batch_at,
           coalesce(pruned, 0)
    FROM (
        SELECT topic, sum(duplicates)::bigint AS duplicates, sum(absent)::bigint AS absent,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost')::bigint AS lost,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'skipped')::bigint AS skipped,
               sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'pruned')::bigint AS pruned,
               max(created_at) AS last_batch_at
        FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic
    ) AS dealt_with
    FULL JOIN (
        SELECT topic, n_messages, n_bytes,
               CASE WHEN n_messages > 0 THEN e_timestamp END AS e_timestamp,
               CASE WHEN n_messages > 0 THEN l_timestamp END AS l_timestamp
        FROM topics WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
    ) AS archived USING (topic)
    ORDER BY topic COLLATE "C"
"""
"""Index: batches_lineage_idx and unique_topic, for some topics."""

SUMMARIES_SINCE = """
    SELECT topic, sum(archived)::bigint, sum(duplicates)::bigint, sum(absent)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost'), 0)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'skipped'), 0)::bigint,
           sum(bytes)::bigint, min(first_timestamp), max(last_timestamp), max(created_at),
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'pruned'), 0)::bigint
    FROM batches
    WHERE created_at >= %(since)s AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic ORDER BY topic COLLATE "C"
"""
"""Index: batches_created_idx."""

MISCOUNTED_BATCHES = f"""
    SELECT generation, partition, lower(offsets), upper(offsets), archived, found.rows, duplicates, found.copies
    FROM batches AS b, LATERAL (SELECT {ROWS_OF} AS rows, {COPIES_OF} AS copies) AS found
    WHERE topic = %s AND (archived, duplicates) IS DISTINCT FROM (found.rows, found.copies)
    ORDER BY generation, partition, lower(offsets)
"""
"""Index: batches_lineage_idx, messages_offset_idx, duplicates_pkey."""

MISCOUNTED_SUMMARY = """
    SELECT coalesce(said.n_messages, 0), found.rows, coalesce(said.n_bytes, 0), found.bytes
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM messages WHERE topic = %(topic)s) AS found
    LEFT JOIN topics AS said ON said.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx."""

ROWS_BY_LOG = """
    SELECT generation, partition, count(*) FROM messages
    WHERE topic = %s AND generation IS NOT NULL GROUP BY generation, partition ORDER BY generation, partition
"""
"""Index: messages_offset_idx."""

ROWS_IN_LEDGER = f"""
    SELECT coalesce(sum({ROWS_OF}), 0)::bigint
    FROM batches AS b WHERE topic = %s AND generation = %s AND partition = %s
"""
"""Index: batches_lineage_idx, messages_offset_idx."""

UNLEDGERED = """
    SELECT min(m."offset"), max(m."offset") + 1
    FROM messages AS m
    WHERE m.topic = %s AND m.generation = %s AND m.partition = %s AND NOT EXISTS (
        SELECT FROM batches AS b
        WHERE b.topic = m.topic AND b.generation = m.generation AND b.partition = m.partition
          AND b.offsets @> m."offset")
"""
"""Index: messages_offset_idx, batches_slice_excl. Looks into the ledger for each row: asked only where counts differ."""

_NEIGHBOURS = """
    SELECT *, lower(offsets) IS DISTINCT FROM lag(upper(offsets)) OVER (
        PARTITION BY topic, generation, partition, outcome, reason ORDER BY offsets) AS starts
"""
"""Rows that follow one another without a hole, of one outcome and reason; ``starts`` is where a run of them begins.
No other row can stand between two that touch: the exclusion constraint forbids it."""

MERGEABLE = f"""
    SELECT DISTINCT topic, generation, partition
    FROM ({_NEIGHBOURS} FROM batches WHERE created_at < %s) AS marked
    WHERE NOT starts
"""
"""Index: none; reads the ledger once, which merging keeps small."""

MERGE = f"""
    WITH locked AS MATERIALIZED (
        SELECT * FROM batches
        WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
              AND created_at < %(before)s
        ORDER BY offsets FOR UPDATE
    ), marked AS ({_NEIGHBOURS} FROM locked
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY outcome, reason ORDER BY offsets) AS run
        FROM marked
    ), merged AS (
        SELECT topic, generation, partition, int8range(min(lower(offsets)), max(upper(offsets))) AS offsets,
               outcome, reason, sum(archived) AS archived, sum(duplicates) AS duplicates, sum(absent) AS absent,
               sum(bytes) AS bytes, min(first_timestamp) AS first_timestamp, max(last_timestamp) AS last_timestamp,
               CASE WHEN min(run_id) = max(run_id) THEN min(run_id) ELSE '' END AS run_id,
               max(created_at) AS created_at, array_agg(id) AS ids
        FROM numbered GROUP BY topic, generation, partition, outcome, reason, run HAVING count(*) > 1
    ), gone AS (
        DELETE FROM batches WHERE id IN (SELECT unnest(ids) FROM merged) RETURNING id
    ), added AS (
        INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
                             bytes, first_timestamp, last_timestamp, run_id, created_at)
        SELECT topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
               bytes, first_timestamp, last_timestamp, run_id, created_at
        FROM merged WHERE (SELECT count(*) FROM gone) > 0
        RETURNING id
    )
    SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM added)
"""
"""Index: batches_lineage_idx, batches_pkey. Without FOR UPDATE, numbers that somebody changes meanwhile would be added up as
they were before. The count over ``gone`` makes the deletes come first; the exclusion
constraint then sees them as gone. A merge has no hole, so no slice that anybody may still commit overlaps it."""

MESSAGE_DAYS = """
    SELECT topic, to_timestamp((timestamp / 86400000) * 86400)::date AS day, count(*), sum(size)::bigint FROM messages
    WHERE timestamp >= %(since_ms)s AND timestamp < %(until_ms)s
          AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, day ORDER BY topic COLLATE "C", day
"""
"""Index: messages_timestamp_id_idx, or messages_topic_timestamp_idx for some topics."""

LEDGER_DAYS = """
    SELECT topic, created_at::date AS day, sum(duplicates)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost'), 0)::bigint,
           max(greatest(0, extract(epoch FROM created_at)::float8 - last_timestamp / 1000.0::float8))
               FILTER (WHERE last_timestamp > 0)
    FROM batches
    WHERE created_at >= %(since)s AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, day ORDER BY topic COLLATE "C", day
"""
"""Index: batches_created_idx."""


class PostgresLedger(Session):
    """The part of a catalog in Postgres that says what became of each offset."""

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        found = self._fetch(COVERAGE, {"topics": listed(topics)})
        return {at: OffsetSet(tuple(OffsetRange(*row) for row in rows)) for at, rows in by_log(found)}

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        found = self._fetch(LEDGER, {"topics": listed(topics)})
        return [LedgerEntry(Slice(*row[:5]), Outcome(row[5]), *row[6:]) for row in found]

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        statement = SUMMARIES if since is None else SUMMARIES_SINCE
        found = self._fetch(statement, {"topics": listed(topics), "since": since})
        return [TopicSummary(*row) for row in found]

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        found: list[Miscount] = []
        for row in self._fetch(MISCOUNTED_BATCHES, [topic]):
            where = Slice(topic, *row[:4])
            found.append(Miscount(topic, where, "archived", *row[4:6]))
            found.append(Miscount(topic, where, "duplicates", *row[6:8]))
        ((messages, rows, size_bytes, rows_bytes),) = self._fetch(MISCOUNTED_SUMMARY, {"topic": topic})
        found.append(Miscount(topic, None, "messages", messages, rows))
        found.append(Miscount(topic, None, "bytes", size_bytes, rows_bytes))
        return [miscount for miscount in found if miscount.said != miscount.found]

    def unledgered(self, topic: str) -> Sequence[Slice]:
        found: list[Slice] = []
        for generation, partition, rows in self._fetch(ROWS_BY_LOG, [topic]):
            at = (topic, generation, partition)
            if self._fetch(ROWS_IN_LEDGER, at) != [(rows,)]:
                ((start, stop),) = self._fetch(UNLEDGERED, at)
                found += [] if start is None else [Slice(*at, start, stop)]
        return found

    def merge_ledger(self, before: datetime.datetime) -> int:
        """One transaction a log; no commit waits for more than the merge of its own log.

        Running it again, or twice at once, is harmless. ``messages.batch`` and ``duplicates.batch`` keep the number of
        the batch as it was committed: the ledger row of a message is found by its offset.
        """

        def merge(at: PartitionLog, connection: psycopg.Connection) -> int:
            connection.execute(REFERRING)
            return int(only(connection.execute(MERGE, {**at._asdict(), "before": before}).fetchone())[0])

        logs = [PartitionLog(*found) for found in self._fetch(MERGEABLE, [before])]
        return sum(self._transact(partial(merge, at)) for at in logs)

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        bounds = {"since_ms": int(since.timestamp() * 1000), "until_ms": int(until.timestamp() * 1000)}
        found = self._fetch(MESSAGE_DAYS, {**bounds, "topics": listed(topics)})
        return [MessageDay(*row) for row in found]

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        found = self._fetch(LEDGER_DAYS, {"since": since, "topics": listed(topics)})
        return [LedgerDay(*row) for row in found]
