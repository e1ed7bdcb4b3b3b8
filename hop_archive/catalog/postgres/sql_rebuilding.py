"""What a catalog is rebuilt by: statements that add what is missing, and leave what is there."""

from __future__ import annotations

from hop_archive.catalog.postgres.sql import MESSAGE_COLUMNS

_ROW = ", ".join(MESSAGE_COLUMNS)
_STAGED_ROW = ", ".join(f"s.{column}" for column in MESSAGE_COLUMNS)
_LINEAGE = "topic = %(topic)s AND generation = %(generation)s AND partition = %(partition)s"
_SLICE = f"{_LINEAGE} AND offsets && int8range(%(start)s, %(stop)s)"

STAGE = f"CREATE TEMPORARY TABLE staged ON COMMIT DROP AS SELECT {_ROW} FROM messages WITH NO DATA"  # noqa: S608
COPY_STAGED = f"COPY staged ({_ROW}) FROM STDIN (FORMAT BINARY)"
"""Index: none; a table of the transaction's own."""

STILL_LOST = f"""
    WITH gone AS (
        DELETE FROM batches
        WHERE {_SLICE} AND (outcome = 'lost' OR outcome = 'skipped' AND reason = %(untold)s) RETURNING *
    ), kept AS (
        SELECT gone.*, unnest(int8multirange(offsets) - int8multirange(int8range(%(start)s, %(stop)s))) AS part FROM gone
    )
    SELECT topic, generation, partition, lower(part), upper(part), outcome, reason, run_id, created_at FROM kept
"""  # noqa: S608 (put together from constants)
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
        SELECT coalesce(range_agg(offsets), '{{}}') FROM batches WHERE {_SLICE})) AS part
    ON CONFLICT ON CONSTRAINT batches_slice_excl DO NOTHING
    RETURNING id, upper(offsets) - lower(offsets)
"""  # noqa: S608 (likewise)
"""Index: batches_slice_excl. All of it is called absent until its rows are there and ``COUNT_COVERED`` counts them."""

ADD_STAGED = f"""
    INSERT INTO messages ({_ROW}, batch)
    SELECT {_STAGED_ROW}, b.id
    FROM staged AS s JOIN batches AS b
        ON b.topic = s.topic AND b.generation = s.generation AND b.partition = s.partition
        AND b.offsets @> s."offset" AND b.outcome = 'archived'
    WHERE NOT EXISTS (
        SELECT FROM duplicates AS d WHERE d.topic = s.topic AND d.generation = s.generation
            AND d.partition = s.partition AND d."offset" = s."offset")
    ORDER BY s."offset"
    ON CONFLICT DO NOTHING
    RETURNING timestamp, size
"""  # noqa: S608 (likewise)
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

MISCOUNTED = """
    SELECT id FROM batches AS b
    WHERE topic = %s AND outcome = 'archived' AND (archived, duplicates) IS DISTINCT FROM (
        (SELECT count(*) FROM messages AS m
         WHERE m.topic = b.topic AND m.generation = b.generation AND m.partition = b.partition
            AND m."offset" >= lower(b.offsets) AND m."offset" < upper(b.offsets)),
        (SELECT count(*) FROM duplicates AS d
         WHERE d.topic = b.topic AND d.generation = b.generation AND d.partition = b.partition
            AND d."offset" >= lower(b.offsets) AND d."offset" < upper(b.offsets)))
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

ADOPT_STAGED = f"INSERT INTO messages ({_ROW}) SELECT {_ROW} FROM staged ON CONFLICT DO NOTHING"  # noqa: S608
"""Index: messages_uuid_idx. The trigger on rows without a digest counts them in the summary."""

CLAIM_GENERATION = """
    UPDATE generations SET cluster_id = %(cluster_id)s, topic_id = %(topic_id)s, reason = %(reason)s
    WHERE topic = %(topic)s AND generation = %(generation)s AND cluster_id = %(unknown)s AND NOT EXISTS (
        SELECT FROM generations AS later WHERE later.topic = %(topic)s AND later.generation > %(generation)s)
"""
"""Index: generations_pkey."""

TELL_AGAIN = """
    DELETE FROM batches
    WHERE topic = %(topic)s AND generation = %(generation)s AND outcome = 'skipped' AND reason = %(untold)s
"""
"""Index: batches_lineage_idx."""
