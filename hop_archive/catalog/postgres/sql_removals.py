"""The statements by which messages are given up, each with the index it relies on; see ``sql`` for the indexes."""

from __future__ import annotations

_AT = "topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s"
_WITHIN = f'{_AT} AND "offset" >= %(start)s AND "offset" < %(stop)s'

_NOTE_GONE = """
    pending AS (
        INSERT INTO condemned (bucket, key, recorded_bucket, topic, command, reason, run_id)
        SELECT DISTINCT place.bucket, gone.key, gone.bucket, gone.topic, %(command)s, %(reason)s, %(run_id)s
        FROM gone, LATERAL unnest(ARRAY[gone.bucket] || %(backups)s::text[]) AS place (bucket)
        ON CONFLICT (bucket, key) DO UPDATE SET condemned_at = clock_timestamp()
    ), forgotten AS (
        DELETE FROM duplicates USING gone
        WHERE duplicates.generation = 0 AND duplicates.topic = gone.topic AND duplicates.uuid = gone.uuid
    )
"""
"""Index: condemned_pkey, duplicates_uuid_idx. Noted again, an object has another time: whoever deletes objects now
strikes out those of the time that they saw (``STRIKE_OUT_DELETED``). What adopted copies were copies of is forgotten with it."""

# --- how much

EXTENT = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(DISTINCT bucket), '{{}}')
    FROM messages WHERE {_WITHIN}
"""  # noqa: S608 (put together from constants)
"""Index: messages_offset_idx."""

_ADOPTED = """
    topic = %(topic)s AND digest IS NULL AND generation IS NULL
    AND (%(before_ms)s::bigint IS NULL OR (timestamp >= 0 AND timestamp < %(before_ms)s))
"""

ADOPTED_EXTENT = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(DISTINCT bucket), '{{}}')
    FROM messages WHERE {_ADOPTED}
"""  # noqa: S608 (likewise)
"""Index: messages_adopted_idx."""

SPAN = f"""
    SELECT min("offset"), max("offset") + 1 FROM messages WHERE {_AT} AND "offset" IS NOT NULL
"""  # noqa: S608 (likewise)
"""Index: messages_offset_idx, both ends of it."""

KEEPER = f"""
    SELECT min("offset") FROM (
        (SELECT "offset" FROM messages WHERE {_WITHIN} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
        UNION ALL
        (SELECT "offset" FROM duplicates WHERE {_WITHIN} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
        UNION ALL
        (SELECT min(m."offset") FROM duplicates AS d JOIN messages AS m ON m.uuid = d.uuid
         WHERE d.topic = %(topic)s AND d.generation > 0 AND (d.timestamp >= %(since_ms)s OR d.timestamp < 0)
           AND m.topic = %(topic)s AND m.generation = %(generation)s AND m.partition = %(partition)s
           AND m."offset" >= %(start)s AND m."offset" < %(stop)s)
    ) AS young
"""  # noqa: S608 (likewise)
"""Index: messages_offset_idx and duplicates_pkey, in their order up to the first that is not old; messages_uuid_idx for
each duplicate that is not."""

# --- the ledger

LOCK_BATCHES = f"""
    SELECT id, lower(offsets), upper(offsets), archived, duplicates, absent, bytes, reason, first_timestamp,
           last_timestamp, run_id, created_at
    FROM batches WHERE {_AT} AND offsets && %(offsets)s::int8multirange AND outcome = 'archived'
    ORDER BY offsets FOR UPDATE
"""  # noqa: S608 (likewise)
"""Index: batches_slice_excl. What was merged or split while this waited is not among the rows: ``BATCH_IDS`` tells."""

BATCH_IDS = f"""
    SELECT id FROM batches WHERE {_AT} AND offsets && %(offsets)s::int8multirange AND outcome = 'archived'
    ORDER BY offsets
"""  # noqa: S608 (likewise)
"""Index: batches_slice_excl."""

DELETE_BATCH = "DELETE FROM batches WHERE id = %s"
"""Index: batches_pkey."""

ADD_PART = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent, bytes,
                         first_timestamp, last_timestamp, run_id, created_at)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))
"""
"""Index: each of batches. The row that it is a part of was deleted in the same transaction."""

COUNT_PART = f"""
    SELECT count(*), (SELECT count(*) FROM duplicates WHERE {_WITHIN}), coalesce(sum(size), 0)::bigint
    FROM messages WHERE {_WITHIN}
"""  # noqa: S608 (likewise)
"""Index: messages_offset_idx, duplicates_pkey."""

CHANGE_BATCH = """
    UPDATE batches SET archived = archived - %(copies)s, duplicates = duplicates + %(copies)s, bytes = bytes + %(bytes)s
    WHERE id = %(id)s AND archived >= %(copies)s
