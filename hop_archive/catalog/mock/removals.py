"""The part of the mock catalog that gives messages up."""

from __future__ import annotations

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.mock.select import stands_in
from hop_archive.catalog.mock.session import Dealt, MockSession, Pending, Tables
from hop_archive.catalog.records import (
    Candidate,
    Copied,
    Deed,
    Duplicate,
    Gone,
    LedgerEntry,
    Outcome,
    PendingDelete,
    RemovalExtent,
    Removed,
    Replaced,
    Row,
    Suppression,
)
from hop_archive.catalog.rules import Numbers, Parts, cut, to_count
from hop_archive.errors import ConflictError, DataError
from hop_archive.model.slices import OffsetRange, OffsetSet, PartitionLog, Slice


class MockRemovals(MockSession):
    """Takes rows away, moves or marks them; see ``Catalog`` for what each call promises."""

    def extent(self, places: Sequence[Slice]) -> RemovalExtent:
        """How many messages stand at these places."""
        with self._state.read() as tables:
            return _extent(row for row in tables.rows.values() if any(stands_in(row, p) for p in places))

    def adopted_extent(self, topic: str, before_ms: int | None = None) -> RemovalExtent:
        """How many adopted rows ``topic`` has."""
        with self._state.read() as tables:
            return _extent(_adopted(tables, topic, before_ms))

    def remove(self, places: Sequence[Slice], outcome: Gone, deed: Deed) -> Removed:
        """Take messages and duplicates away at these places, and say so in the ledger; their objects become pending deletes."""
        with self._state.change() as tables:
            return self._remove(tables, places, outcome, deed)

    def remove_adopted(
        self, topic: str, deed: Deed, *, before_ms: int | None = None, most: int = 1_000
    ) -> Removed:
        """Take away adopted rows of ``topic``, the oldest first; their objects become pending deletes."""
        with self._state.change() as tables:
            rows = sorted(_adopted(tables, topic, before_ms), key=lambda row: row.timestamp_ms)[:most]
            return self._take(tables, rows, deed)

    def remove_messages(self, own: Collection[uuid.UUID], outcome: Gone, deed: Deed) -> Removed:
        """Take these messages away, adopted or not, with the duplicates that refer to them."""
        with self._state.change() as tables:
            rows = [tables.rows[one] for one in own if one in tables.rows]
            found = {(_lineage(row), row.offset) for row in rows if row.offset is not None}
            found |= {(at, d.offset) for at, some in tables.duplicates.items() for d in some if d.uuid in own}
            removed = self._remove(tables, _slices(found), outcome, deed)
            adopted = [row for row in rows if row.offset is None]
            return removed.plus(self._take(tables, adopted, deed))

    def likely_copies(self, topic: str) -> Iterator[Candidate]:
        """Messages of ``topic`` that may be copies of one another: by group, in each the oldest first."""
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if row.topic == topic]
        by_digest = _groups(rows, lambda row: row.digest.hex() if row.digest is not None else "")
        by_content = _groups(rows, lambda row: f"{row.timestamp_ms}/{row.message_crc32}")
        alike = {name: some for name, some in by_digest.items() if name and len(some) > 1}
        alike |= {name: some for name, some in sorted(by_content.items()) if _may_be_copies(some)}
        for name, some in alike.items():
            times = Counter(row.timestamp_ms for row in some)
            for row in some:
                yield Candidate(name, row.uuid, row.timestamp_ms, times[row.timestamp_ms] > 1)

    def move_to_duplicates(self, copies: Sequence[Copied], deed: Deed) -> Removed:
        """Make duplicates of messages that are copies."""
        moved = Removed()
        with self._state.change() as tables:
            for one in copies:
                row, kept = tables.rows.get(one.copy), tables.rows.get(one.kept)
                if row is not None and kept is not None:
                    moved = moved.plus(self._move(tables, row, one, deed))
        return moved

    def keepers(self, places: Sequence[Slice], since_ms: int) -> Mapping[PartitionLog, int]:
        """The first offset, of each log, at these places that is not old."""
        with self._state.read() as tables:
            rows = list(tables.rows.values())
            copies = [(at, one) for at, some in tables.duplicates.items() for one in some]
        young = {one.uuid for _, one in copies if not 0 <= one.timestamp_ms < since_ms}
        kept = [
            (_lineage(row), row.offset)
            for row in rows
            if row.offset is not None and (not 0 <= row.timestamp_ms < since_ms or row.uuid in young)
        ]
        kept += [(at, one.offset) for at, one in copies if not 0 <= one.timestamp_ms < since_ms]
        found: dict[PartitionLog, int] = {}
        for at, offset in kept:
            if any(p.partition_log == at and p.start <= offset < p.stop for p in places):
                found[at] = min(offset, found.get(at, offset))
        return found

    def spans(self, topic: str) -> Sequence[Slice]:
        """Of each log of ``topic`` that has messages: from the first of them up to and including the last."""
        with self._state.read() as tables:
            found = tables.offsets(topic)
        return [Slice(*at, min(offsets), max(offsets) + 1) for at, offsets in sorted(found.items())]

    def retract(self, own: Collection[uuid.UUID], *, retracted: bool) -> frozenset[uuid.UUID]:
        """Mark these messages as taken back, or undo it; the UUIDs that are in the catalog."""
        with self._state.change() as tables:
            found = frozenset(one for one in own if one in tables.rows)
            for one in found:
                tables.rows[one] = tables.rows[one]._replace(retracted=retracted)
            return found

    def suppress(self, own: Mapping[uuid.UUID, str], reason: str) -> None:
        """Remember that the content of these messages is to go; what is remembered stays as it is."""
        with self._state.change() as tables:
            for one, topic in own.items():
                tables.suppressions.setdefault(one, Suppression(one, topic, reason, self._clock()))

    def suppressed(self, own: Collection[uuid.UUID]) -> frozenset[uuid.UUID]:
        """Which of these messages have no content any more, or are to have none."""
        with self._state.read() as tables:
            return frozenset(one for one in own if one in tables.suppressions)

    def suppressions(self, own: Collection[uuid.UUID] | None = None) -> Sequence[Suppression]:
        """The suppressions of these UUIDs, or all, in the order in which they were decided."""
        with self._state.read() as tables:
            found = [one for one in tables.suppressions.values() if own is None or one.uuid in own]
        return sorted(found, key=lambda one: (one.at, one.uuid))

    def replace_documents(
        self, old: tuple[str, str], new: Sequence[Replaced], deed: Deed
    ) -> frozenset[uuid.UUID]:
        """Let rows name another object, which is durable; the old one becomes a pending delete."""
        changed: list[Row] = []
        with self._state.change() as tables:
            told = [(tables.rows[one.uuid], one) for one in new if one.uuid in tables.rows]
            told = [(row, one) for row, one in told if (row.bucket, row.object_key) == old]
            places = (old[0], *deed.backups)
            _strike_out(tables, {(where, one.object_key) for _, one in told for where in places})
            for row, one in told:
                changed.append(row)
                tables.rows[one.uuid] = _replaced(row, one)
                _recount(tables, row, more_bytes=one.size_bytes - row.size_bytes)
            self._note_pending(tables, [old] if changed else [], deed)
        return frozenset(row.uuid for row in changed)

    def note_pending_deletes(self, objects: Collection[tuple[str, str]], topic: str, deed: Deed) -> None:
        """Note objects (bucket and key) that no row names, and their copies in backups, as pending deletes."""
        with self._state.change() as tables:
            self._note_pending(tables, objects, deed)

    def pending_deletes(self, command: str, bucket: str, most: int = 1_000) -> Sequence[PendingDelete]:
        """The pending deletes of ``bucket`` that ``command`` noted."""
        with self._state.change() as tables:
            named = {(row.bucket, row.object_key) for row in tables.rows.values()}
            found = [
                PendingDelete(where, key, (pending.recorded_bucket, key) in named, pending.at)
                for (where, key), pending in sorted(tables.condemned.items())
                if pending.command == command and where == bucket
            ][:most]
            for one in found:
                pending = tables.condemned[one.bucket, one.key]
                tables.condemned[one.bucket, one.key] = replace(pending, claimed=not one.is_named)
        return found

    def pending_keys(self, bucket: str, keys: Collection[str]) -> frozenset[str]:
        """Which of these objects are pending deletes, of whichever command."""
        with self._state.read() as tables:
            return frozenset(key for key in keys if (bucket, key) in tables.condemned)

    def strike_out(self, objects: Sequence[PendingDelete]) -> None:
        """Strike out what is deleted, or named; what was noted again meanwhile stays."""
        with self._state.change() as tables:
            for one in objects:
                pending = tables.condemned.get((one.bucket, one.key))
                if pending is not None and pending.at == one.at:
                    del tables.condemned[one.bucket, one.key]

    def _remove(self, tables: Tables, places: Sequence[Slice], outcome: Gone, deed: Deed) -> Removed:
        """Refuse first, then change: what was changed before an error would stay."""
        partition_logs = {place.partition_log for place in places}
        held = [
            dealt
            for at in sorted(partition_logs)
            for dealt in tables.ledger.get(at, ())
            if dealt.entry.outcome is Outcome.ARCHIVED and cut(dealt.entry.slice, places).taken
        ]
        parts = [_split(tables, dealt, cut(dealt.entry.slice, places)) for dealt in held]
        removed = Removed()
        for dealt, kept in zip(held, parts, strict=True):
            taken = cut(dealt.entry.slice, places).taken
            removed = removed.plus(self._take_parts(tables, dealt.entry.slice, taken, deed))
            gone = [self._gone(dealt.entry.slice.within(*part), outcome, deed) for part in taken]
            ledger = tables.ledger[dealt.entry.slice.partition_log]
            ledger[:] = [other for other in ledger if other is not dealt] + kept + gone
        return removed

    def _gone(self, where: Slice, outcome: Gone, deed: Deed) -> Dealt:
        entry = LedgerEntry(where, Outcome(outcome), deed.reason, 0, 0, 0, 0, deed.run_id, self._clock())
        return Dealt(entry, None, None)

    def _take_parts(self, tables: Tables, whole: Slice, taken: Iterable[OffsetRange], deed: Deed) -> Removed:
        removed = Removed()
        copies = tables.duplicates.get(whole.partition_log, [])
        for part in taken:
            rows = [row for row in tables.rows.values() if stands_in(row, whole.within(*part))]
            gone = [one for one in copies if part.start <= one.offset < part.stop]
            copies[:] = [one for one in copies if one not in gone]
            took = self._take(tables, rows, deed)
            removed = removed.plus(took._replace(duplicates=len(gone), offsets=part.stop - part.start))
        return removed

    def _take(self, tables: Tables, rows: Sequence[Row], deed: Deed) -> Removed:
        for row in rows:
            del tables.rows[row.uuid]
            for some in tables.adopted.values():
                some[:] = [one for one in some if one != row.uuid]
        for key in [key for key, some in tables.adopted.items() if not some]:
            del tables.adopted[key]
        self._note_pending(tables, {(row.bucket, row.object_key) for row in rows}, deed)
        return Removed(len(rows), 0, 0, sum(row.size_bytes for row in rows))

    def _note_pending(self, tables: Tables, objects: Iterable[tuple[str, str]], deed: Deed) -> None:
        for bucket, key in objects:
            for where in (bucket, *deed.backups):
                was = tables.condemned.get((where, key))
                pending = Pending(
                    bucket, deed.command, self._clock(), claimed=was is not None and was.claimed
                )
                tables.condemned[where, key] = pending

    def _move(self, tables: Tables, row: Row, one: Copied, deed: Deed) -> Removed:
        if row.offset is not None:
            if not _recount(tables, row, copies=1, more_bytes=-row.size_bytes):
                return Removed()
            duplicate = Duplicate(row.offset, row.timestamp_ms, one.kept, one.reason)
            tables.duplicates.setdefault(_lineage(row), []).append(duplicate)
        for some in tables.duplicates.values():
            some[:] = [d._replace(uuid=one.kept) if d.uuid == one.copy else d for d in some]
        return self._take(tables, [row], deed)


