"""The part of the catalog in Postgres that gives messages up."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from itertools import chain, groupby
from typing import Any, NamedTuple

import psycopg

from hop_archive.catalog.postgres.session import Session, Tuple, listed, only
from hop_archive.catalog.postgres.sql import (
    HAS_ADOPTED,
    IN_LOG,
    IN_SLICE,
    REFERRING,
    STANDING,
    TAKING_AWAY,
)
from hop_archive.catalog.records import (
    Candidate,
    Copied,
    Deed,
    PendingDelete,
    RemovalExtent,
    RemovalOutcome,
    Removed,
    Replaced,
    Suppression,
)
from hop_archive.catalog.rules import Numbers, about_to_be_deleted, cut, refuse_too_little, to_count
from hop_archive.errors import ConflictError
from hop_archive.model.keys import slice_of
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice

_MOST_LOCKINGS = 20
"""How often in a row others may merge or split the ledger rows that are to be locked."""

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

EXTENT = f"""
    SELECT count(*), coalesce(sum(size), 0)::bigint, coalesce(array_agg(DISTINCT bucket), '{{}}')
    FROM messages WHERE {IN_SLICE}
"""
"""Index: messages_offset_idx."""

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
        (SELECT "offset" FROM messages WHERE {IN_SLICE} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
        UNION ALL
        (SELECT "offset" FROM duplicates WHERE {IN_SLICE} AND (timestamp >= %(since_ms)s OR timestamp < 0)
         ORDER BY "offset" LIMIT 1)
        UNION ALL
        (SELECT min(m."offset") FROM duplicates AS d JOIN messages AS m ON m.uuid = d.uuid
         WHERE d.topic = %(topic)s AND d.generation > 0 AND (d.timestamp >= %(since_ms)s OR d.timestamp < 0)
           AND m.topic = %(topic)s AND m.generation = %(generation)s AND m.partition = %(partition)s
           AND m."offset" >= %(start)s AND m."offset" < %(stop)s)
    ) AS young
"""
"""Index: messages_offset_idx and duplicates_pkey, in their order up to the first that is not old; messages_uuid_idx for
each duplicate that is not."""

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

ADD_PART = """
    INSERT INTO batches (topic, generation, partition, offsets, outcome, reason, archived, duplicates, absent, bytes,
                         first_timestamp, last_timestamp, run_id, created_at)
    VALUES (%s, %s, %s, int8range(%s, %s), %s, %s, %s, %s, %s, %s, %s, %s, %s, coalesce(%s, clock_timestamp()))
"""
"""Index: each of batches. The row that it is a part of was deleted in the same transaction."""

CHANGE_BATCH = """
    UPDATE batches SET archived = archived - %(copies)s, duplicates = duplicates + %(copies)s, bytes = bytes + %(bytes)s
    WHERE id = %(id)s AND archived >= %(copies)s
"""
"""Index: batches_pkey."""

TAKE = f"""
    WITH gone AS (
        DELETE FROM messages WHERE {IN_SLICE} RETURNING topic, uuid, bucket, key, size
    ), copies AS (
        DELETE FROM duplicates WHERE {IN_SLICE} RETURNING uuid
    ), {_NOTE_GONE}
    SELECT count(*), (SELECT count(*) FROM copies), coalesce(sum(size), 0)::bigint FROM gone
"""
"""Index: messages_offset_idx, duplicates_pkey."""

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

