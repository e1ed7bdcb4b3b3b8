"""The part of the catalog in Postgres that gives messages up."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from typing import Any, NamedTuple

import psycopg

from hop_archive.catalog.ledger import Numbers, cut, refuse_too_little, share
from hop_archive.catalog.postgres.adding import copy_duplicates
from hop_archive.catalog.postgres.row_jobs import DROP_TEXTS, FORGETTING
from hop_archive.catalog.postgres.session import Session, Tuple, columns_of, listed, only, transaction
from hop_archive.catalog.postgres.sql import (
    ADD_PART,
    COLLISION,
    HAS_ADOPTED,
    IN_LOG,
    IN_SLICE,
    REFERRING,
    ROW_IN_SLICE,
    STANDING,
    TAKING_AWAY,
)
from hop_archive.catalog.records import (
    Batch,
    Candidate,
    CopyOf,
    Duplicate,
    PendingDelete,
    Removal,
    RemovalExtent,
    RemovalOutcome,
    Removed,
    Replaced,
    Suppression,
)
from hop_archive.catalog.refusals import about_to_be_deleted
from hop_archive.errors import ConflictError
from hop_archive.model.keys import slice_of
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice

_MOST_LOCKINGS = 20
"""How often in a row others may merge or split the ledger rows that are to be locked."""

_DUE = """CASE WHEN %(grace_s)s::float8 > 0 THEN statement_timestamp() + make_interval(secs => %(grace_s)s) END"""

_AGAIN = """
    ON CONFLICT (bucket, key) DO UPDATE
    SET condemned_at = clock_timestamp(), command = EXCLUDED.command, reason = EXCLUDED.reason, run_id = EXCLUDED.run_id,
        due = EXCLUDED.due
"""

_NOTE_GONE = f"""
    pending AS (
        INSERT INTO condemned (bucket, key, recorded_bucket, topic, command, reason, run_id, due)
        SELECT DISTINCT place.bucket, gone.key, gone.bucket, gone.topic, %(command)s, %(reason)s, %(run_id)s, {_DUE}
        FROM gone, LATERAL unnest(ARRAY[gone.bucket] || %(backups)s::text[]) AS place (bucket)
        {_AGAIN}
    ), forgotten AS (
        DELETE FROM duplicates USING gone
        WHERE duplicates.generation = 0 AND duplicates.topic = gone.topic AND duplicates.uuid = gone.uuid
    )
"""
"""Index: condemned_pkey, duplicates_uuid_idx. Noted again, an object has another time: whoever deletes objects now
strikes out those of the time that they saw (``STRIKE_OUT_DELETED``). What adopted copies were copies of is forgotten with it."""

EXTENT = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(DISTINCT bucket), '{{}}')
    FROM messages WHERE {ROW_IN_SLICE}
"""
"""Index: messages_place_idx."""

_ADOPTED = """
    topic = %(topic)s AND digest IS NULL AND generation IS NULL
    AND (%(before_ms)s::bigint IS NULL OR (timestamp >= 0 AND timestamp < %(before_ms)s))
"""

ADOPTED_EXTENT = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(DISTINCT bucket), '{{}}')
    FROM messages WHERE {_ADOPTED}
