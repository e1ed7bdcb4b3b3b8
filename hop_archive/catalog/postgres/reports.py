"""Numbers for reports, in Postgres."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

from hop_archive.catalog.postgres.session import Session, listed
from hop_archive.catalog.records import LedgerDay, MessageDay

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


class PostgresReports(Session):
    """The part of a catalog in Postgres that counts by topic and day."""

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