REPLACE = """
    WITH replaced AS (
        SELECT * FROM unnest(%(uuids)s::uuid[], %(keys)s::text[], %(positions)s::bigint[], %(sizes)s::int[],
                             %(crc32s)s::bigint[], %(tombstones)s::boolean[])
            AS replaced (uuid, key, position, size, crc32, is_tombstone)
    ), old AS (
        SELECT uuid, size FROM messages WHERE uuid = ANY(%(uuids)s) AND bucket = %(bucket)s AND key = %(key)s
        ORDER BY id FOR UPDATE
    )
    UPDATE messages AS m
    SET key = replaced.key, position = replaced.position, size = replaced.size, crc32 = replaced.crc32,
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
    SELECT EXISTS (SELECT FROM messages WHERE {IN_SLICE} AND key = %(key)s AND bucket = %(bucket)s AND position IS NOT NULL)
"""
"""Index: messages_offset_idx: a segment's key says whose documents it holds."""

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

    def remove(self, places: Sequence[Slice], outcome: RemovalOutcome, deed: Deed) -> Removed:
        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(REFERRING)
            return self._remove(connection, places, outcome, deed)

        return self._transact(work)

    def remove_adopted(
        self, topic: str, deed: Deed, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        values = {"topic": topic, "before_ms": before_ms, "most": most, **_values(deed)}
        return self._transact(lambda connection: _take(connection, TAKE_ADOPTED, values))

    def remove_messages(
        self, message_uuids: Collection[uuid.UUID], outcome: RemovalOutcome, deed: Deed
    ) -> Removed:
        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(TAKING_AWAY)
            values = {"uuids": list(message_uuids), "placed": False, **_values(deed)}
            found = connection.execute(PLACES, values).fetchall()
            slices = [
                place
                for at, some in groupby(found, key=lambda row: PartitionLog(*row[:3]))
                for place in at.slices(OffsetSet.of((row[3], row[3] + 1) for row in some))
            ]
            removed = self._remove(connection, slices, outcome, deed)
            return removed.plus(_take(connection, TAKE_UUIDS, values))

        return self._transact(work) if message_uuids else Removed()

    def likely_copies(self, topic: str) -> Iterator[Candidate]:
        for row in self._stream(COPIES, topic):
            yield Candidate(*row)
        if self._fetch(HAS_ADOPTED, [[topic]]):
            for row in self._fetch(ADOPTED_COPIES, {"topic": topic}):
                yield Candidate(*row)

    def move_to_duplicates(self, copies: Sequence[Copied], deed: Deed) -> Removed:
        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(TAKING_AWAY)
            uuids = [message_uuid for copied in copies for message_uuid in (copied.copy, copied.kept)]
            rows = {row[0]: row for row in connection.execute(LOCK_MESSAGES, [uuids])}
            moved = Removed()
            for copied in copies:
                if copied.copy in rows and copied.kept in rows:
                    moved = moved.plus(self._move(connection, rows.pop(copied.copy), copied, deed))
            return moved

        return self._transact(work) if copies else Removed()

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        kept: dict[PartitionLog, int] = {}
        for place in places:
            if place.partition_log not in kept:
                ((first,),) = self._fetch(KEEPER, {**asdict(place), "since_ms": since_ms})
                kept |= {} if first is None else {place.partition_log: first}
        return kept

    def retract(self, message_uuids: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        # Index: messages_uuid_idx.
        statement = "UPDATE messages SET retracted = %s WHERE uuid = ANY(%s) RETURNING uuid"
        values = [retracted, list(message_uuids)]
        found = self._transact(lambda connection: connection.execute(statement, values).fetchall())
        return frozenset(message_uuid for (message_uuid,) in found)

    def suppress(self, topics: Mapping[uuid.UUID, str], reason: str) -> None:
        self._execute(SUPPRESS, [reason, list(topics), list(topics.values())])

    def suppressed(self, message_uuids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        # Index: suppressions_pkey.
        found = self._fetch("SELECT uuid FROM suppressions WHERE uuid = ANY(%s)", [list(message_uuids)])
        return frozenset(message_uuid for (message_uuid,) in found)

    def suppressions(self, message_uuids: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        found = self._fetch(SUPPRESSIONS, {"uuids": listed(message_uuids)})
        return [Suppression(*row) for row in found]

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], deed: Deed
    ) -> frozenset[uuid.UUID]:
        if not new:
            return frozenset()
        columns = [list(column) for column in zip(*new, strict=True)]
        names = ("uuids", "keys", "positions", "sizes", "crc32s", "tombstones")
        values = {**dict(zip(names, columns, strict=True)), "bucket": old[0], "key": old[1]}

        def work(connection: psycopg.Connection) -> frozenset[uuid.UUID]:
            connection.execute(TAKING_AWAY)
            changed = connection.execute(REPLACE, values).fetchall()
            for row in changed:
                self._count_bytes(connection, row)
            if changed:
                buckets, key = {old[0], *deed.backups}, new[0].object_key
                struck = connection.execute(STRIKE_OUT, [old[0], key, list(buckets)]).rowcount
                if struck != len(buckets):
                    raise about_to_be_deleted(key, old[0])
                connection.execute(NOTE_PENDING, _pending_values([old], changed[0][1], deed))
            return frozenset(row[0] for row in changed)

        return self._transact(work)

    def note_pending_deletes(self, objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> None:
        self._execute(NOTE_PENDING, _pending_values(objects, topic, deed))

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        def work(connection: psycopg.Connection) -> list[PendingDelete]:
            found = connection.execute(PENDING, [command, bucket, most]).fetchall()
            named = _named(connection, found)
            unnamed = [row[1] for row in found if row[1] not in named]
            # Index: condemned_pkey.
            connection.execute(
                "UPDATE condemned SET claimed = true WHERE bucket = %s AND key = ANY(%s)", [bucket, unnamed]
            )
            return [PendingDelete(row[0], row[1], row[1] in named, row[4]) for row in found]

        return self._transact(work)

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        # Index: condemned_pkey.
        statement = "SELECT key FROM condemned WHERE bucket = %s AND key = ANY(%s)"
        return frozenset(key for (key,) in self._fetch(statement, [bucket, list(keys)]))

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        columns = [[o.bucket for o in objects], [o.key for o in objects], [o.at for o in objects]]
        self._execute(STRIKE_OUT_DELETED, columns)

    def _remove(
        self, connection: psycopg.Connection, places: Sequence[Slice], outcome: RemovalOutcome, deed: Deed
    ) -> Removed:
        """All ledger rows are locked before the first message goes: see ``sql.REFERRING``."""
        locked: list[tuple[_Held, list[Slice]]] = []
        for at, some in groupby(sorted(places), key=lambda place: place.partition_log):
            here = list(some)
            locked += [(held, here) for held in self._locked(connection, at, here)]
        removed = Removed()
        for held, here in locked:
            removed = removed.plus(self._split(connection, held, here, (outcome, deed)))
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

    def _split(
        self,
        connection: psycopg.Connection,
        held: _Held,
        places: Sequence[Slice],
        how: tuple[RemovalOutcome, Deed],
    ) -> Removed:
        """The kept parts' numbers are counted; the last one's are what the others leave."""
        outcome, deed = how
        parts = cut(held.slice, places)
        removed, left = Removed(), held.numbers
        for part in parts.taken:
            values = {**asdict(held.slice.within(*part)), **_values(deed)}
            taken = _take(connection, TAKE, values)._replace(offsets=part.stop - part.start)
            absent = taken.offsets - taken.messages - taken.duplicates
            left = left.less(Numbers(taken.messages, taken.duplicates, absent, taken.size_bytes))
            removed = removed.plus(taken)
        # Index: batches_pkey.
        connection.execute("DELETE FROM batches WHERE id = %s", [held.id])
        kept: list[tuple[Slice, Numbers]] = []
        for part in to_count(parts):
            where = held.slice.within(*part)
            rows, size_bytes, _, _, copies = only(connection.execute(STANDING, asdict(where)).fetchone())
            kept.append((where, Numbers(rows, copies, len(where) - rows - copies, size_bytes)))
            left = left.less(kept[-1][1])
        kept += [(held.slice.within(*part), left) for part in parts.kept[-1:]]
        for where, numbers in kept:
            refuse_too_little(self._server, held.slice, numbers)
            _add_part(connection, where, numbers, ("archived", *held.rest))
        for part in parts.taken:
            rest = (outcome, deed.reason, None, None, deed.run_id, None)
            _add_part(connection, held.slice.within(*part), Numbers(0, 0, 0, 0), rest)
        return removed

    def _move(self, connection: psycopg.Connection, row: Tuple, copied: Copied, deed: Deed) -> Removed:
        """Move one message; nothing where no ledger row counts it, which verification finds."""
        message_uuid, topic, generation, partition, offset, timestamp_ms, size_bytes, number = row
        place, batch = (0, 0, number), 0
        if generation is not None:
            where = Slice(topic, generation, partition, offset, offset + 1)
            held = self._locked(connection, where.partition_log, [where])
            if not held:
                return Removed()
            place, batch = (generation, partition, offset), held[0].id
            self._change_batch(connection, held[0], copies=1, more_bytes=-size_bytes)
        # Index: duplicates_uuid_idx.
        connection.execute(
            "UPDATE duplicates SET uuid = %(kept)s WHERE topic = %(topic)s AND uuid = %(copy)s",
            {"topic": topic, "copy": message_uuid, "kept": copied.kept},
        )
        duplicate = (topic, *place, timestamp_ms, copied.kept, copied.reason, batch)
        connection.execute(ADD_DUPLICATE, duplicate)
        values = {"uuids": [message_uuid], "placed": True, **_values(deed)}
        return _take(connection, TAKE_UUIDS, values)

    def _count_bytes(self, connection: psycopg.Connection, row: Tuple) -> None:
        """Let the summary and the ledger know how much longer a document is."""
        _, topic, generation, partition, offset, more_bytes = row
        if not more_bytes:
            return
        if generation is not None:
            where = Slice(topic, generation, partition, offset, offset + 1)
            for held in self._locked(connection, where.partition_log, [where]):
                self._change_batch(connection, held, copies=0, more_bytes=more_bytes)
        # Index: unique_topic.
        connection.execute("UPDATE topics SET n_bytes = n_bytes + %s WHERE topic = %s", [more_bytes, topic])

    def _change_batch(
        self, connection: psycopg.Connection, held: _Held, *, copies: int, more_bytes: int
    ) -> None:
        values = {"id": held.id, "copies": copies, "bytes": more_bytes}
        if connection.execute(CHANGE_BATCH, values).rowcount != 1:
            refuse_too_little(self._server, held.slice, held.numbers._replace(archived=-copies))


def _named(connection: psycopg.Connection, found: Sequence[Tuple]) -> set[str]:
    """The keys, of pending deletes, that a row names; those are locked, so that none comes to be named now."""
    topics, keys, buckets = ([row[n] for row in found] for n in (3, 1, 2))
    named = {key for (key,) in connection.execute(NAMED_ALONE, [topics, keys, buckets])}
    for key, bucket in zip(keys, buckets, strict=True):
        if (place := slice_of(key)) is not None:
            values = {**asdict(place), "key": key, "bucket": bucket}
            if only(connection.execute(IS_NAMED_SEGMENT, values).fetchone())[0]:
                named.add(key)
    return named


def _values(deed: Deed) -> dict[str, Any]:
    return {**asdict(deed), "backups": list(deed.backups)}


def _pending_values(objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> dict[str, Any]:
    buckets, keys = [bucket for bucket, _ in objects], [key for _, key in objects]
    return {"topic": topic, "buckets": buckets, "keys": keys, **_values(deed)}


def _take(connection: psycopg.Connection, statement: str, values: Mapping[str, Any]) -> Removed:
    ((messages, duplicates, size_bytes),) = connection.execute(statement, values).fetchall()
    return Removed(messages, duplicates, 0, size_bytes)


def _add_part(connection: psycopg.Connection, where: Slice, numbers: Numbers, rest: Tuple) -> None:
    outcome, reason, first_ms, last_ms, run_id, created_at = rest
    place = (*where.partition_log, where.start, where.stop)
    values = (*place, outcome, reason, *numbers, first_ms, last_ms, run_id, created_at)
    connection.execute(ADD_PART, values)
