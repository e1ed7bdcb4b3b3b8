"""The ledger, and numbers by topic and day, in Postgres."""

from __future__ import annotations

import datetime
import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import psycopg

from hop_archive.catalog.ledger import BLOCK, YOUNG
from hop_archive.catalog.postgres.session import Session, by_log, listed, only, transaction
from hop_archive.catalog.postgres.sql import (
    COPIES_OF,
    IN_LOG,
    LOGS,
    PERIOD_ORIGIN,
    REFERRING,
    ROWS_OF,
    of_log,
)
from hop_archive.catalog.records import LedgerDay, LedgerEntry, MessageDay, Miscount, Outcome, TopicSummary
from hop_archive.errors import ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.model.slices import OffsetRange, OffsetSet, PartitionLog, Slice
from hop_archive.model.wording import said

log = logging.getLogger(__name__)

COVERAGE = """
    SELECT topic, generation, partition, lower(covered), upper(covered)
    FROM (
        SELECT topic, generation, partition, unnest(range_agg(offsets)) AS covered
        FROM batches WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
        GROUP BY topic, generation, partition
    ) AS logs
"""
"""Index: batches_lineage_idx, for some topics. Postgres merges what touches: ranges come normalized. In no order, so that the rows
of the ledger need not be sorted, but only what comes of them."""

LEDGER = """
    SELECT topic, generation, partition, lower(offsets), upper(offsets), outcome, reason,
           archived, duplicates, absent, bytes, run_id, created_at, first_timestamp, last_timestamp, lag_ms
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
    WHERE topic = %(topic)s AND abs(hashtextextended(topic, lower(offsets)) %% %(every)s) = %(turn)s AND (archived, duplicates) IS DISTINCT FROM (found.rows, found.copies)
    ORDER BY generation, partition, lower(offsets)
"""
"""Index: batches_lineage_idx, messages_place_idx, duplicates_pkey. Reads the rows of those ledger rows whose turn it is."""

MISCOUNTED_IN = f"""
    SELECT generation, partition, lower(offsets), upper(offsets), archived, found.rows, duplicates, found.copies
    FROM batches AS b, LATERAL (SELECT {ROWS_OF} AS rows, {COPIES_OF} AS copies) AS found
    WHERE {IN_LOG} AND offsets && int8range(%(start)s, %(stop)s) AND lower(offsets) >= %(start)s
          AND (archived, duplicates) IS DISTINCT FROM (found.rows, found.copies)
    ORDER BY lower(offsets)
"""
"""Index: batches_slice_excl, messages_place_idx, duplicates_pkey."""

SUMMED_UP = """
    SELECT coalesce(said.n_messages, 0), coalesce(said.n_bytes, 0), dealt.archived + adopted.rows, dealt.bytes + adopted.bytes
    FROM (SELECT coalesce(sum(archived), 0)::bigint AS archived, coalesce(sum(bytes), 0)::bigint AS bytes
          FROM batches WHERE topic = %(topic)s) AS dealt
         CROSS JOIN (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM messages
                     WHERE topic = %(topic)s AND digest IS NULL AND generation IS NULL) AS adopted
         LEFT JOIN topics AS said ON said.topic = %(topic)s
"""
"""Index: batches_lineage_idx; messages_adopted_idx, and the rows that it has."""

TOTALS = """
    SELECT coalesce(said.n_messages, 0), coalesce(said.n_bytes, 0), dealt.archived, dealt.duplicates, dealt.bytes,
           (SELECT count(*) FROM messages WHERE topic = %(topic)s),
           (SELECT count(*) FROM duplicates WHERE topic = %(topic)s AND generation > 0), adopted.rows, adopted.bytes
    FROM (SELECT coalesce(sum(archived), 0)::bigint AS archived, coalesce(sum(duplicates), 0)::bigint AS duplicates,
                 coalesce(sum(bytes), 0)::bigint AS bytes
          FROM batches WHERE topic = %(topic)s) AS dealt
         CROSS JOIN (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM messages
                     WHERE topic = %(topic)s AND digest IS NULL AND generation IS NULL) AS adopted
         LEFT JOIN topics AS said ON said.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx and duplicates_pkey, which are counted without a look at their tables; batches_lineage_idx;
messages_adopted_idx, and the rows that it has."""

