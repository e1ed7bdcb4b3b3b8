"""The part of the catalog in Postgres that gives messages up."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, NamedTuple

import psycopg

from hop_archive.catalog.postgres import sql, sql_removals
from hop_archive.catalog.postgres.session import Session, Tuple
from hop_archive.catalog.records import (
    Candidate,
    Copied,
    Deed,
    Gone,
    PendingDelete,
    RemovalExtent,
    Removed,
    Replaced,
    Suppression,
)
from hop_archive.catalog.rules import Numbers, Parts, cut, to_count
from hop_archive.errors import ConflictError, DataError
from hop_archive.model.keys import slice_of
from hop_archive.model.slices import OffsetRange, OffsetSet, PartitionLog, Slice

_MOST_LOCKINGS = 20
"""How often in a row others may merge or split the ledger rows that are to be locked."""


class _Held(NamedTuple):
    """A ledger row that this transaction has locked."""

    id: int
    slice: Slice
    numbers: Numbers
    rest: Tuple


class PostgresRemovals(Session):
    """Takes rows away, moves or marks them; see ``Catalog`` for what each call promises."""

    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        """How many messages stand at these places."""
        found = [self._fetch(sql_removals.EXTENT, _within(place))[0] for place in places]
        return RemovalExtent(
            sum(row[0] for row in found),
            sum(row[1] for row in found),
            frozenset(chain.from_iterable(row[2] for row in found)),
        )

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        """How many adopted rows ``topic`` has."""
        ((messages, size_bytes, buckets),) = self._fetch(
            sql_removals.ADOPTED_EXTENT, {"topic": topic, "before_ms": before_ms}
        )
        return RemovalExtent(messages, size_bytes, frozenset(buckets))

    def remove(self, places: Sequence[Slice], outcome: Gone, deed: Deed) -> Removed:
        """Take messages and duplicates away at these places, and say so in the ledger; their objects become pending deletes."""

        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(sql.REFERRING)
            return self._remove(connection, places, outcome, deed)

        return self._transact(work)

    def remove_adopted(
        self, topic: str, deed: Deed, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        """Take away adopted rows of ``topic``, the oldest first; their objects become pending deletes."""
        values = {"topic": topic, "before_ms": before_ms, "most": most, **_told(deed)}
        return self._transact(lambda connection: _taken(connection, sql_removals.TAKE_ADOPTED, values))

    def remove_messages(self, own: Collection[uuid.UUID], outcome: Gone, deed: Deed) -> Removed:
        """Take these messages away, adopted or not, with the duplicates that refer to them."""

        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(sql_removals.TAKING_AWAY)
            values = {"uuids": list(own), "placed": False, **_told(deed)}
            found = connection.execute(sql_removals.PLACES, values).fetchall()
            removed = self._remove(connection, _slices(found), outcome, deed)
            return removed.plus(_taken(connection, sql_removals.TAKE_UUIDS, values))

        return self._transact(work) if own else Removed()

    def likely_copies(self, topic: str) -> Iterator[Candidate]:
        """Messages of ``topic`` that may be copies of one another, streamed: by group, in each the oldest first."""
        for row in self._stream(sql_removals.COPIES, topic):
            yield Candidate(*row)
        if self._fetch(sql.HAS_ADOPTED, [[topic]]):
            for row in self._fetch(sql_removals.ADOPTED_COPIES, {"topic": topic}):
                yield Candidate(*row)

    def move_to_duplicates(self, copies: Sequence[Copied], deed: Deed) -> Removed:
        """Make duplicates of messages that are copies."""

        def work(connection: psycopg.Connection) -> Removed:
            connection.execute(sql_removals.TAKING_AWAY)
            wanted = [own for one in copies for own in (one.copy, one.kept)]
            rows = {row[0]: row for row in connection.execute(sql_removals.LOCK_MESSAGES, [wanted])}
            moved = Removed()
            for one in copies:
                if one.copy in rows and one.kept in rows:
                    moved = moved.plus(self._move(connection, rows.pop(one.copy), one, deed))
            return moved

        return self._transact(work) if copies else Removed()

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        """The first offset, of each log, at these places that is not old."""
        kept: dict[PartitionLog, int] = {}
        for place in places:
            if place.partition_log not in kept:
                ((first,),) = self._fetch(sql_removals.KEEPER, {**_within(place), "since_ms": since_ms})
                kept |= {} if first is None else {place.partition_log: first}
        return kept

    def spans(self, topic: str) -> Sequence[Slice]:
        """Of each log of ``topic`` that has messages: from the first of them up to and including the last."""
        found: list[Slice] = []
        for generation, partition in self._fetch(sql.LINEAGES, {"topic": topic}):
            at = PartitionLog(topic, generation, partition)
            ((start, stop),) = self._fetch(sql_removals.SPAN, at._asdict())
            found += [] if start is None else [Slice(*at, start, stop)]
        return found

    def retract(self, own: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        """Mark these messages as taken back, or undo it; the UUIDs that are in the catalog."""
        return self._transact(
            lambda connection: frozenset(
                one for (one,) in connection.execute(sql_removals.RETRACT, [retracted, list(own)])
            )
        )

    def suppress(self, own: Mapping[uuid.UUID, str], reason: str) -> None:
        """Remember that the content of these messages is to go; what is remembered stays as it is."""
        values = [reason, list(own), list(own.values())]
        self._transact(lambda connection: connection.execute(sql_removals.SUPPRESS, values))

    def suppressed(self, own: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        """Which of these messages have no content any more, or are to have none."""
        return frozenset(one for (one,) in self._fetch(sql_removals.SUPPRESSED, [list(own)]))

    def suppressions(self, own: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        """The suppressions of these UUIDs, or all, in the order in which they were decided."""
        values = {"uuids": None if own is None else list(own)}
        return [Suppression(*row) for row in self._fetch(sql_removals.SUPPRESSIONS, values)]

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], deed: Deed
    ) -> frozenset[uuid.UUID]:
        """Let rows name another object, which is durable; the old one becomes a pending delete.

        Raises:
            ConflictError: The new object is no pending delete any more, or claimed. Nothing was changed.
        """
        if not new:
            return frozenset()
        columns = [list(column) for column in zip(*new, strict=True)]
        names = ("uuids", "keys", "positions", "sizes", "crc32s", "tombstones")
        values = {**dict(zip(names, columns, strict=True)), "bucket": old[0], "key": old[1]}

        def work(connection: psycopg.Connection) -> frozenset[uuid.UUID]:
            connection.execute(sql_removals.TAKING_AWAY)
            changed = connection.execute(sql_removals.REPLACE, values).fetchall()
            for row in changed:
                self._count_bytes(connection, row)
            if changed:
                self._strike_out(connection, old[0], new[0].object_key, deed)
                connection.execute(sql_removals.NOTE_PENDING, _pending_values([old], changed[0][1], deed))
            return frozenset(row[0] for row in changed)

        return self._transact(work)

    def note_pending_deletes(self, objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> None:
        """Note objects (bucket and key) that no row names, and their copies in backups, as pending deletes."""
        values = _pending_values(objects, topic, deed)
        self._transact(lambda connection: connection.execute(sql_removals.NOTE_PENDING, values))

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        """The pending deletes of ``bucket`` that ``command`` noted."""

        def work(connection: psycopg.Connection) -> list[PendingDelete]:
            found = connection.execute(sql_removals.PENDING, [command, bucket, most]).fetchall()
            named = _named(connection, found)
            unnamed = [row[1] for row in found if row[1] not in named]
            connection.execute(sql_removals.CLAIM, [bucket, unnamed])
            return [PendingDelete(row[0], row[1], row[1] in named, row[4]) for row in found]

        return self._transact(work)

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        """Which of these objects are pending deletes, of whichever command."""
        return frozenset(key for (key,) in self._fetch(sql_removals.PENDING_KEYS, [bucket, list(keys)]))

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        """Strike out what is deleted, or named; what was noted again meanwhile stays."""
        columns = [[o.bucket for o in objects], [o.key for o in objects], [o.at for o in objects]]
        self._transact(lambda connection: connection.execute(sql_removals.STRIKE_OUT_DELETED, columns))

    def _strike_out(self, connection: psycopg.Connection, bucket: str, key: str, deed: Deed) -> None:
        places = {bucket, *deed.backups}
        if connection.execute(sql_removals.STRIKE_OUT, [bucket, key, list(places)]).rowcount != len(places):
            raise claimed(key, bucket)

    def _remove(
        self, connection: psycopg.Connection, places: Sequence[Slice], outcome: Gone, deed: Deed
    ) -> Removed:
        """All ledger rows are locked before the first message goes: see ``sql.REFERRING``."""
        locked: list[tuple[_Held, list[Slice]]] = []
        for partition_log, some in groupby(sorted(places), key=lambda place: place.partition_log):
            wanted = list(some)
            locked += [(held, wanted) for held in self._locked(connection, partition_log, wanted)]
        removed = Removed()
        for held, wanted in locked:
            removed = removed.plus(self._split(connection, held, wanted, (outcome, deed)))
        return removed

    def _locked(
        self, connection: psycopg.Connection, partition_log: PartitionLog, places: Sequence[Slice]
    ) -> list[_Held]:
        """The ledger rows of these places, which nobody else changes before this transaction ends.

        A row that somebody merged or split while this waited for it is not there any more, and what took its place was
        not there yet when the statement began: so they are looked for again until all that there are are locked.
        """
        offsets = "{" + ",".join(f"[{place.start},{place.stop})" for place in places) + "}"
        values = {**partition_log._asdict(), "offsets": offsets}
        for _ in range(_MOST_LOCKINGS):
            rows = connection.execute(sql_removals.LOCK_BATCHES, values).fetchall()
            if [(row[0],) for row in rows] == connection.execute(sql_removals.BATCH_IDS, values).fetchall():
                return [_held(partition_log, row) for row in rows]
        raise ConflictError(
            f"{self._server}: others change the ledger of {partition_log.topic} all the time.",
            remedy="Run this again when they are done.",
            topic=partition_log.topic,
        )

    def _split(
        self, connection: psycopg.Connection, held: _Held, places: Sequence[Slice], how: tuple[Gone, Deed]
    ) -> Removed:
        outcome, deed = how
        parts = cut(held.slice, places)
        removed, left = Removed(), held.numbers
        for part in parts.taken:
            values = {**_within(held.slice.within(*part)), **_told(deed)}
            taken = _taken(connection, sql_removals.TAKE, values)._replace(offsets=part.stop - part.start)
            removed, left = removed.plus(taken), left.less(_numbers_of(taken))
        connection.execute(sql_removals.DELETE_BATCH, [held.id])
        for part, numbers in _kept(connection, held, parts, left):
            self._refuse_too_little(held.slice, numbers)
            _add_part(connection, held.slice.within(*part), numbers, ("archived", *held.rest))
        for part in parts.taken:
            rest = (outcome, deed.reason, None, None, deed.run_id, None)
            _add_part(connection, held.slice.within(*part), Numbers(0, 0, 0, 0), rest)
        return removed

    def _move(self, connection: psycopg.Connection, row: Tuple, one: Copied, deed: Deed) -> Removed:
        """Move one message; nothing where no ledger row counts it, which verification tells."""
        own, topic, generation, partition, offset, timestamp_ms, size_bytes, number = row
        place, batch = (0, 0, number), 0
        if generation is not None:
            where = Slice(topic, generation, partition, offset, offset + 1)
            held = self._locked(connection, where.partition_log, [where])
            if not held:
                return Removed()
            place, batch = (generation, partition, offset), held[0].id
            self._change_batch(connection, held[0], copies=1, more_bytes=-size_bytes)
        connection.execute(sql_removals.REFER, {"topic": topic, "copy": own, "kept": one.kept})
        duplicate = (topic, *place, timestamp_ms, one.kept, one.reason, batch)
        connection.execute(sql_removals.ADD_DUPLICATE, duplicate)
        values = {"uuids": [own], "placed": True, **_told(deed)}
        return _taken(connection, sql_removals.TAKE_UUIDS, values)

    def _count_bytes(self, connection: psycopg.Connection, row: Tuple) -> None:
        """Let the summary and the ledger know how much longer a document is."""
        _, topic, generation, partition, offset, more_bytes = row
        if not more_bytes:
            return
        if generation is not None:
            where = Slice(topic, generation, partition, offset, offset + 1)
            for held in self._locked(connection, where.partition_log, [where]):
                self._change_batch(connection, held, copies=0, more_bytes=more_bytes)
        connection.execute(sql_removals.CHANGE_TOPIC_BYTES, [more_bytes, topic])

    def _change_batch(
        self, connection: psycopg.Connection, held: _Held, *, copies: int, more_bytes: int
    ) -> None:
        values = {"id": held.id, "copies": copies, "bytes": more_bytes}
        if connection.execute(sql_removals.CHANGE_BATCH, values).rowcount != 1:
            self._refuse_too_little(held.slice, held.numbers._replace(archived=-copies))

    def _refuse_too_little(self, whole: Slice, left: Numbers) -> None:
        if min(left) < 0:
            raise DataError(
                f"{self._server}: the ledger says less of {whole} than there is.",
                remedy="Nothing was changed. Run hop-archive verify, and mend the ledger first.",
                slice=str(whole),
            )


def claimed(key: str, bucket: str) -> ConflictError:
    """The error of whoever would let rows name an object that somebody is about to delete."""
    return ConflictError(
        f"The object {key} in bucket {bucket} is about to be deleted by another process.",
        remedy="Nothing was changed. Run this again.",
        object_key=key,
        bucket=bucket,
    )


def _named(connection: psycopg.Connection, found: Sequence[Tuple]) -> set[str]:
    """The keys, of pending deletes, that a row names; those are locked, so that none comes to be named now."""
    topics, keys, buckets = ([row[n] for row in found] for n in (3, 1, 2))
    alone = connection.execute(sql_removals.NAMED_ALONE, [topics, keys, buckets])
    named = {key for (key,) in alone}
    for key, bucket in zip(keys, buckets, strict=True):
        if (place := slice_of(key)) is not None:
            values = {**_within(place), "key": key, "bucket": bucket}
            is_named = connection.execute(sql_removals.IS_NAMED_SEGMENT, values).fetchone()
            named |= {key} if is_named and is_named[0] else set()
    return named


def _within(place: Slice) -> dict[str, Any]:
    return {**place.partition_log._asdict(), "start": place.start, "stop": place.stop}


def _told(deed: Deed) -> dict[str, Any]:
    return {
        "command": deed.command,
        "reason": deed.reason,
        "run_id": deed.run_id,
        "backups": list(deed.backups),
    }


def _pending_values(objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> dict[str, Any]:
    buckets, keys = [bucket for bucket, _ in objects], [key for _, key in objects]
    return {"topic": topic, "buckets": buckets, "keys": keys, **_told(deed)}


def _taken(connection: psycopg.Connection, statement: str, values: Mapping[str, Any]) -> Removed:
    ((messages, duplicates, size_bytes),) = connection.execute(statement, values).fetchall()
    return Removed(messages, duplicates, 0, size_bytes)


def _numbers_of(taken: Removed) -> Numbers:
    absent = taken.offsets - taken.messages - taken.duplicates
    return Numbers(taken.messages, taken.duplicates, absent, taken.size_bytes)


def _held(partition_log: PartitionLog, row: Tuple) -> _Held:
    number, start, stop, archived, duplicates, absent, size_bytes, *rest = row
    return _Held(
        number,
        Slice(*partition_log, start, stop),
        Numbers(archived, duplicates, absent, size_bytes),
        tuple(rest),
    )


def _kept(
    connection: psycopg.Connection, held: _Held, parts: Parts, left: Numbers
) -> Iterator[tuple[OffsetRange, Numbers]]:
    """What stays of a ledger row, with its numbers; the last part's are what the others leave."""
    for part in to_count(parts):
        row = connection.execute(sql_removals.COUNT_PART, _within(held.slice.within(*part))).fetchone()
        assert row is not None
        numbers = Numbers(row[0], row[1], part.stop - part.start - row[0] - row[1], row[2])
        left = left.less(numbers)
        yield part, numbers
    for part in parts.kept[-1:]:
        yield part, left


def _add_part(connection: psycopg.Connection, where: Slice, numbers: Numbers, rest: Tuple) -> None:
    outcome, reason, first_ms, last_ms, run_id, created_at = rest
    place = (*where.partition_log, where.start, where.stop)
    values = (*place, outcome, reason, *numbers, first_ms, last_ms, run_id, created_at)
    connection.execute(sql_removals.ADD_PART, values)


def _slices(places: Sequence[Tuple]) -> list[Slice]:
    """Single places, sorted, as slices."""
    return [
        place
        for partition_log, some in groupby(places, key=lambda row: PartitionLog(*row[:3]))
        for place in partition_log.slices(OffsetSet.of((row[3], row[3] + 1) for row in some))
    ]