"""
"""Index: batches_pkey."""

# --- taking away

TAKE = f"""
    WITH gone AS (
        DELETE FROM messages WHERE {_WITHIN} RETURNING topic, uuid, bucket, key, size
    ), copies AS (
        DELETE FROM duplicates WHERE {_WITHIN} RETURNING uuid
    ), {_NOTE_GONE}
    SELECT count(*), (SELECT count(*) FROM copies), coalesce(sum(size), 0)::bigint FROM gone
"""  # noqa: S608 (likewise)
"""Index: messages_offset_idx, duplicates_pkey."""

TAKE_ADOPTED = f"""
    WITH gone AS (
        DELETE FROM messages WHERE id IN (
            SELECT id FROM messages WHERE {_ADOPTED} ORDER BY timestamp, id LIMIT %(most)s)
        RETURNING topic, uuid, bucket, key, size
    ), {_NOTE_GONE}
    SELECT count(*), 0, coalesce(sum(size), 0)::bigint FROM gone
"""  # noqa: S608 (likewise)
"""Index: messages_adopted_idx, in its order; messages_pkey."""

TAKE_UUIDS = f"""
    WITH gone AS (
        DELETE FROM messages WHERE uuid = ANY(%(uuids)s) AND (generation IS NULL OR %(placed)s)
        RETURNING topic, uuid, bucket, key, size
    ), {_NOTE_GONE}
    SELECT count(*), 0, coalesce(sum(size), 0)::bigint FROM gone
"""  # noqa: S608 (likewise)
"""Index: messages_uuid_idx."""

PLACES = """
    SELECT topic, generation, partition, "offset" FROM messages WHERE uuid = ANY(%(uuids)s) AND generation IS NOT NULL
    UNION
    SELECT topic, generation, partition, "offset" FROM duplicates WHERE uuid = ANY(%(uuids)s) AND generation > 0
    ORDER BY 1, 2, 3, 4
"""
"""Where messages stand, and where copies of them did. Index: messages_uuid_idx, duplicates_uuid_idx."""

# --- copies

COPIES = """
    SELECT encode(digest, 'hex'), uuid, timestamp, tied > 1 FROM (
        SELECT digest, uuid, timestamp, id, count(*) OVER (PARTITION BY digest) AS alike,
               count(*) OVER (PARTITION BY digest, timestamp) AS tied
        FROM messages WHERE topic = %s AND digest IS NOT NULL
    ) AS counted
    WHERE alike > 1 ORDER BY digest, id
"""
"""Index: messages_topic_timestamp_idx, for the topic. Sorts the topic's digests: an index of them would cost each insert."""

ADOPTED_COPIES = """
    SELECT timestamp || '/' || message_crc32, uuid, timestamp, true
    FROM messages AS m
    WHERE topic = %(topic)s AND (timestamp, message_crc32) IN (
        SELECT a.timestamp, a.message_crc32 FROM messages AS a
        WHERE a.topic = %(topic)s AND a.digest IS NULL AND EXISTS (
            SELECT FROM messages AS b
            WHERE (b.topic, b.timestamp, b.message_crc32) = (a.topic, a.timestamp, a.message_crc32)
              AND a.id <> b.id AND NOT (a.is_client_uuid AND b.is_client_uuid)))
    ORDER BY timestamp, message_crc32, id
"""
"""Index: messages_adopted_idx for one of each pair, messages_topic_timestamp_idx for the other."""

TAKING_AWAY = "LOCK TABLE duplicates IN SHARE ROW EXCLUSIVE MODE"
"""See ``sql.REFERRING``: no duplicate is recorded of what is being taken away."""

LOCK_MESSAGES = """
    SELECT uuid, topic, generation, partition, "offset", timestamp, size, id FROM messages
    WHERE uuid = ANY(%s) ORDER BY id FOR UPDATE
"""
"""Index: messages_uuid_idx."""