MISCOUNTED_SUMMARY = """
    SELECT coalesce(said.n_messages, 0), found.rows, coalesce(said.n_bytes, 0), found.bytes
    FROM (SELECT count(*) AS rows, coalesce(sum(size), 0)::bigint AS bytes FROM messages WHERE topic = %(topic)s) AS found
    LEFT JOIN topics AS said ON said.topic = %(topic)s
"""
"""Index: messages_topic_timestamp_idx."""

UNLEDGERED = f"""
    SELECT log.topic, log.generation, log.partition, min(least.first), max(greatest.last) + 1
    FROM ({LOGS}) AS log, LATERAL (
        SELECT '{{(,)}}'::int8multirange - coalesce(range_agg(b.offsets), '{{}}') AS offsets FROM batches AS b
        WHERE b.topic = log.topic AND b.generation = log.generation AND b.partition = log.partition
    ) AS uncovered, LATERAL (
        SELECT coalesce(lower(gap), -9223372036854775808) AS start, coalesce(upper(gap), 9223372036854775807) AS stop
        FROM unnest(uncovered.offsets) AS gap
    ) AS gaps, LATERAL (
        SELECT m."offset" AS first FROM messages AS m
        WHERE {of_log("m", "log")} AND m."offset" >= gaps.start AND m."offset" < gaps.stop
        ORDER BY m."offset" LIMIT 1
    ) AS least, LATERAL (
        SELECT m."offset" AS last FROM messages AS m
        WHERE {of_log("m", "log")} AND m."offset" >= gaps.start AND m."offset" < gaps.stop
        ORDER BY m."offset" DESC LIMIT 1
    ) AS greatest
    GROUP BY log.topic, log.generation, log.partition ORDER BY log.generation, log.partition
"""
"""Index: batches_lineage_idx; messages_place_idx, a step in it for each hole of the ledger and for what is beyond its end."""

CHANGED_LOGS = """
    SELECT DISTINCT topic, generation, partition FROM batches
    WHERE created_at < %(before)s AND (%(since)s::timestamptz IS NULL OR created_at >= %(since)s)
"""
"""Index: batches_created_idx, where ``since`` is given."""

PERIOD = f"""
    CASE WHEN created_at >= date_bin('10 minutes', %(now)s::timestamptz - interval '1 hour', {PERIOD_ORIGIN})
              THEN date_bin('10 minutes', created_at, {PERIOD_ORIGIN})
         WHEN created_at >= date_bin('2 hours', %(now)s::timestamptz - interval '24 hours', {PERIOD_ORIGIN})
              THEN date_bin('2 hours', created_at, {PERIOD_ORIGIN})
         WHEN created_at >= date_bin('1 day', %(now)s::timestamptz - interval '7 days', {PERIOD_ORIGIN})
              THEN date_bin('1 day', created_at, {PERIOD_ORIGIN})
    END
"""
"""As ``catalog.ledger.period`` has it."""

_LAG = """coalesce(lag_ms, CASE WHEN last_timestamp > 0
              THEN greatest(0, round(extract(epoch FROM created_at) * 1000)::bigint - last_timestamp) END)"""
"""As ``LedgerEntry.longest_lag_ms`` has it."""