def _strike_out(tables: Tables, places: Collection[tuple[str, str]]) -> None:
    for bucket, key in places:
        pending = tables.condemned.get((bucket, key))
        if pending is None or pending.claimed:
            raise ConflictError(
                f"The object {key} in bucket {bucket} is about to be deleted by another process.",
                remedy="Nothing was changed. Run this again.",
                object_key=key,
                bucket=bucket,
            )
    for place in places:
        del tables.condemned[place]


def _lineage(row: Row) -> PartitionLog:
    assert row.generation is not None
    assert row.partition is not None
    return PartitionLog(row.topic, row.generation, row.partition)


def _extent(rows: Iterable[Row]) -> RemovalExtent:
    found = list(rows)
    return RemovalExtent(
        len(found), sum(row.size_bytes for row in found), frozenset(row.bucket for row in found)
    )


def _adopted(tables: Tables, topic: str, before_ms: int | None) -> list[Row]:
    return [
        row
        for row in tables.rows.values()
        if row.topic == topic
        and row.generation is None
        and (before_ms is None or 0 <= row.timestamp_ms < before_ms)
    ]


def _slices(places: Collection[tuple[PartitionLog, int]]) -> list[Slice]:
    return [
        place
        for partition_log, some in groupby(sorted(places), key=lambda pair: pair[0])
        for place in partition_log.slices(OffsetSet.of((offset, offset + 1) for _, offset in some))
    ]


