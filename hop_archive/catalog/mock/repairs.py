"""Mending in a mock, and rebuilding: what is missing is added, and what is there stays."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from hop_archive.catalog.ledger import refuse_to_hide
from hop_archive.catalog.mock.session import MockSession, Tables, is_untold
from hop_archive.catalog.records import Batch, Correction, Duplicate, LedgerEntry, Outcome, Reinstated, Row
from hop_archive.catalog.refusals import about_to_be_deleted, decided_too_early, stale
from hop_archive.errors import SliceTakenError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class MockRepairs(MockSession):
    """The part of a mock catalog that is corrected, or rebuilt."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        with self._state.change() as tables:
            if any(tables.rows.get(c.was.uuid) != c.was for c in corrections):
                raise stale("rows", "not all of them stand as they were seen")
            for was, now in corrections:
                place = (now.bucket, now.object_key)
                if place != (was.bucket, was.object_key) and place in tables.condemned:
                    raise about_to_be_deleted(now.object_key, now.bucket)
            corrected = {c.was.uuid for c in corrections}
            left = {found: row for found, row in tables.rows.items() if found not in corrected}
            _refuse_twice(left, [c.now for c in corrections])
            for correction in corrections:
                del tables.rows[correction.was.uuid]
                if correction.now.uuid != correction.was.uuid:
                    tables.texts.pop(correction.was.uuid, None)
            tables.rows.update((c.now.uuid, c.now) for c in corrections)

    def put_back(self, batch: Batch) -> None:
        where = batch.slice
        with self._state.change() as tables:
            entries = [e for e in tables.entries_in(where) if e.outcome is Outcome.ARCHIVED]
            covered = OffsetSet.of((e.slice.start, e.slice.stop) for e in entries)
            if not all(offset in covered for offset in batch.offsets):
                raise stale(str(where), "the ledger does not cover all of it as archived")
            _refuse_twice(tables.rows, batch.rows)
            for entry in entries:
                there = tables.numbers(entry.slice)
                rows = there.archived + sum(row.stands_in(entry.slice) for row in batch.rows)
                copies = there.duplicates + sum(d.offset in entry.slice.offsets for d in batch.duplicates)
                if rows > entry.archived or copies > entry.duplicates:
                    raise stale(str(where), "the ledger counts no more than is there")
            tables.add(batch)

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        where = Slice(*at, copy.offset, copy.offset + 1)
        with self._state.change() as tables:
            for entry in tables.entries_in(where):
                free = entry.absent and not tables.rows_in(where) and not tables.copies_in(where)
                if free and entry.outcome is Outcome.ARCHIVED:
                    more = replace(entry, duplicates=entry.duplicates + 1, absent=entry.absent - 1)
                    tables.put(more, instead_of=entry)
                    tables.add(Batch(where, duplicates=[copy]))
                    return
        raise stale(str(where), "the ledger does not call it absent, or something stands there")

    def account(self, batch: Batch) -> None:
        where = batch.slice
        with self._state.change() as tables:
            if tables.entries_in(where):
                raise SliceTakenError(f"{where} is in the ledger by now.", remedy="Nothing was changed.")
            _refuse_twice(tables.rows, batch.rows)
            there, repeated = tables.numbers(where), len(_self_copies(tables, where))
            absent = there.absent + repeated - len(batch.rows) - len(batch.duplicates)
            if absent < 0:
                raise stale(str(where), "an offset of it stands there twice")
            _drop_self_copies(tables, where)
            tables.add(batch)
            entry = LedgerEntry(where, Outcome.ARCHIVED, "", 0, 0, 0, 0, batch.run_id, self._clock())
            tables.put(tables.counted(entry))

    def recount_ledger(self, where: Slice) -> None:
        with self._state.change() as tables:
            found = [entry for entry in tables.entries_in(where) if entry.slice == where]
            if not found:
                raise stale(str(where), "no ledger row is of just this slice")
            entry, there = found[0], tables.numbers(where)
            standing = there.archived + there.duplicates - len(_self_copies(tables, where))
            refuse_to_hide(where, entry.outcome, entry.archived + entry.duplicates, standing)
            _drop_self_copies(tables, where)
            tables.put(tables.counted(entry), instead_of=entry)

    def recount_summary(self, topic: str) -> None:
        """Nothing: a mock keeps no summary that could be wrong."""

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        with self._state.read() as tables:
            copies = tables.copies_in(place)
        return sorted(copies, key=lambda copy: copy.offset)[:limit]

    def reinstate(self, batch: Batch) -> Reinstated:
        at = batch.slice.partition_log
        with self._state.change() as tables:
            elsewhere = [
                row.uuid
                for row in batch.rows
                if (there := tables.rows.get(row.uuid)) is not None and there[:4] != row[:4]
            ]
            if elsewhere:
                what = f"messages of {batch.slice} have rows elsewhere"
                raise decided_too_early(self._named, batch.slice, what, elsewhere)
            covered = self._cover(tables, batch)
            archived = tables.covered(at, Outcome.ARCHIVED)
            rows = set(tables.offsets(at.topic).get(at, ()))
            copies = {d.offset for d in tables.duplicates.get(at, ())}
            added = [
                row
                for row in batch.rows
                if row.offset is not None and row.offset in archived and row.offset not in rows | copies
            ]
            tables.rows.update((row.uuid, row) for row in added)
            taken = copies | rows | {row.offset for row in added}
            tables.duplicates.setdefault(at, []).extend(
                d._replace(digest=None)
                for d in batch.duplicates
                if d.offset in archived and d.offset not in taken
            )
            met = tables.collisions.setdefault(at, [])
            known = {collision.offset for collision in met}
            met.extend(c for c in batch.collisions if c.offset not in known)
            starts = {part.start for part in covered}
            ledger = tables.ledger.get(at, [])
            ledger[:] = [tables.counted(e) if e.slice.start in starts else e for e in ledger]
            refused = tuple(r for r in batch.rows if r.uuid not in tables.rows)
            return Reinstated(len(added), covered.size, refused)

    def adopt(self, rows: Iterable[Row]) -> int:
        added = 0
        with self._state.change() as tables:
            for row in rows:
                if row.uuid in tables.rows:
                    continue
                tables.rows[row.uuid] = row
                key = (row.topic, row.timestamp_ms, row.message_crc32)
                tables.adopted.setdefault(key, []).append(row.uuid)
                added += 1
        return added

    def recount(self, topic: str) -> int:
        """It keeps no summary."""
        wrong = 0
        with self._state.change() as tables:
            for entry in list(tables.entries([topic])):
                if entry.outcome is Outcome.ARCHIVED:
                    counted = tables.counted(entry)
                    wrong += (entry.archived, entry.duplicates) != (counted.archived, counted.duplicates)
                    tables.put(counted, instead_of=entry)
        return wrong

    def _cover(self, tables: Tables, batch: Batch) -> OffsetSet:
        """Put the offsets of the slice into the ledger that are not in it, or are called lost there."""
        where, at = batch.slice, batch.slice.partition_log
        kept: list[LedgerEntry] = []
        for entry in tables.ledger.get(at, ()):
            if entry.outcome is Outcome.LOST or is_untold(entry):
                left = at.slices(entry.slice.offsets - where.offsets)
                kept += [replace(entry, slice=part) for part in left]
            else:
                kept.append(entry)
        covered = where.offsets - OffsetSet.of((e.slice.start, e.slice.stop) for e in kept)
        for new in at.slices(covered):
            counts = (0, 0, len(new), 0)
            kept.append(LedgerEntry(new, Outcome.ARCHIVED, "", *counts, batch.run_id, self._clock()))
        if kept:
            tables.ledger[at] = kept
        return covered


def _refuse_twice(there: Mapping[uuid.UUID, Row], new: Sequence[Row]) -> None:
    taken = {row[:4] for row in there.values() if row.offset is not None}
    uuids, places = [row.uuid for row in new], [row[:4] for row in new if row.offset is not None]
    twice = len({*uuids}) < len(uuids) or len({*places}) < len(places)
    if twice or there.keys() & {*uuids} or taken & {*places}:
        raise stale("rows", "a UUID or an offset of them has a row already")


def _self_copies(tables: Tables, where: Slice) -> list[Duplicate]:
    """The duplicates that repeat the row at their own offset."""
    rows = {(row.offset, row.uuid) for row in tables.rows_in(where)}
    return [copy for copy in tables.copies_in(where) if (copy.offset, copy.uuid) in rows]


def _drop_self_copies(tables: Tables, where: Slice) -> None:
    dropped = _self_copies(tables, where)
    if dropped:
        copies = tables.duplicates[where.partition_log]
        copies[:] = [copy for copy in copies if copy not in dropped]