_MERGE = f"""
    WITH seen AS (
        SELECT id, lag(upper(offsets)) OVER same = lower(offsets) OR lead(lower(offsets)) OVER same = upper(offsets) AS touches
        FROM batches WHERE {IN_LOG} AND created_at < %(before)s
        WINDOW same AS (PARTITION BY outcome, reason, lower(offsets) / {BLOCK}, {{kind}} ORDER BY offsets)
    ), locked AS MATERIALIZED (
        SELECT *, lower(offsets) / {BLOCK} AS block, {_LAG} AS lag, {{kind}} AS kind FROM batches
        WHERE id IN (SELECT id FROM seen WHERE touches)
        ORDER BY offsets FOR UPDATE {{waiting}}
    ), marked AS (
        SELECT *, lower(offsets) IS DISTINCT FROM lag(upper(offsets)) OVER same AS starts FROM locked
        WINDOW same AS (PARTITION BY outcome, reason, block, kind ORDER BY offsets)
    ), numbered AS (
        SELECT *, count(*) FILTER (WHERE starts) OVER (PARTITION BY outcome, reason, block, kind ORDER BY offsets) AS run
        FROM marked
    ), merged AS (
        SELECT topic, generation, partition, int8range(min(lower(offsets)), max(upper(offsets))) AS offsets,
               outcome, reason, sum(archived) AS archived, sum(duplicates) AS duplicates, sum(absent) AS absent,
               sum(bytes) AS bytes, min(first_timestamp) AS first_timestamp, max(last_timestamp) AS last_timestamp,
               CASE WHEN min(run_id) = max(run_id) THEN min(run_id) ELSE '' END AS run_id,
               max(created_at) AS created_at, max(lag) AS lag_ms, array_agg(id) AS ids
        FROM numbered GROUP BY topic, generation, partition, outcome, reason, block, kind, run HAVING count(*) > 1
    ), gone AS (
        DELETE FROM batches WHERE id IN (SELECT unnest(ids) FROM merged) RETURNING id
    ), added AS (
        INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
                             bytes, first_timestamp, last_timestamp, run_id, created_at, lag_ms)
        SELECT topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent,
               bytes, first_timestamp, last_timestamp, run_id, created_at, lag_ms
        FROM merged WHERE (SELECT count(*) FROM gone) > 0
        RETURNING id
    )
    SELECT (SELECT count(*) FROM gone) - (SELECT count(*) FROM added)
"""
"""Index: batches_lineage_idx, batches_pkey. Of rows that touch, no other can stand between: the exclusion constraint forbids it.
Only what is to be merged is locked, for that writes to each row. Without FOR UPDATE, numbers that somebody changes meanwhile would be added up as they were before. The count over ``gone`` makes
the deletes come first; the exclusion constraint then sees them as gone. A merge has no hole, so no slice that anybody may
still commit overlaps it."""

MERGE = _MERGE.format(kind="0", waiting="")
TIDY = _MERGE.format(kind=PERIOD, waiting="SKIP LOCKED")
"""Rows that somebody else is at work on are left for the next time."""

MESSAGE_DAYS = """
    SELECT topic, to_timestamp((timestamp / 86400000) * 86400)::date AS day, count(*), sum(size)::bigint FROM messages
    WHERE timestamp >= %(since_ms)s AND timestamp < %(until_ms)s
          AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, day ORDER BY topic COLLATE "C", day
"""
"""Index: messages_timestamp_id_idx, or messages_topic_timestamp_idx for some topics."""

LEDGER_DAYS = f"""
    SELECT topic, created_at::date AS day, sum(duplicates)::bigint,
           coalesce(sum(upper(offsets) - lower(offsets)) FILTER (WHERE outcome = 'lost'), 0)::bigint,
           (max({_LAG}) / 1000.0)::float8
    FROM batches
    WHERE created_at >= %(since)s AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, day ORDER BY topic COLLATE "C", day
"""
"""Index: batches_created_idx."""