def _groups(rows: Iterable[Row], name: Callable[[Row], str]) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(name(row), []).append(row)
    return found


def _may_be_copies(rows: Sequence[Row]) -> bool:
    """Whether two of the rows, of which one has no digest, may be the same message."""
    return any(
        one is not other and one.digest is None and not (one.is_client_uuid and other.is_client_uuid)
        for one in rows
        for other in rows
    )


def _split(tables: Tables, dealt: Dealt, parts: Parts) -> list[Dealt]:
    """What stays of a ledger row, with its numbers; the last part's are what the others leave.

    Raises:
        DataError: The ledger says less than there is.
    """
    entry = dealt.entry
    left = Numbers(entry.archived, entry.duplicates, entry.absent, entry.size_bytes)
    for part in parts.taken:
        left = left.less(_numbers(tables, entry.slice.within(*part)))
    kept: list[tuple[OffsetRange, Numbers]] = []
    for part in to_count(parts):
        kept.append((part, _numbers(tables, entry.slice.within(*part))))
        left = left.less(kept[-1][1])
    kept += [(part, left) for part in parts.kept[-1:]]
    for _, numbers in kept:
        if min(numbers) < 0:
            raise DataError(
                f"The ledger says less of {entry.slice} than there is.",
                remedy="Nothing was changed. Run hop-archive verify, and mend the ledger first.",
                slice=str(entry.slice),
            )
    return [replace(dealt, entry=_with(entry, part, numbers)) for part, numbers in kept]


def _numbers(tables: Tables, where: Slice) -> Numbers:
    rows = [row for row in tables.rows.values() if stands_in(row, where)]
    copies = [
        d for d in tables.duplicates.get(where.partition_log, ()) if where.start <= d.offset < where.stop
    ]
    absent = len(where) - len(rows) - len(copies)
    return Numbers(len(rows), len(copies), absent, sum(row.size_bytes for row in rows))


def _with(entry: LedgerEntry, part: OffsetRange, numbers: Numbers) -> LedgerEntry:
    return replace(
        entry,
        slice=entry.slice.within(*part),
        archived=numbers.archived,
        duplicates=numbers.duplicates,
        absent=numbers.absent,
        size_bytes=numbers.size_bytes,
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
    ledger = tables.ledger.get(_lineage(row), [])
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
