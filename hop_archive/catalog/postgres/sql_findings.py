"""The SQL of findings, each statement with the index it relies on; see ``sql``.

=============================== ============================================================================
``findings_open_idx``           unique, over what makes a finding the same, of open ones: ``NOTE``, ``OPEN``,
                                ``CLOSE_UNSEEN``, and that a finding is noted once
``findings_topic_idx``          (topic, kind): ``ACCEPTED_ONES``
``findings_pkey``               (id): ``FINDINGS``, ``RESOLVE``
=============================== ============================================================================
"""

from __future__ import annotations

_WANTED = """
    unnest(%(kinds)s::text[], %(topics)s::text[], %(generations)s::int[], %(partitions)s::int[], %(offsets)s::text[],
           %(uuids)s::uuid[], %(buckets)s::text[], %(keys)s::text[], %(details)s::text[])
    WITH ORDINALITY AS given (kind, topic, generation, partition, offsets, uuid, bucket, key, detail, number)
"""

ACCEPTED_ONES = f"""
    SELECT number FROM {_WANTED}
    WHERE (
        SELECT CASE WHEN given.offsets IS NULL THEN count(*) > 0
                    ELSE coalesce(range_agg(f.offsets) @> given.offsets::int8range, false) END
        FROM findings AS f
        WHERE f.topic = given.topic AND f.kind = given.kind AND f.resolution LIKE %(accepted)s
              AND f.uuid IS NOT DISTINCT FROM given.uuid AND coalesce(f.bucket, '') = given.bucket
              AND coalesce(f.key, '') = given.key
              AND (f.generation, f.partition) IS NOT DISTINCT FROM (given.generation, given.partition)
    )
"""  # noqa: S608 (put together from constants)
"""Index: findings_topic_idx. Ledger rows merge: what was accepted slice by slice is accepted as one, too."""

NOTE = f"""
    INSERT INTO findings (kind, topic, generation, partition, offsets, uuid, bucket, key, detail, first_seen, last_seen)
    SELECT kind, topic, generation, partition, offsets::int8range, uuid, bucket, key,
           jsonb_build_object('text', detail), %(at)s, %(at)s
    FROM {_WANTED} WHERE number <> ALL(%(left_out)s::bigint[]) ORDER BY number
    ON CONFLICT (kind, topic, coalesce(uuid::text, ''), coalesce(bucket, ''), coalesce(key, ''),
                 coalesce(generation, 0), coalesce(partition, 0), coalesce(offsets, 'empty'))
        WHERE resolved_at IS NULL AND kind <> 'uuid_collision'
    DO UPDATE SET last_seen = greatest(findings.last_seen, EXCLUDED.last_seen), detail = EXCLUDED.detail
"""  # noqa: S608 (put together from constants)
"""Index: findings_open_idx. Given in the order of that index, so that two who note the same wait in turn."""

FINDINGS = """
    SELECT id, kind, topic, generation, partition, lower(offsets), upper(offsets), uuid, coalesce(bucket, ''),
           coalesce(key, ''), coalesce(detail ->> 'text', detail::text), first_seen, last_seen, resolved_at, resolution
    FROM findings
    WHERE kind <> 'uuid_collision' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
          AND (%(kinds)s::text[] IS NULL OR kind = ANY(%(kinds)s)) AND (NOT %(open_only)s OR resolved_at IS NULL)
          AND id > %(after)s
    ORDER BY id LIMIT %(limit)s
"""
"""Index: findings_pkey, a page at a time: nothing is held open while findings are being mended."""

OPEN = """
    SELECT topic, kind, count(*), min(first_seen) FROM findings
    WHERE resolved_at IS NULL AND kind <> 'uuid_collision' AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
    GROUP BY topic, kind ORDER BY topic COLLATE "C", kind
"""
"""Index: findings_open_idx, which holds open ones only."""

RESOLVE = """
    UPDATE findings SET resolved_at = %(at)s, resolution = %(how)s
    WHERE id = ANY(%(numbers)s::bigint[]) AND resolved_at IS NULL AND kind <> 'uuid_collision'
"""
"""Index: findings_pkey."""

CLOSE_UNSEEN = """
    UPDATE findings SET resolved_at = %(at)s, resolution = %(how)s
    WHERE resolved_at IS NULL AND kind <> 'uuid_collision' AND kind = ANY(%(kinds)s::text[])
          AND (%(topics)s::text[] IS NULL OR topic = ANY(%(topics)s))
          AND (%(bucket)s = '' OR bucket = %(bucket)s) AND (%(not_bucket)s = '' OR bucket IS DISTINCT FROM %(not_bucket)s)
          AND coalesce(key, '') <> ALL(%(spared)s::text[]) AND last_seen < %(since)s
          AND (NOT %(of_no_message)s OR uuid IS NULL)
          AND (%(young_since)s::timestamptz IS NULL OR first_seen < %(young_since)s)
"""
"""Index: findings_open_idx, which holds open ones only."""
