"""The SQL of mending, each statement with the index it relies on; see ``sql``."""

from __future__ import annotations

from hop_archive.catalog.postgres.sql import MESSAGE_COLUMNS

_SET = ", ".join(f"{column} = %s" for column in MESSAGE_COLUMNS)
_IS = " AND ".join(f"{column} IS NOT DISTINCT FROM %s::{kind}" for column, kind in MESSAGE_COLUMNS.items())

CORRECT = f"UPDATE messages SET {_SET} WHERE uuid = %s AND {_IS}"  # noqa: S608 (put together from constants)
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

STANDING = """
    SELECT count(*), coalesce(sum(size), 0)::bigint, min(timestamp), max(timestamp),
           (SELECT count(*) FROM duplicates
            WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
                  AND "offset" >= %(start)s AND "offset" < %(stop)s)
    FROM messages
    WHERE topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s
          AND "offset" >= %(start)s AND "offset" < %(stop)s
"""
"""Index: messages_offset_idx, duplicates_pkey."""

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
