"""Generations of topics, what was last seen of their logs, and snapshots of how a cluster was set up, in Postgres."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from itertools import groupby

import psycopg

from hop_archive.catalog.postgres.session import Session, by_log, columns_of, listed, transaction
from hop_archive.catalog.postgres.sql import of_log
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNTOLD, Generation, Snapshot, SnapshotKind, Standing
from hop_archive.catalog.refusals import refuse_odd
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.model.watermarks import Watermarks

GENERATIONS = """
    SELECT topic, generation, cluster_id, topic_id, detected_at, reason
    FROM generations WHERE %(topics)s::text[] IS NULL OR topic = ANY(%(topics)s) ORDER BY topic, generation
"""
"""Index: generations_pkey; of all topics, the whole table, which has a row for each generation of each."""

BEGIN_GENERATION = """
    INSERT INTO generations (topic, generation, cluster_id, topic_id, reason)
    VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (topic, generation) DO NOTHING
"""
"""Index: generations_pkey."""

GENERATION = """
    SELECT topic, generation, cluster_id, topic_id, detected_at, reason
    FROM generations WHERE topic = %s AND generation = %s
"""
"""Index: generations_pkey."""

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

OBSERVE = """
    INSERT INTO observed (topic, generation, partition, low, stable, high)
    SELECT * FROM unnest(%b::text[], %b::int[], %b::int[], %b::bigint[], %b::bigint[], %b::bigint[])
    ON CONFLICT (topic, generation, partition) DO UPDATE
    SET low = EXCLUDED.low, stable = EXCLUDED.stable, high = EXCLUDED.high, observed_at = now()
    WHERE (observed.low, observed.stable, observed.high) <> (EXCLUDED.low, EXCLUDED.stable, EXCLUDED.high)
"""
"""Index: observed_pkey. What did not change is not written again: 1,000 quiet topics cost no write."""

OBSERVED = """
    SELECT topic, generation, partition, low, stable, high, leader_epoch
    FROM observed WHERE topic = ANY(%s)
"""
"""Index: observed_pkey."""

HOLD_TO_PROVE = """
    SELECT FROM observed JOIN unnest(%b::text[], %b::int[], %b::int[]) AS wanted (topic, generation, partition)
         USING (topic, generation, partition)
    ORDER BY topic, generation, partition FOR UPDATE OF observed
"""
"""Index: observed_pkey. Waits for who commits (``PROVEN``). In order, so that two who prove wait for one another, and not
each for the other."""

NOTE_PROVEN = """
    UPDATE observed SET leader_epoch = proven.leader_epoch
    FROM unnest(%b::text[], %b::int[], %b::int[], %b::int[], %b::int[])
         AS proven (topic, generation, partition, leader_epoch, before)
    WHERE observed.topic = proven.topic AND observed.generation = proven.generation
          AND observed.partition = proven.partition AND observed.leader_epoch IS DISTINCT FROM proven.leader_epoch
          AND (%b OR observed.leader_epoch IS NOT DISTINCT FROM proven.before)
"""
"""Index: observed_pkey. After ``HOLD_TO_PROVE``."""

LEFT_BEHIND = """
    SELECT topic, generation, partition, lower(part), upper(part) FROM (
        SELECT topic, generation, partition,
               unnest(int8multirange(int8range(0, greatest(stable, upper(covered)))) - covered) AS part
        FROM observed JOIN generations USING (topic, generation), LATERAL (
            SELECT coalesce(range_agg(offsets), '{}'::int8multirange) AS covered FROM batches
            WHERE batches.topic = observed.topic AND batches.generation = observed.generation
                  AND batches.partition = observed.partition) AS dealt
        WHERE observed.topic = ANY(%s) AND cluster_id = %s
    ) AS parts ORDER BY topic, generation, partition, part
"""
"""Index: observed_pkey, generations_pkey, and batches_lineage_idx or batches_slice_excl."""

TAILS = f"""
    SELECT wanted.*, tail.* FROM unnest(%(topics)b::text[], %(generations)b::int[], %(partitions)b::int[])
        AS wanted (topic, generation, partition), LATERAL (
        (SELECT m."offset", m.timestamp, m.digest FROM messages AS m
         WHERE {of_log("m", "wanted")}
         ORDER BY m."offset" DESC LIMIT %(most)s)
        UNION ALL
        (SELECT d."offset", d.timestamp, kept.digest FROM (
            SELECT * FROM duplicates AS copy
            WHERE copy.topic = wanted.topic AND copy.generation = wanted.generation
                  AND copy.partition = wanted.partition
            ORDER BY copy."offset" DESC LIMIT %(most)s
         ) AS d LEFT JOIN messages AS kept ON kept.uuid = d.uuid)
        ORDER BY 1 DESC LIMIT %(most)s
    ) AS tail
    ORDER BY wanted.topic, wanted.generation, wanted.partition, tail."offset"