"""
"""Index: messages_adopted_idx."""

KEEPER = f"""
    SELECT min("offset") FROM (
        (SELECT "offset" FROM messages WHERE {ROW_IN_SLICE} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
        UNION ALL
        (SELECT "offset" FROM duplicates WHERE {IN_SLICE} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
    ) AS young
"""
"""Index: messages_place_idx and duplicates_pkey, in their order up to the first that is not old."""

REFERRED_KEEPERS = """
    SELECT m.topic, m.generation, m.partition, min(m."offset")
    FROM duplicates AS d JOIN messages AS m ON m.uuid = d.uuid
         JOIN unnest(%(generations)s::int[], %(partitions)s::int[], %(starts)s::bigint[], %(stops)s::bigint[])
              AS place (generation, partition, start, stop)
              ON m.generation = place.generation AND m.partition = place.partition
                 AND m."offset" >= place.start AND m."offset" < place.stop
    WHERE d.topic = %(topic)s AND d.generation > 0 AND (d.timestamp >= %(since_ms)s OR d.timestamp < 0) AND m.topic = %(topic)s
    GROUP BY m.topic, m.generation, m.partition
"""
"""Index: duplicates_pkey, for those of the topic; messages_uuid_idx for each that is not old."""

REFERRED_TO = """
    SELECT m.topic, m.generation, m.partition, min(m."offset")
    FROM unnest(%(generations)s::int[], %(partitions)s::int[], %(starts)s::bigint[]) AS log (generation, partition, start)
         JOIN duplicates AS d ON d.topic = %(topic)s AND d.generation = log.generation AND d.partition = log.partition
                                 AND d."offset" >= log.start
         JOIN messages AS m ON m.uuid = d.uuid
    WHERE m.topic = %(topic)s AND m."offset" IS NOT NULL
    GROUP BY m.topic, m.generation, m.partition
"""
"""Index: duplicates_pkey, for those from an offset on; messages_uuid_idx for each."""

LOCK_BATCHES = f"""
    SELECT id, lower(offsets), upper(offsets), archived, duplicates, absent, bytes, reason, first_timestamp,
           last_timestamp, run_id, created_at
    FROM batches WHERE {IN_LOG} AND offsets && %(offsets)s::int8multirange AND outcome = 'archived'
    ORDER BY offsets FOR UPDATE
"""
"""Index: batches_slice_excl. What was merged or split while this waited is not among the rows: ``BATCH_IDS`` shows that."""

BATCH_IDS = f"""
    SELECT id FROM batches WHERE {IN_LOG} AND offsets && %(offsets)s::int8multirange AND outcome = 'archived'
    ORDER BY offsets
"""
"""Index: batches_slice_excl."""

CHANGE_BATCH = """
    UPDATE batches SET archived = archived - %(copies)s, duplicates = duplicates + %(copies)s, bytes = bytes + %(bytes)s
    WHERE id = %(id)s AND archived >= %(copies)s
"""
"""Index: batches_pkey."""

TAKE = f"""
    WITH gone AS (
        DELETE FROM messages WHERE {ROW_IN_SLICE} RETURNING topic, uuid, bucket, key, size
    ), copies AS (
        DELETE FROM duplicates WHERE {IN_SLICE} RETURNING uuid
    ), {_NOTE_GONE}
    SELECT count(*), (SELECT count(*) FROM copies), coalesce(sum(size), 0)::bigint FROM gone
"""
"""Index: messages_place_idx, duplicates_pkey."""

TAKE_ADOPTED = f"""
    WITH gone AS (
        DELETE FROM messages WHERE id IN (
            SELECT id FROM messages WHERE {_ADOPTED} ORDER BY timestamp, id LIMIT %(most)s)
        RETURNING topic, uuid, bucket, key, size
    ), {_NOTE_GONE}
    SELECT count(*), 0, coalesce(sum(size), 0)::bigint FROM gone
"""
"""Index: messages_adopted_idx, in its order; messages_pkey."""

TAKE_UUIDS = f"""
    WITH gone AS (
        DELETE FROM messages WHERE uuid = ANY(%(uuids)s) AND (generation IS NULL OR %(placed)s)
        RETURNING topic, uuid, bucket, key, size
    ), {_NOTE_GONE}
    SELECT count(*), 0, coalesce(sum(size), 0)::bigint FROM gone
"""
"""Index: messages_uuid_idx."""

PLACES = """
    SELECT topic, generation, partition, "offset" FROM messages WHERE uuid = ANY(%(uuids)s) AND generation IS NOT NULL
    UNION
    SELECT topic, generation, partition, "offset" FROM duplicates WHERE uuid = ANY(%(uuids)s) AND generation > 0
    ORDER BY 1, 2, 3, 4
"""
"""Where messages stand, and where copies of them did. Index: messages_uuid_idx, duplicates_uuid_idx."""

COPIES = """
    SELECT encode(digest, 'hex'), uuid, timestamp, tied > 1 FROM (
        SELECT digest, uuid, timestamp, id, count(*) OVER (PARTITION BY digest) AS alike,
               count(*) OVER (PARTITION BY digest, timestamp) AS tied
        FROM messages WHERE topic = %s AND digest IS NOT NULL
    ) AS counted
    WHERE alike > 1 ORDER BY digest, id
"""
"""Index: messages_topic_timestamp_idx, for the topic. Sorts the topic's digests: an index of them would cost each insert."""

MET_COPIES = f"""
    WITH met AS (
        SELECT unnest(ARRAY[(detail ->> 'client_uuid')::uuid, (detail ->> 'archived_as')::uuid]) AS uuid
        FROM findings WHERE topic = %(topic)s AND kind = '{COLLISION}'
    )
    SELECT encode(digest, 'hex'), uuid, timestamp, tied > 1 FROM (
        SELECT digest, uuid, timestamp, id, count(*) OVER (PARTITION BY digest) AS alike,
               count(*) OVER (PARTITION BY digest, timestamp) AS tied
        FROM messages WHERE uuid IN (SELECT uuid FROM met) AND topic = %(topic)s AND digest IS NOT NULL
    ) AS counted
    WHERE alike > 1 ORDER BY digest, id
"""
"""Index: findings_topic_idx, messages_uuid_idx."""

ADOPTED_PAGE = """
    SELECT timestamp FROM messages WHERE topic = %s AND digest IS NULL AND timestamp >= %s ORDER BY timestamp OFFSET %s LIMIT 1
"""
"""Index: messages_adopted_idx, in its order."""

_PAGE_ROWS = 20_000
"""Adopted rows of which one statement looks for others that are the same, but for those of one millisecond."""
_LEAST_MS, _MOST_MS = -(2**63), 2**63 - 1

ADOPTED_COPIES = """
    SELECT timestamp || '/' || message_crc32, uuid, timestamp, true
    FROM messages AS m
    WHERE topic = %(topic)s AND (timestamp, message_crc32) IN (
        SELECT a.timestamp, a.message_crc32 FROM messages AS a
        WHERE a.topic = %(topic)s AND a.digest IS NULL AND a.timestamp >= %(start)s AND a.timestamp < %(stop)s AND EXISTS (
            SELECT FROM messages AS b
            WHERE (b.topic, b.timestamp, b.message_crc32) = (a.topic, a.timestamp, a.message_crc32)
              AND a.id <> b.id AND NOT (a.is_client_uuid AND b.is_client_uuid)))
    ORDER BY timestamp, message_crc32, id
"""
"""Index: messages_adopted_idx for one of each pair, messages_topic_timestamp_idx for the other."""

LOCK_MESSAGES = """
    SELECT uuid, topic, generation, partition, "offset", timestamp, size, id FROM messages
    WHERE uuid = ANY(%s) ORDER BY id FOR UPDATE
"""
"""Index: messages_uuid_idx."""

REPLACE = """
    WITH replaced AS (
        SELECT * FROM unnest(%(uuids)s::uuid[], %(keys)s::text[], %(positions)s::bigint[], %(sizes)s::int[],
                             %(crc32s)s::bigint[], %(tombstones)s::boolean[], %(frames)s::bigint[], %(frame_sizes)s::int[])
            AS replaced (uuid, key, position, size, crc32, is_tombstone, frame, frame_size)
    ), old AS (
        SELECT uuid, size FROM messages WHERE uuid = ANY(%(uuids)s) AND bucket = %(bucket)s AND key = %(key)s
        ORDER BY id FOR UPDATE
    )
    UPDATE messages AS m
    SET key = replaced.key, position = replaced.position, size = replaced.size, crc32 = replaced.crc32,
        frame = replaced.frame, frame_size = replaced.frame_size,
        title = CASE WHEN is_tombstone THEN '' ELSE m.title END,
        sender = CASE WHEN is_tombstone THEN '' ELSE m.sender END,
        file_name = CASE WHEN is_tombstone THEN '' ELSE m.file_name END,
        originator = CASE WHEN is_tombstone THEN '' ELSE m.originator END
    FROM replaced JOIN old USING (uuid) WHERE m.uuid = replaced.uuid
    RETURNING m.uuid, m.topic, m.generation, m.partition, m."offset", m.size - old.size
"""
"""Index: messages_uuid_idx."""

SUPPRESS = """
    INSERT INTO suppressions (uuid, topic, reason)
    SELECT uuid, topic, %s FROM unnest(%s::uuid[], %s::text[]) AS wanted (uuid, topic)
    ON CONFLICT (uuid) DO NOTHING
"""
"""Index: suppressions_pkey."""

SUPPRESSIONS = """
    SELECT uuid, topic, reason, suppressed_at FROM suppressions
    WHERE %(uuids)s::uuid[] IS NULL OR uuid = ANY(%(uuids)s) ORDER BY suppressed_at, uuid
"""
"""Index: suppressions_pkey, for some."""

NOTE_PENDING = f"""
    INSERT INTO condemned (bucket, key, recorded_bucket, topic, command, reason, run_id, due)
    SELECT DISTINCT place.bucket, gone.key, gone.bucket, %(topic)s, %(command)s, %(reason)s, %(run_id)s, {_DUE}
    FROM unnest(%(buckets)s::text[], %(keys)s::text[]) AS gone (bucket, key),
         LATERAL unnest(ARRAY[gone.bucket] || %(backups)s::text[]) AS place (bucket)
    {_AGAIN}
"""
"""Index: condemned_pkey."""

PENDING = """
    SELECT bucket, key, recorded_bucket, topic, condemned_at FROM condemned
    WHERE bucket = %(bucket)s AND key = ANY(ARRAY(
        SELECT key FROM condemned
        WHERE bucket = %(bucket)s AND command = %(command)s AND coalesce(due, '-infinity') <= now()
        ORDER BY coalesce(due, '-infinity'), key LIMIT %(most)s
    )) AND command = %(command)s AND coalesce(due, '-infinity') <= now()
    ORDER BY key FOR UPDATE
"""
"""Index: condemned_due_idx, then condemned_pkey. Whoever would strike out one of them waits."""

WAITING = """
    SELECT key FROM condemned WHERE bucket = %s AND key = ANY(%s) AND due > clock_timestamp() - interval '2 days'
"""
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
    SELECT EXISTS (SELECT FROM messages WHERE {ROW_IN_SLICE} AND key = %(key)s AND bucket = %(bucket)s AND position IS NOT NULL)
"""
"""Index: messages_place_idx: a segment's key says whose documents it holds."""

STRIKE_OUT_DELETED = """
    DELETE FROM condemned USING unnest(%s::text[], %s::text[], %s::timestamptz[]) AS over (bucket, key, at)
    WHERE condemned.bucket = over.bucket AND condemned.key = over.key AND condemned.condemned_at = over.at
"""
"""Index: condemned_pkey."""


class _Held(NamedTuple):
    """A ledger row that this transaction has locked."""

    id: int
    slice: Slice
    numbers: Numbers
    rest: Tuple


class PostgresRemovals(Session):
    """The part of a catalog in Postgres that takes rows away, moves or marks them."""

    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        found = [self._fetch(EXTENT, asdict(place))[0] for place in places]
        return RemovalExtent(
            sum(row[0] for row in found),
            sum(row[1] for row in found),
            frozenset(chain.from_iterable(row[2] for row in found)),
        )

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        ((messages, size_bytes, buckets),) = self._fetch(
            ADOPTED_EXTENT, {"topic": topic, "before_ms": before_ms}
        )
        return RemovalExtent(messages, size_bytes, frozenset(buckets))

    @transaction
    def remove(
        self,
        connection: psycopg.Connection,
        places: Sequence[Slice],
        outcome: RemovalOutcome,
        removal: Removal,
    ) -> Removed:
        connection.execute(REFERRING)
        return self._remove(connection, places, outcome, removal)

    def remove_adopted(
        self, topic: str, removal: Removal, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        values = {"topic": topic, "before_ms": before_ms, "most": most, **_values(removal)}
        return self._transact(lambda connection: _take(connection, TAKE_ADOPTED, values))

    def remove_messages(
        self, message_uuids: Collection[uuid.UUID], outcome: RemovalOutcome, removal: Removal
    ) -> Removed:
        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(TAKING_AWAY)
            values = {"uuids": list(message_uuids), "placed": False, **_values(removal)}
            found = connection.execute(PLACES, values).fetchall()
            slices = [
                place
                for at, some in groupby(found, key=lambda row: PartitionLog(*row[:3]))
                for place in at.slices(OffsetSet.of((row[3], row[3] + 1) for row in some))
            ]
            removed = self._remove(connection, slices, outcome, removal)
            return removed.plus(_take(connection, TAKE_UUIDS, values))

        return self._transact(work) if message_uuids else Removed()

    def likely_copies(self, topic: str, *, by_digest: bool = True) -> Iterator[Candidate]:
        found = self._stream(COPIES, [topic]) if by_digest else self._stream(MET_COPIES, {"topic": topic})
        for row in found:
            yield Candidate(*row)
        start: int | None = _LEAST_MS if self._fetch(HAS_ADOPTED, [[topic]]) else None
        while start is not None:
            page = self._fetch(ADOPTED_PAGE, [topic, start, _PAGE_ROWS])
            # Rows of one millisecond stay together.
            stop = max(start + 1, page[0][0]) if page else _MOST_MS
            for row in self._fetch(ADOPTED_COPIES, {"topic": topic, "start": start, "stop": stop}):
                yield Candidate(*row)
            start = stop if page else None

    def move_to_duplicates(self, copies: Sequence[CopyOf], removal: Removal) -> Removed:
        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(TAKING_AWAY)
            uuids = [message_uuid for pair in copies for message_uuid in (pair.copy, pair.kept)]
            rows = {row[0]: row for row in connection.execute(LOCK_MESSAGES, [uuids])}
            moved = Removed()
            for pair in copies:
                if pair.copy in rows and pair.kept in rows:
                    moved = moved.plus(self._move(connection, rows.pop(pair.copy), pair, removal))
            return moved

        return self._transact(work) if copies else Removed()

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        kept: dict[PartitionLog, int] = {}
        for place in places:
            if place.partition_log not in kept:
                ((first,),) = self._fetch(KEEPER, {**asdict(place), "since_ms": since_ms})
                kept |= {} if first is None else {place.partition_log: first}
        for topic, some in groupby(sorted(places), key=lambda place: place.topic):
            here = list(some)
            values = {
                "topic": topic,
                "since_ms": since_ms,
                "generations": [place.generation for place in here],
                "partitions": [place.partition for place in here],
                "starts": [place.start for place in here],
                "stops": [place.stop for place in here],
            }
            for *at, first in self._fetch(REFERRED_KEEPERS, values):
                log = PartitionLog(*at)
                kept[log] = min(first, kept.get(log, first))
        return kept

    def referred_to(self, topic: str, kept_from: Mapping[PartitionLog, int]) -> Mapping[PartitionLog, int]:
        values = {
            "topic": topic,
            "generations": [at.generation for at in kept_from],
            "partitions": [at.partition for at in kept_from],
            "starts": [*kept_from.values()],
        }
        return {PartitionLog(*at): first for *at, first in self._fetch(REFERRED_TO, values)}

    def retract(self, message_uuids: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        # Index: messages_uuid_idx.
        statement = "UPDATE messages SET retracted = %s WHERE uuid = ANY(%s) RETURNING uuid"
        values = [retracted, list(message_uuids)]
        found = self._transact(lambda connection: connection.execute(statement, values).fetchall())
        return frozenset(message_uuid for (message_uuid,) in found)

    def suppress(self, topics: Mapping[uuid.UUID, str], reason: str) -> None:
        def work(connection: psycopg.Connection) -> None:
            connection.execute(FORGETTING)
            connection.execute(SUPPRESS, [reason, list(topics), list(topics.values())])
            connection.execute(DROP_TEXTS, [list(topics)])

        self._transact(work)

    def suppressed(self, message_uuids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        # Index: suppressions_pkey.
        found = self._fetch("SELECT uuid FROM suppressions WHERE uuid = ANY(%s)", [list(message_uuids)])
        return frozenset(message_uuid for (message_uuid,) in found)

    def suppressions(self, message_uuids: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        return self._fetch_as(Suppression, SUPPRESSIONS, {"uuids": listed(message_uuids)})

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], removal: Removal
    ) -> frozenset[uuid.UUID]:
        if not new:
            return frozenset()
        columns = columns_of(new)
        names = ("uuids", "keys", "positions", "sizes", "crc32s", "tombstones", "frames", "frame_sizes")
        values = {**dict(zip(names, columns, strict=True)), "bucket": old[0], "key": old[1]}

        def work(connection: psycopg.Connection) -> frozenset[uuid.UUID]:
            connection.execute(TAKING_AWAY)
            changed = connection.execute(REPLACE, values).fetchall()
            for _, topic, generation, partition, offset, more_bytes in changed:
                if more_bytes and generation is not None:
                    where = Slice(topic, generation, partition, offset, offset + 1)
                    for held in self._locked(connection, where.partition_log, [where]):
                        self._change_batch(connection, held, copies=0, more_bytes=more_bytes)
                if more_bytes:
                    # Index: unique_topic.
                    more = "UPDATE topics SET n_bytes = n_bytes + %s WHERE topic = %s"
                    connection.execute(more, [more_bytes, topic])
            if changed:
                buckets, key = {old[0], *removal.backups}, new[0].object_key
                struck = connection.execute(STRIKE_OUT, [old[0], key, list(buckets)]).rowcount
                if struck != len(buckets):
                    raise about_to_be_deleted(key, old[0])
                connection.execute(NOTE_PENDING, pending_values([old], changed[0][1], removal))
            return frozenset(row[0] for row in changed)

        return self._transact(work)

    def note_pending_deletes(
        self, objects: Collection[tuple[str, str]], topic: str, removal: Removal
    ) -> None:
        self._execute(NOTE_PENDING, pending_values(objects, topic, removal))

    @transaction
    def pending_deletes(
        self, connection: psycopg.Connection, command: str, bucket: str, most: int = 1_000
    ) -> Sequence[PendingDelete]:
        found = connection.execute(PENDING, {"command": command, "bucket": bucket, "most": most}).fetchall()
        topics, keys, buckets = ([row[n] for row in found] for n in (3, 1, 2))
        named = {key for (key,) in connection.execute(NAMED_ALONE, [topics, keys, buckets])}
        for key, recorded_in in zip(keys, buckets, strict=True):
            if (place := slice_of(key)) is not None:
                values = {**asdict(place), "key": key, "bucket": recorded_in}
                if only(connection.execute(IS_NAMED_SEGMENT, values).fetchone())[0]:
                    named.add(key)
        unnamed = [row[1] for row in found if row[1] not in named]
        # Index: condemned_pkey.
        connection.execute(
            "UPDATE condemned SET claimed = true WHERE bucket = %s AND key = ANY(%s)", [bucket, unnamed]
        )
        return [PendingDelete(row[0], row[1], row[1] in named, row[4]) for row in found]

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        # Index: condemned_pkey.
        statement = "SELECT key FROM condemned WHERE bucket = %s AND key = ANY(%s)"
        return frozenset(key for (key,) in self._fetch(statement, [bucket, list(keys)]))

    def waiting_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        return frozenset(key for (key,) in self._fetch(WAITING, [bucket, list(keys)]))

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        columns = [[o.bucket for o in objects], [o.key for o in objects], [o.at for o in objects]]
        self._execute(STRIKE_OUT_DELETED, columns)

    def _remove(
        self,
        connection: psycopg.Connection,
        places: Sequence[Slice],
        outcome: RemovalOutcome,
        removal: Removal,
    ) -> Removed:
        """All ledger rows are locked before the first message goes: see ``sql.REFERRING``."""

        def count(part: Slice) -> Numbers:
            rows, size_bytes, _, _, copies = only(connection.execute(STANDING, asdict(part)).fetchone())
            return Numbers(rows, copies, len(part) - rows - copies, size_bytes)

        locked: list[tuple[_Held, list[Slice]]] = []
        for at, some in groupby(sorted(places), key=lambda place: place.partition_log):
            here = list(some)
            locked += [(held, here) for held in self._locked(connection, at, here)]
        removed = Removed()
        for held, here in locked:
            taken, kept = cut(held.slice, here)
            left = held.numbers
            for where in taken:
                values = {**asdict(where), **_values(removal)}
                took = _take(connection, TAKE, values)._replace(offsets=len(where))
                absent = took.offsets - took.messages - took.duplicates
                left = left.less(Numbers(took.messages, took.duplicates, absent, took.size_bytes))
                removed = removed.plus(took)
            # Index: batches_pkey.
            connection.execute("DELETE FROM batches WHERE id = %s", [held.id])
            shares = share(self._server, held.slice, kept, left, count)
            parts = [(where, "archived", numbers, held.rest) for where, numbers in shares]
            rest = (removal.reason, None, None, removal.run_id, None)
            parts += [(where, outcome, Numbers(0, 0, 0, 0), rest) for where in taken]
            for where, became, numbers, (reason, *others) in parts:
                place = (*where.partition_log, where.start, where.stop)
                connection.execute(ADD_PART, (*place, became, reason, *numbers, *others))
        return removed

    def _locked(
        self, connection: psycopg.Connection, at: PartitionLog, places: Sequence[Slice]
    ) -> list[_Held]:
        """The ledger rows of these places, which nobody else changes before this transaction ends.

        A row that somebody merged or split while this waited for it is not there any more, and what took its place was
        not there yet when the statement began: so they are looked for again until all that there are are locked.
        """
        offsets = "{" + ",".join(f"[{place.start},{place.stop})" for place in places) + "}"
        values = {**at._asdict(), "offsets": offsets}
        for _ in range(_MOST_LOCKINGS):
            rows = connection.execute(LOCK_BATCHES, values).fetchall()
            if [(row[0],) for row in rows] == connection.execute(BATCH_IDS, values).fetchall():
                return [_Held(row[0], Slice(*at, *row[1:3]), Numbers(*row[3:7]), row[7:]) for row in rows]
        raise ConflictError(
            f"{self._server}: others change the ledger of {at.topic} all the time.",
            remedy="Run this again when they are done.",
            topic=at.topic,
        )

    def _move(self, connection: psycopg.Connection, row: Tuple, pair: CopyOf, removal: Removal) -> Removed:
        """Move one message; nothing where no ledger row counts it, which verification finds."""
        message_uuid, topic, generation, partition, offset, timestamp_ms, size_bytes, number = row
        where, batch = Slice(topic, 0, 0, number, number + 1), 0
        if generation is not None:
            where = Slice(topic, generation, partition, offset, offset + 1)
            held = self._locked(connection, where.partition_log, [where])
            if not held:
                return Removed()
            batch = held[0].id
            self._change_batch(connection, held[0], copies=1, more_bytes=-size_bytes)
        # Index: duplicates_uuid_idx.
        refer = "UPDATE duplicates SET uuid = %s WHERE topic = %s AND uuid = %s"
        connection.execute(refer, [pair.kept, topic, message_uuid])
        duplicate = Duplicate(where.start, timestamp_ms, pair.kept, pair.reason)
        copy_duplicates(connection, (Batch(where, duplicates=[duplicate]), batch))
        values = {"uuids": [message_uuid], "placed": True, **_values(removal)}
        return _take(connection, TAKE_UUIDS, values)

    def _change_batch(
        self, connection: psycopg.Connection, held: _Held, *, copies: int, more_bytes: int
    ) -> None:
        values = {"id": held.id, "copies": copies, "bytes": more_bytes}
        if connection.execute(CHANGE_BATCH, values).rowcount != 1:
            refuse_too_little(self._server, held.slice, held.numbers._replace(archived=-copies))


def _values(removal: Removal) -> dict[str, Any]:
    return {**asdict(removal), "backups": list(removal.backups)}


def pending_values(objects: Collection[tuple[str, str]], topic: str, removal: Removal) -> dict[str, Any]:
    """What ``NOTE_PENDING`` is given."""
    buckets, keys = [bucket for bucket, _ in objects], [key for _, key in objects]
    return {"topic": topic, "buckets": buckets, "keys": keys, **_values(removal)}


def _take(connection: psycopg.Connection, statement: str, values: Mapping[str, Any]) -> Removed:
    ((messages, duplicates, size_bytes),) = connection.execute(statement, values).fetchall()
    return Removed(messages, duplicates, 0, size_bytes)
