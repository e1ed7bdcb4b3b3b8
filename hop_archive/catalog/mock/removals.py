"""The part of the mock catalog that gives messages up."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.mock.session import Dealt, MockSession, Pending, Tables, log_of
from hop_archive.catalog.records import (
    Candidate,
    Copied,
    Deed,
    Duplicate,
    LedgerEntry,
    Outcome,
    PendingDelete,
    RemovalExtent,
    RemovalOutcome,
    Removed,
    Replaced,
    Row,
    Suppression,
)
from hop_archive.catalog.rules import Numbers, about_to_be_deleted, cut, refuse_too_little, to_count
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class MockRemovals(MockSession):
    """The part of a mock catalog that takes rows away, moves or marks them."""

    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        with self._state.read() as tables:
            return _extent(row for row in tables.rows.values() if any(row.stands_in(p) for p in places))

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        with self._state.read() as tables:
            return _extent(_adopted(tables, topic, before_ms))

    def remove(self, places: Sequence[Slice], outcome: RemovalOutcome, deed: Deed) -> Removed:
        with self._state.change() as tables:
            return self._remove(tables, places, outcome, deed)

    def remove_adopted(
        self, topic: str, deed: Deed, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        with self._state.change() as tables:
            rows = sorted(_adopted(tables, topic, before_ms), key=lambda row: row.timestamp_ms)[:most]
            return self._take(tables, rows, deed)

    def remove_messages(
        self, message_uuids: Collection[uuid.UUID], outcome: RemovalOutcome, deed: Deed
    ) -> Removed:
        with self._state.change() as tables:
            rows = [tables.rows[found] for found in message_uuids if found in tables.rows]
            found = {(log_of(row), row.offset) for row in rows if row.offset is not None}
            for at, copies in tables.duplicates.items():
                found |= {(at, copy.offset) for copy in copies if copy.uuid in message_uuids}
            slices = [
                place
                for at, some in groupby(sorted(found), key=lambda pair: pair[0])
                for place in at.slices(OffsetSet.of((offset, offset + 1) for _, offset in some))
            ]
            removed = self._remove(tables, slices, outcome, deed)
            adopted = [row for row in rows if row.offset is None]
            return removed.plus(self._take(tables, adopted, deed))

    def likely_copies(self, topic: str) -> Iterator[Candidate]:
        by_digest: dict[str, list[Row]] = {}
        by_content: dict[str, list[Row]] = {}
        with self._state.read() as tables:
            for row in tables.rows.values():
                if row.topic == topic:
                    by_content.setdefault(f"{row.timestamp_ms}/{row.message_crc32}", []).append(row)
                    if row.digest is not None:
                        by_digest.setdefault(row.digest.hex(), []).append(row)
        alike = {name: some for name, some in by_digest.items() if name and len(some) > 1}
        alike |= {name: some for name, some in sorted(by_content.items()) if _may_be_copies(some)}
        for name, some in alike.items():
            times = Counter(row.timestamp_ms for row in some)
            for row in some:
                yield Candidate(name, row.uuid, row.timestamp_ms, times[row.timestamp_ms] > 1)

    def move_to_duplicates(self, copies: Sequence[Copied], deed: Deed) -> Removed:
        moved = Removed()
        with self._state.change() as tables:
            for copied in copies:
                row = tables.rows.get(copied.copy)
                if row is None or copied.kept not in tables.rows:
                    continue
                if row.offset is not None:
                    if not _recount(tables, row, copies=1, more_bytes=-row.size_bytes):
                        continue
                    duplicate = Duplicate(row.offset, row.timestamp_ms, copied.kept, copied.reason)
                    tables.duplicates.setdefault(log_of(row), []).append(duplicate)
                for some in tables.duplicates.values():
                    some[:] = [d._replace(uuid=copied.kept) if d.uuid == copied.copy else d for d in some]
                moved = moved.plus(self._take(tables, [row], deed))
        return moved

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        with self._state.read() as tables:
            rows = list(tables.rows.values())
            copies = [(at, copy) for at, some in tables.duplicates.items() for copy in some]
        young = {copy.uuid for _, copy in copies if not 0 <= copy.timestamp_ms < since_ms}
        kept = [
            (log_of(row), row.offset)
            for row in rows
            if row.offset is not None and (not 0 <= row.timestamp_ms < since_ms or row.uuid in young)
        ]
        kept += [(at, copy.offset) for at, copy in copies if not 0 <= copy.timestamp_ms < since_ms]
        found: dict[PartitionLog, int] = {}
        for at, offset in kept:
            if any(p.partition_log == at and p.start <= offset < p.stop for p in places):
                found[at] = min(offset, found.get(at, offset))
        return found

    def retract(self, message_uuids: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        with self._state.change() as tables:
            found = frozenset(message_uuids).intersection(tables.rows)
            for message_uuid in found:
                tables.rows[message_uuid] = tables.rows[message_uuid]._replace(retracted=retracted)
            return found

    def suppress(self, topics: Mapping[uuid.UUID, str], reason: str) -> None:
        with self._state.change() as tables:
            for message_uuid, topic in topics.items():
                new = Suppression(message_uuid, topic, reason, self._clock())
                tables.suppressions.setdefault(message_uuid, new)

    def suppressed(self, message_uuids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        with self._state.read() as tables:
            return frozenset(message_uuids).intersection(tables.suppressions)

    def suppressions(self, message_uuids: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        with self._state.read() as tables:
            every = list(tables.suppressions.values())
        found = [entry for entry in every if message_uuids is None or entry.uuid in message_uuids]
        return sorted(found, key=lambda entry: (entry.at, entry.uuid))

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], deed: Deed
    ) -> frozenset[uuid.UUID]:
        changed: list[Row] = []
        with self._state.change() as tables:
            pairs = [(tables.rows[n.uuid], n) for n in new if n.uuid in tables.rows]
            pairs = [(row, n) for row, n in pairs if (row.bucket, row.object_key) == old]
            places = {(where, n.object_key) for _, n in pairs for where in (old[0], *deed.backups)}
            for bucket, key in places:
                pending = tables.condemned.get((bucket, key))
                if pending is None or pending.claimed:
                    raise about_to_be_deleted(key, bucket)
            for place in places:
                del tables.condemned[place]
            for row, n in pairs:
                changed.append(row)
                tables.rows[n.uuid] = _replaced(row, n)
                _recount(tables, row, more_bytes=n.size_bytes - row.size_bytes)
            self._note_pending(tables, [old] if changed else [], deed)
        return frozenset(row.uuid for row in changed)

    def note_pending_deletes(self, objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> None:
        with self._state.change() as tables:
            self._note_pending(tables, objects, deed)

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        with self._state.change() as tables:
            named = {(row.bucket, row.object_key) for row in tables.rows.values()}
            found = [
                PendingDelete(where, key, (pending.recorded_bucket, key) in named, pending.at)
                for (where, key), pending in sorted(tables.condemned.items())
                if pending.command == command and where == bucket
            ][:most]
            for delete in found:
                pending = tables.condemned[bucket, delete.key]
                tables.condemned[bucket, delete.key] = replace(pending, claimed=not delete.is_named)
        return found

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        with self._state.read() as tables:
            return frozenset(key for key in keys if (bucket, key) in tables.condemned)

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        with self._state.change() as tables:
            for delete in objects:
                pending = tables.condemned.get((delete.bucket, delete.key))
                if pending is not None and pending.at == delete.at:
                    del tables.condemned[delete.bucket, delete.key]

    def _remove(
        self, tables: Tables, places: Sequence[Slice], outcome: RemovalOutcome, deed: Deed
    ) -> Removed:
        """Refuse first, then change: what was changed before an error would stay."""
        held = [
            dealt
            for at in sorted({place.partition_log for place in places})
            for dealt in tables.ledger.get(at, ())
            if dealt.entry.outcome is Outcome.ARCHIVED and cut(dealt.entry.slice, places).taken
        ]
        kept = [self._kept(tables, dealt, places) for dealt in held]
        removed = Removed()
        for dealt, parts in zip(held, kept, strict=True):
            whole = dealt.entry.slice
            gone: list[Dealt] = []
            for part in cut(whole, places).taken:
                where = whole.within(*part)
                copies = tables.copies_in(where)
                some = tables.duplicates.get(whole.partition_log, [])
                some[:] = [copy for copy in some if copy not in copies]
                took = self._take(tables, tables.rows_in(where), deed)
                removed = removed.plus(took._replace(duplicates=len(copies), offsets=len(where)))
                entry = LedgerEntry(
                    where, Outcome(outcome), deed.reason, 0, 0, 0, 0, deed.run_id, self._clock()
                )
                gone.append(Dealt(entry, None, None))
            ledger = tables.ledger[whole.partition_log]
            ledger[:] = [other for other in ledger if other is not dealt] + parts + gone
        return removed

    def _kept(self, tables: Tables, dealt: Dealt, places: Sequence[Slice]) -> list[Dealt]:
        """What stays of a ledger row, with its numbers; the last part's are what the others leave.

        Raises:
            DataError: The ledger says less than there is.
        """
        entry = dealt.entry
        parts = cut(entry.slice, places)
        left = Numbers(entry.archived, entry.duplicates, entry.absent, entry.size_bytes)
        for part in parts.taken:
            left = left.less(tables.numbers(entry.slice.within(*part)))
        kept: list[tuple[Slice, Numbers]] = []
        for part in to_count(parts):
            where = entry.slice.within(*part)
            kept.append((where, tables.numbers(where)))
            left = left.less(kept[-1][1])
        kept += [(entry.slice.within(*part), left) for part in parts.kept[-1:]]
        for _, numbers in kept:
            refuse_too_little(self._named, entry.slice, numbers)
        return [replace(dealt, entry=replace(entry, slice=w, **n._asdict())) for w, n in kept]

    def _take(self, tables: Tables, rows: Sequence[Row], deed: Deed) -> Removed:
        for row in rows:
            del tables.rows[row.uuid]
            for some in tables.adopted.values():
                some[:] = [message_uuid for message_uuid in some if message_uuid != row.uuid]
        for key in [key for key, some in tables.adopted.items() if not some]:
            del tables.adopted[key]
        self._note_pending(tables, {(row.bucket, row.object_key) for row in rows}, deed)
        return Removed(len(rows), 0, 0, sum(row.size_bytes for row in rows))

    def _note_pending(self, tables: Tables, objects: Iterable[tuple[str, str]], deed: Deed) -> None:
        for bucket, key in objects:
            for where in (bucket, *deed.backups):
                was = tables.condemned.get((where, key))
                claimed = was is not None and was.claimed
                tables.condemned[where, key] = Pending(bucket, deed.command, self._clock(), claimed)


def _extent(rows: Iterable[Row]) -> RemovalExtent:
    found = list(rows)
    buckets = frozenset(row.bucket for row in found)
    return RemovalExtent(len(found), sum(row.size_bytes for row in found), buckets)


def _adopted(tables: Tables, topic: str, before_ms: int | None) -> list[Row]:
    return [
        row
        for row in tables.rows.values()
        if row.topic == topic
        and row.generation is None
        and (before_ms is None or 0 <= row.timestamp_ms < before_ms)
    ]


def _may_be_copies(rows: Sequence[Row]) -> bool:
    """Whether two of the rows, of which one has no digest, may be the same message."""
    return any(
        row is not other and row.digest is None and not (row.is_client_uuid and other.is_client_uuid)
        for row in rows
        for other in rows
    )


def _replaced(row: Row, new: Replaced) -> Row:
    notes = row.annotations
    if new.is_tombstone:
        notes = notes._replace(title="", sender="", file_name="", originator="")
    return row._replace(
        object_key=new.object_key,
        position=new.position,
        size_bytes=new.size_bytes,
        crc32=new.crc32,
        annotations=notes,
    )


def _recount(tables: Tables, row: Row, copies: int = 0, more_bytes: int = 0) -> bool:
    """Change the numbers of the ledger row that counts this message; False where there is none."""
    if row.offset is None:
        return False
    ledger = tables.ledger.get(log_of(row), [])
    for number, dealt in enumerate(ledger):
        entry = dealt.entry
        if row.offset in entry.slice.offsets and entry.outcome is Outcome.ARCHIVED:
            changed = replace(
                entry,
                archived=entry.archived - copies,
                duplicates=entry.duplicates + copies,
                size_bytes=entry.size_bytes + more_bytes,
            )
            ledger[number] = replace(dealt, entry=changed)
            return True
    return False