"""
"""Index: messages_place_idx, duplicates_pkey, messages_uuid_idx: a few steps from the end of each a log."""

KEEP_SNAPSHOTS = """
    INSERT INTO snapshots (cluster_id, kind, name, content, taken_at)
    SELECT %(cluster_id)s, kind, name, content::jsonb, taken_at
    FROM unnest(%(kinds)s::text[], %(names)s::text[], %(contents)s::text[], %(times)s::timestamptz[])
         AS taken (kind, name, content, taken_at)
    ORDER BY kind, name
    ON CONFLICT (cluster_id, kind, name) DO UPDATE
    SET content = EXCLUDED.content, taken_at = EXCLUDED.taken_at
    WHERE snapshots.taken_at <= EXCLUDED.taken_at
"""
"""Index: snapshots_pkey. In order, so that two who do it at once wait for one another, and never in a circle."""

SNAPSHOTS = """
    SELECT cluster_id, kind, name, content, taken_at FROM snapshots
    WHERE kind = %(kind)s
      AND (%(cluster_id)s::text IS NULL OR cluster_id = %(cluster_id)s)
      AND (%(names)s::text[] IS NULL OR name = ANY(%(names)s))
    ORDER BY cluster_id COLLATE "C", name COLLATE "C"
"""
"""Index: snapshots_pkey, for a cluster's. Of all clusters it reads the table, which has a row for each thing."""


class PostgresGenerations(Session):
    """The part of a catalog in Postgres that knows generations, watermarks, proofs and snapshots."""

    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        found = self._fetch_as(Generation, GENERATIONS, {"topics": listed(topics)})
        return {topic: [*some] for topic, some in groupby(found, key=lambda generation: generation.topic)}

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """In two transactions: a generation that is there stays."""
        self._execute(BEGIN_GENERATION, [topic, number, cluster_id, topic_id, reason])
        (begun,) = self._fetch_as(Generation, GENERATION, [topic, number])
        return begun

    @transaction
    def claim_generation(
        self,
        connection: psycopg.Connection,
        topic: str,
        number: int,
        cluster_id: str,
        topic_id: str | None,
        reason: str,
    ) -> bool:
        at = {"topic": topic, "generation": number}
        claimed = {"cluster_id": cluster_id, "topic_id": topic_id, "reason": reason}
        if not connection.execute(CLAIM_GENERATION, {**at, **claimed, "unknown": UNKNOWN_CLUSTER}).rowcount:
            return False
        connection.execute(TELL_AGAIN, {**at, "untold": UNTOLD})
        return True

    def observe(self, watermarks: Mapping[PartitionLog, Watermarks]) -> None:
        seen = [(*at, marks.low, marks.stable, marks.high) for at, marks in sorted(watermarks.items())]
        if seen:
            self._execute(OBSERVE, columns_of(seen))

    def observed(self, topics: Collection[str]) -> Mapping[PartitionLog, Watermarks]:
        found = self._fetch(OBSERVED, [list(topics)])
        return {PartitionLog(*row[:3]): Watermarks(*row[3:]) for row in found}

    def note_proven(
        self,
        epochs: Mapping[PartitionLog, int | None],
        instead_of: Mapping[PartitionLog, int | None] | None = None,
    ) -> None:
        if not epochs:
            return
        before = instead_of or dict.fromkeys(epochs)
        proven = [(*at, epoch, before[at]) for at, epoch in epochs.items()]
        columns = columns_of(proven)

        def note(connection: psycopg.Connection) -> None:
            """In two statements: the second sees what was committed while the first waited."""
            connection.execute(HOLD_TO_PROVE, columns[:3])
            connection.execute(NOTE_PROVEN, [*columns, instead_of is None])

        self._transact(note)

    def left_behind(self, topics: Collection[str], cluster_id: str) -> Mapping[PartitionLog, OffsetSet]:
        found = self._fetch(LEFT_BEHIND, [list(topics), cluster_id])
        return {at: OffsetSet.of(ranges) for at, ranges in by_log(found)}

    def tails(
        self, partition_logs: Collection[PartitionLog], most: int
    ) -> Mapping[PartitionLog, Sequence[Standing]]:
        if not partition_logs:
            return {}
        topics, generations, partitions = columns_of(partition_logs)
        values = {"topics": topics, "generations": generations, "partitions": partitions, "most": most}
        found = self._fetch(TAILS, values)
        return {at: [Standing(*row) for row in rows] for at, rows in by_log(found)}

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        refuse_odd(cluster_id, snapshots)
        values = {
            "cluster_id": cluster_id,
            "kinds": [snapshot.kind for snapshot in snapshots],
            "names": [snapshot.name for snapshot in snapshots],
            "contents": [json.dumps(snapshot.content) for snapshot in snapshots],
            "times": [snapshot.taken_at for snapshot in snapshots],
        }
        if snapshots:
            self._execute(KEEP_SNAPSHOTS, values)

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        values = {"kind": kind, "names": listed(names), "cluster_id": cluster_id}
        return self._fetch_as(Snapshot, SNAPSHOTS, values)
