"""The part of the mock catalog that gives messages up."""

from __future__ import annotations

import datetime
import uuid
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.ledger import Numbers, cut, share
from hop_archive.catalog.mock.session import MockSession, Pending, Tables, log_of
from hop_archive.catalog.records import (
    Candidate,
    CopyOf,
    Duplicate,
    LedgerEntry,
    Outcome,
    PendingDelete,
    Removal,
    RemovalExtent,
    RemovalOutcome,
    Removed,
    Replaced,
    Row,
    Suppression,
)
from hop_archive.catalog.refusals import about_to_be_deleted
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class MockRemovals(MockSession):
    """The part of a mock catalog that takes rows away, moves or marks them."""

    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        with self._state.read() as tables:
            return _extent(row for row in tables.rows.values() if any(row.stands_in(p) for p in places))

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        with self._state.read() as tables:
            return _extent(_adopted(tables, topic, before_ms))

    def remove(self, places: Sequence[Slice], outcome: RemovalOutcome, removal: Removal) -> Removed:
        with self._state.change() as tables:
            return self._remove(tables, places, outcome, removal)

    def remove_adopted(
        self, topic: str, removal: Removal, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        with self._state.change() as tables:
            rows = sorted(_adopted(tables, topic, before_ms), key=lambda row: row.timestamp_ms)[:most]
            return self._take(tables, rows, removal)

    def remove_messages(
        self, message_uuids: Collection[uuid.UUID], outcome: RemovalOutcome, removal: Removal
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
            removed = self._remove(tables, slices, outcome, removal)
            adopted = [row for row in rows if row.offset is None]
            return removed.plus(self._take(tables, adopted, removal))

    def likely_copies(self, topic: str, *, by_digest: bool = True) -> Iterator[Candidate]:
        of_digest: dict[str, list[Row]] = {}
        by_content: dict[str, list[Row]] = {}
        with self._state.read() as tables:
            met = {
                found
                for at, some in tables.collisions.items()
                for collision in some
                for found in (collision.client_uuid, collision.archived_as)
                if at.topic == topic
            }
            for row in tables.rows.values():
                if row.topic == topic:
                    by_content.setdefault(f"{row.timestamp_ms}/{row.message_crc32}", []).append(row)
                    if row.digest is not None and (by_digest or row.uuid in met):
                        of_digest.setdefault(row.digest.hex(), []).append(row)
        alike = {name: some for name, some in of_digest.items() if name and len(some) > 1}
        # Two of them, of which one has no digest, may be the same message.
        alike |= {
            name: some
            for name, some in sorted(by_content.items())
            if any(
                row is not other and row.digest is None and not (row.is_client_uuid and other.is_client_uuid)
                for row in some
                for other in some
            )
        }
        for name, some in alike.items():
            times = Counter(row.timestamp_ms for row in some)
            for row in some:
                yield Candidate(name, row.uuid, row.timestamp_ms, times[row.timestamp_ms] > 1)

    def move_to_duplicates(self, copies: Sequence[CopyOf], removal: Removal) -> Removed:
        moved = Removed()
        with self._state.change() as tables:
            for pair in copies:
                row = tables.rows.get(pair.copy)
                if row is None or pair.kept not in tables.rows:
                    continue
                if row.offset is not None:
                    if not _recount(tables, row, copies=1, more_bytes=-row.size_bytes):
                        continue
                    duplicate = Duplicate(row.offset, row.timestamp_ms, pair.kept, pair.reason)
                    tables.duplicates.setdefault(log_of(row), []).append(duplicate)
                for some in tables.duplicates.values():
                    some[:] = [d._replace(uuid=pair.kept) if d.uuid == pair.copy else d for d in some]
                moved = moved.plus(self._take(tables, [row], removal))
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

    def referred_to(self, topic: str, kept_from: Mapping[PartitionLog, int]) -> Mapping[PartitionLog, int]:
        found: dict[PartitionLog, int] = {}
        with self._state.read() as tables:
            for at, start in kept_from.items():
                for copy in tables.duplicates.get(at, ()):
                    row = tables.rows.get(copy.uuid)
                    if (
                        copy.offset >= start
                        and row is not None
                        and row.offset is not None
                        and row.topic == topic
                    ):
                        found[log_of(row)] = min(row.offset, found.get(log_of(row), row.offset))
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
                tables.texts.pop(message_uuid, None)

    def suppressed(self, message_uuids: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        with self._state.read() as tables:
            return frozenset(message_uuids).intersection(tables.suppressions)

    def suppressions(self, message_uuids: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        with self._state.read() as tables:
            every = list(tables.suppressions.values())
        found = [entry for entry in every if message_uuids is None or entry.uuid in message_uuids]
        return sorted(found, key=lambda entry: (entry.at, entry.uuid))

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], removal: Removal
    ) -> frozenset[uuid.UUID]:
        changed: list[Row] = []
        with self._state.change() as tables:
            pairs = [(tables.rows[n.uuid], n) for n in new if n.uuid in tables.rows]
            pairs = [(row, n) for row, n in pairs if (row.bucket, row.object_key) == old]
            for key in {n.object_key for _, n in pairs}:
                strike_out_made(tables, old[0], key, removal)
            for row, n in pairs:
                changed.append(row)
                notes = row.annotations
                if n.is_tombstone:
                    notes = notes._replace(title="", sender="", file_name="", originator="")
                tables.rows[n.uuid] = row._replace(
                    object_key=n.object_key,
                    position=n.position,
                    size_bytes=n.size_bytes,
                    crc32=n.crc32,
                    frame=n.frame,
                    frame_size=n.frame_size,
                    annotations=notes,
                )
                _recount(tables, row, more_bytes=n.size_bytes - row.size_bytes)
            self.note_pending(tables, [old] if changed else [], removal)
        return frozenset(row.uuid for row in changed)

    def note_pending_deletes(
        self, objects: Collection[tuple[str, str]], topic: str, removal: Removal
    ) -> None:
        with self._state.change() as tables:
            self.note_pending(tables, objects, removal)

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        with self._state.change() as tables:
            named = {(row.bucket, row.object_key) for row in tables.rows.values()}
            now = self._clock()
            due = sorted(
                (pending.due is not None, pending.due or now, key)
                for (where, key), pending in tables.condemned.items()
                if pending.command == command
                and where == bucket
                and (pending.due is None or pending.due <= now)
            )
            found = []
            for key in sorted(key for _, _, key in due[:most]):
                pending = tables.condemned[bucket, key]
                is_named = (pending.recorded_bucket, key) in named
                tables.condemned[bucket, key] = replace(pending, claimed=not is_named)
                found.append(PendingDelete(bucket, key, is_named, pending.at))
        return found

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        with self._state.read() as tables:
            return frozenset(key for key in keys if (bucket, key) in tables.condemned)

    def waiting_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        since = self._clock() - datetime.timedelta(days=2)
        with self._state.read() as tables:
            found = ((key, tables.condemned.get((bucket, key))) for key in keys)
            return frozenset(key for key, pending in found if pending and pending.due and pending.due > since)

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        with self._state.change() as tables:
            for delete in objects:
                pending = tables.condemned.get((delete.bucket, delete.key))
                if pending is not None and pending.at == delete.at:
                    del tables.condemned[delete.bucket, delete.key]

    def _remove(
        self, tables: Tables, places: Sequence[Slice], outcome: RemovalOutcome, removal: Removal
    ) -> Removed:
        """Refuse first, then change: what was changed before an error would stay."""
        splits: list[tuple[LedgerEntry, list[Slice], list[tuple[Slice, Numbers]]]] = []
        for at in sorted({place.partition_log for place in places}):
            for entry in tables.ledger.get(at, ()):
                taken, kept = cut(entry.slice, places)
                if taken and entry.outcome is Outcome.ARCHIVED:
                    left = Numbers(entry.archived, entry.duplicates, entry.absent, entry.size_bytes)
                    for where in taken:
                        left = left.less(tables.numbers(where))
                    shares = share(self._named, entry.slice, kept, left, tables.numbers)
                    splits.append((entry, taken, shares))
        removed = Removed()
        for entry, taken, shares in splits:
            ledger = tables.ledger[entry.slice.partition_log]
            ledger.remove(entry)
            ledger += [replace(entry, slice=where, **numbers._asdict()) for where, numbers in shares]
            for where in taken:
                copies = tables.copies_in(where)
                some = tables.duplicates.get(where.partition_log, [])
                some[:] = [copy for copy in some if copy not in copies]
                took = self._take(tables, tables.rows_in(where), removal)
                removed = removed.plus(took._replace(duplicates=len(copies), offsets=len(where)))
                rest = (0, 0, 0, 0, removal.run_id, self._clock())
                ledger.append(LedgerEntry(where, Outcome(outcome), removal.reason, *rest))
        return removed

    def _take(self, tables: Tables, rows: Sequence[Row], removal: Removal) -> Removed:
        for row in rows:
            del tables.rows[row.uuid]
            tables.texts.pop(row.uuid, None)
            for some in tables.adopted.values():
                some[:] = [message_uuid for message_uuid in some if message_uuid != row.uuid]
        for key in [key for key, some in tables.adopted.items() if not some]:
            del tables.adopted[key]
        self.note_pending(tables, {(row.bucket, row.object_key) for row in rows}, removal)
        return Removed(len(rows), 0, 0, sum(row.size_bytes for row in rows))

    def note_pending(self, tables: Tables, objects: Iterable[tuple[str, str]], removal: Removal) -> None:
        """Note objects and their copies in backups as pending deletes."""
        now = self._clock()
        due = now + datetime.timedelta(seconds=removal.grace_s) if removal.grace_s else None
        for bucket, key in objects:
            for where in (bucket, *removal.backups):
                was = tables.condemned.get((where, key))
                claimed = was is not None and was.claimed
                tables.condemned[where, key] = Pending(
                    bucket, removal.command, now, claimed, due, removal.reason
                )


def strike_out_made(tables: Tables, bucket: str, key: str, removal: Removal) -> None:
    """Strike out an object that rows come to name, or refuse where somebody is about to delete it."""
    places = {(where, key) for where in (bucket, *removal.backups)}
    for place in places:
        pending = tables.condemned.get(place)
        if pending is None or pending.claimed:
            raise about_to_be_deleted(key, place[0])
    for place in places:
        del tables.condemned[place]


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


def _recount(tables: Tables, row: Row, copies: int = 0, more_bytes: int = 0) -> bool:
    """Change the numbers of the ledger row that counts this message; False where there is none."""
    if row.offset is None:
        return False
    for entry in tables.entries_in(Slice(*log_of(row), row.offset, row.offset + 1)):
        if entry.outcome is Outcome.ARCHIVED:
            changed = replace(
                entry,
                archived=entry.archived - copies,
                duplicates=entry.duplicates + copies,
                size_bytes=entry.size_bytes + more_bytes,
            )
            tables.put(changed, instead_of=entry)
            return True
    return False