class PostgresLedger(Session):
    """The part of a catalog in Postgres that says what became of each offset."""

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        found = self._fetch(COVERAGE, {"topics": listed(topics)})
        return {at: OffsetSet(tuple(OffsetRange(*row) for row in rows)) for at, rows in by_log(sorted(found))}

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        found = self._fetch(LEDGER, {"topics": listed(topics)})
        return [LedgerEntry(Slice(*row[:5]), Outcome(row[5]), *row[6:]) for row in found]

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        statement = SUMMARIES if since is None else SUMMARIES_SINCE
        return self._fetch_as(TopicSummary, statement, {"topics": listed(topics), "since": since})

    def miscounts(self, topic: str, *, every: int = 1, turn: int = 0) -> Sequence[Miscount]:
        if every > 1 and self._totals_agree(topic):
            values = {"topic": topic, "every": every, "turn": turn % every}
            if not self._fetch(MISCOUNTED_BATCHES, values) and not self.unledgered(topic):
                return []
        found: list[Miscount] = []
        for row in self._fetch(MISCOUNTED_BATCHES, {"topic": topic, "every": 1, "turn": 0}):
            where = Slice(topic, *row[:4])
            found.append(Miscount(topic, where, "archived", *row[4:6]))
            found.append(Miscount(topic, where, "duplicates", *row[6:8]))
        wrong = [miscount for miscount in found if miscount.said != miscount.found]
        return wrong + self._miscounted_summary(topic)

    def miscounts_in(self, where: Slice) -> Sequence[Miscount]:
        found: list[Miscount] = []
        for row in self._fetch(MISCOUNTED_IN, asdict(where)):
            here = Slice(where.topic, *row[:4])
            found.append(Miscount(where.topic, here, "archived", *row[4:6]))
            found.append(Miscount(where.topic, here, "duplicates", *row[6:8]))
        return [miscount for miscount in found if miscount.said != miscount.found]

    def summary_miscounts(self, topic: str) -> Sequence[Miscount]:
        ((messages, size_bytes, *summed_up),) = self._fetch(SUMMED_UP, {"topic": topic})
        if [messages, size_bytes] == summed_up and not self.unledgered(topic):
            return []
        return self._miscounted_summary(topic)

    def _miscounted_summary(self, topic: str) -> list[Miscount]:
        ((messages, rows, size_bytes, rows_bytes),) = self._fetch(MISCOUNTED_SUMMARY, {"topic": topic})
        counts = [
            Miscount(topic, None, "messages", messages, rows),
            Miscount(topic, None, "bytes", size_bytes, rows_bytes),
        ]
        return [miscount for miscount in counts if miscount.said != miscount.found]

    def _totals_agree(self, topic: str) -> bool:
        """Whether rows, ledger and summary are as many, and ledger and summary tell the same bytes."""
        ((messages, size_bytes, *dealt, rows, copies, adopted, adopted_bytes),) = self._fetch(
            TOTALS, {"topic": topic}
        )
        archived, duplicates, dealt_bytes = dealt
        counts = (archived + adopted, rows, duplicates, dealt_bytes + adopted_bytes)
        return counts == (rows, messages, copies, size_bytes)

    def unledgered(self, topic: str) -> Sequence[Slice]:
        return self._fetch_as(Slice, UNLEDGERED, {"topic": topic})

    def merge_ledger(self, before: datetime.datetime, since: datetime.datetime | None = None) -> int:
        """One transaction a log; no commit waits for more than the merge of its own log.

        Running it again, or twice at once, is harmless. ``messages.batch`` and ``duplicates.batch`` keep the number of
        the batch as it was committed: the ledger row of a message is found by its offset.
        """
        logs = self._fetch_as(PartitionLog, CHANGED_LOGS, {"before": before, "since": since})
        return sum(self._merge(at, before) for at in logs)

    @transaction
    def _merge(self, connection: psycopg.Connection, at: PartitionLog, before: datetime.datetime) -> int:
        connection.execute(REFERRING)
        return int(only(connection.execute(MERGE, {**at._asdict(), "before": before}).fetchone())[0])

    def tidy(self, at: PartitionLog, now: datetime.datetime) -> None:
        """Merge rows of a log that are older than two minutes, by periods; what others are at work on stays as it is.

        A commit calls this when it is done: whatever fails here is told in the log, and is no failure of the commit.
        """
        values = {**at._asdict(), "before": now - YOUNG, "now": now}

        def work(connection: psycopg.Connection) -> None:
            connection.execute(f"{REFERRING} NOWAIT")
            connection.execute(TIDY, values)

        try:
            self._transact(work)
        except (ForbiddenError, UnavailableError) as error:
            log.debug("%s is tidied another time: %s", at, error)
        except (HopArchiveError, psycopg.Error) as error:
            log.warning("The ledger rows of %s stay as they are, more than need be: %s", at, said(error))

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        bounds = {"since_ms": int(since.timestamp() * 1000), "until_ms": int(until.timestamp() * 1000)}
        return self._fetch_as(MessageDay, MESSAGE_DAYS, {**bounds, "topics": listed(topics)})

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        return self._fetch_as(LedgerDay, LEDGER_DAYS, {"since": since, "topics": listed(topics)})
