"""The part of the catalog in Postgres that lets documents move into fewer objects."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict

import psycopg

from hop_archive.catalog.compaction import Compacted, ObjectShare
from hop_archive.catalog.postgres.removals import NOTE_PENDING, pending_values
from hop_archive.catalog.postgres.session import Session, listed, transaction
from hop_archive.catalog.postgres.sql import BY_INDEX, ROW_IN_SLICE
from hop_archive.catalog.records import Correction, Removal
from hop_archive.catalog.refusals import about_to_be_deleted, moved_meanwhile
from hop_archive.model.slices import PartitionLog, Slice

OBJECTS_IN = f"""
    SELECT key, bucket, count(*), sum(size)::bigint, coalesce(max(frame + frame_size), sum(size))::bigint,
           min("offset"), max("offset"), max(timestamp)
    FROM (SELECT key, bucket, size, frame, frame_size, "offset", timestamp FROM messages WHERE {ROW_IN_SLICE}
          ORDER BY "offset" LIMIT %(most)s) AS first
    GROUP BY bucket, key ORDER BY min("offset")
"""
"""Index: messages_place_idx, in its order."""

MOVE = """
    WITH moved AS (
        SELECT * FROM unnest(%(uuids)s::uuid[], %(old_keys)s::text[], %(old_positions)s::bigint[], %(old_frames)s::bigint[],
                             %(sizes)s::int[], %(crc32s)s::bigint[], %(positions)s::bigint[], %(frames)s::bigint[],
                             %(frame_sizes)s::int[])
            AS moved (uuid, old_key, old_position, old_frame, size, crc32, position, frame, frame_size)
    ), locked AS (
        SELECT uuid FROM messages WHERE uuid = ANY(%(uuids)s) ORDER BY id FOR UPDATE
    )
    UPDATE messages AS m
    SET key = %(key)s, position = moved.position, frame = moved.frame, frame_size = moved.frame_size
    FROM moved JOIN locked USING (uuid)
    WHERE m.uuid = moved.uuid AND m.bucket = %(bucket)s AND m.key = moved.old_key
          AND m.position IS NOT DISTINCT FROM moved.old_position AND m.frame IS NOT DISTINCT FROM moved.old_frame
          AND (m.size, m.crc32) = (moved.size, moved.crc32)
          AND (m.topic, m.generation, m.partition) = (%(topic)s, %(generation)s, %(partition)s)
"""
"""Index: messages_uuid_idx. No ledger row and no duplicate is locked: commits go on meanwhile."""

STRIKE_OUT_MADE = """
    DELETE FROM condemned
    WHERE recorded_bucket = %s AND key = %s AND bucket = ANY(%s) AND reason = %s AND NOT claimed RETURNING bucket
"""
"""Index: condemned_pkey."""

COUNT_MOVE = """
    INSERT INTO compacted (topic, generation, partition, moves) VALUES (%s, %s, %s, 1)
    ON CONFLICT (topic, generation, partition) DO UPDATE SET moves = compacted.moves + 1
"""
"""Index: compacted_pkey."""

COMPACTED = """
    SELECT topic, generation, partition, done_to, looked_to, moves FROM compacted
    WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s)
"""
"""Index: compacted_pkey, for some."""

NOTE_COMPACTED = """
    INSERT INTO compacted (topic, generation, partition, done_to, looked_to) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (topic, generation, partition) DO UPDATE
    SET done_to = greatest(compacted.done_to, EXCLUDED.done_to), looked_to = greatest(compacted.looked_to, EXCLUDED.looked_to)
"""
"""Index: compacted_pkey."""


class PostgresCompaction(Session):
    """The part of a catalog in Postgres for compaction."""

    @transaction
    def objects_in(self, connection: psycopg.Connection, place: Slice, most: int) -> Sequence[ObjectShare]:
        connection.execute(BY_INDEX)
        found = connection.execute(OBJECTS_IN, {**asdict(place), "most": most}).fetchall()
        return [ObjectShare(*row) for row in found]

    @transaction
    def move_documents(
        self, connection: psycopg.Connection, moves: Sequence[Correction], removal: Removal
    ) -> None:
        first = moves[0]
        at = first.was.slice
        assert at is not None
        values = {
            **at.partition_log._asdict(),
            "bucket": first.was.bucket,
            "key": first.now.object_key,
            "uuids": [was.uuid for was, _ in moves],
            "old_keys": [was.object_key for was, _ in moves],
            "old_positions": [was.position for was, _ in moves],
            "old_frames": [was.frame for was, _ in moves],
            "sizes": [was.size_bytes for was, _ in moves],
            "crc32s": [was.crc32 for was, _ in moves],
            "positions": [now.position for _, now in moves],
            "frames": [now.frame for _, now in moves],
            "frame_sizes": [now.frame_size for _, now in moves],
        }
        if connection.execute(MOVE, values).rowcount != len(moves):
            raise moved_meanwhile(self._server, at.topic)
        buckets = {first.was.bucket, *removal.backups}
        made = [first.was.bucket, first.now.object_key, list(buckets), removal.reason]
        struck = connection.execute(STRIKE_OUT_MADE, made)
        if struck.rowcount != len(buckets):
            raise about_to_be_deleted(first.now.object_key, first.was.bucket)
        connection.execute(COUNT_MOVE, at.partition_log)
        old = {(was.bucket, was.object_key) for was, _ in moves}
        connection.execute(NOTE_PENDING, pending_values(sorted(old), at.topic, removal))

    def compacted(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, Compacted]:
        found = self._fetch(COMPACTED, {"topics": listed(topics)})
        return {PartitionLog(*row[:3]): Compacted(PartitionLog(*row[:3]), *row[3:]) for row in found}

    def note_compacted(self, at: PartitionLog, *, done_to: int, looked_to: int) -> None:
        self._execute(NOTE_COMPACTED, [*at, done_to, looked_to])
