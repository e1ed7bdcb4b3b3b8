"""The SQL of reports, each statement with the index it relies on; see ``sql``."""

from __future__ import annotations

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