ADD_DUPLICATE = """
    INSERT INTO duplicates (topic, generation, partition, "offset", timestamp, uuid, reason, batch)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
"""Index: duplicates_pkey."""

REFER = "UPDATE duplicates SET uuid = %(kept)s WHERE topic = %(topic)s AND uuid = %(copy)s"
"""Index: duplicates_uuid_idx."""

# --- other documents

REPLACE = """
    WITH told AS (
        SELECT * FROM unnest(%(uuids)s::uuid[], %(keys)s::text[], %(positions)s::bigint[], %(sizes)s::int[],
                             %(crc32s)s::bigint[], %(tombstones)s::boolean[])
            AS told (uuid, key, position, size, crc32, is_tombstone)
    ), old AS (
        SELECT uuid, size FROM messages WHERE uuid = ANY(%(uuids)s) AND bucket = %(bucket)s AND key = %(key)s
        ORDER BY id FOR UPDATE
    )
    UPDATE messages AS m
    SET key = told.key, position = told.position, size = told.size, crc32 = told.crc32,
        title = CASE WHEN is_tombstone THEN '' ELSE m.title END,
        sender = CASE WHEN is_tombstone THEN '' ELSE m.sender END,
        file_name = CASE WHEN is_tombstone THEN '' ELSE m.file_name END,
        originator = CASE WHEN is_tombstone THEN '' ELSE m.originator END
    FROM told JOIN old USING (uuid) WHERE m.uuid = told.uuid
    RETURNING m.uuid, m.topic, m.generation, m.partition, m."offset", m.size - old.size
"""
"""Index: messages_uuid_idx."""

CHANGE_TOPIC_BYTES = "UPDATE topics SET n_bytes = n_bytes + %s WHERE topic = %s"
"""Index: unique_topic."""

# --- marks

RETRACT = "UPDATE messages SET retracted = %s WHERE uuid = ANY(%s) RETURNING uuid"
"""Index: messages_uuid_idx."""

SUPPRESS = """
    INSERT INTO suppressions (uuid, topic, reason)
    SELECT uuid, topic, %s FROM unnest(%s::uuid[], %s::text[]) AS wanted (uuid, topic)
    ON CONFLICT (uuid) DO NOTHING
"""
"""Index: suppressions_pkey."""

SUPPRESSED = "SELECT uuid FROM suppressions WHERE uuid = ANY(%s)"
"""Index: suppressions_pkey."""

SUPPRESSIONS = """
    SELECT uuid, topic, reason, suppressed_at FROM suppressions
    WHERE %(uuids)s::uuid[] IS NULL OR uuid = ANY(%(uuids)s) ORDER BY suppressed_at, uuid
"""
"""Index: suppressions_pkey, for some."""

# --- what is to be deleted

NOTE_PENDING = """
    INSERT INTO condemned (bucket, key, recorded_bucket, topic, command, reason, run_id)
    SELECT DISTINCT place.bucket, gone.key, gone.bucket, %(topic)s, %(command)s, %(reason)s, %(run_id)s
    FROM unnest(%(buckets)s::text[], %(keys)s::text[]) AS gone (bucket, key),
         LATERAL unnest(ARRAY[gone.bucket] || %(backups)s::text[]) AS place (bucket)
    ON CONFLICT (bucket, key) DO UPDATE SET condemned_at = clock_timestamp()
"""
"""Index: condemned_pkey."""

PENDING = """
    SELECT bucket, key, recorded_bucket, topic, condemned_at FROM condemned
    WHERE command = %s AND bucket = %s ORDER BY key LIMIT %s FOR UPDATE
"""
"""Index: condemned_pkey, of a table that is all but empty. Whoever would strike out one of them waits."""

PENDING_KEYS = "SELECT key FROM condemned WHERE bucket = %s AND key = ANY(%s)"
"""Index: condemned_pkey."""

CLAIM = "UPDATE condemned SET claimed = true WHERE bucket = %s AND key = ANY(%s)"
"""Index: condemned_pkey."""

STRIKE_OUT = """
    DELETE FROM condemned WHERE recorded_bucket = %s AND key = %s AND bucket = ANY(%s) AND NOT claimed RETURNING bucket
"""
"""Index: condemned_pkey."""

NAMED_ALONE = """
    SELECT DISTINCT key FROM messages
    WHERE position IS NULL AND topic = ANY(%s) AND key COLLATE "C" = ANY(%s) AND bucket = ANY(%s)
"""
"""Index: messages_object_idx."""

IS_NAMED_SEGMENT = f"""
    SELECT EXISTS (SELECT FROM messages WHERE {_WITHIN} AND key = %(key)s AND bucket = %(bucket)s AND position IS NOT NULL)
"""  # noqa: S608 (likewise)
"""Index: messages_offset_idx: a segment's key says whose documents it holds."""

STRIKE_OUT_DELETED = """
    DELETE FROM condemned USING unnest(%s::text[], %s::text[], %s::timestamptz[]) AS over (bucket, key, at)
    WHERE condemned.bucket = over.bucket AND condemned.key = over.key AND condemned.condemned_at = over.at
"""
"""Index: condemned_pkey."""
