"""Mending in a mock."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import replace

from hop_archive.catalog.mock.session import MockSession, Tables
from hop_archive.catalog.records import Batch, Correction, Duplicate, LedgerEntry, Outcome, Row
from hop_archive.catalog.rules import refuse_to_hide, stale
from hop_archive.errors import SliceTakenError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class MockRepairs(MockSession):
    """The part of a mock catalog that is corrected."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        with self._state.change() as tables:
            if any(tables.rows.get(c.was.uuid) != c.was for c in corrections):
                raise stale("rows", "not all of them stand as they were seen")
            corrected = {c.was.uuid for c in corrections}
            left = {found: row for found, row in tables.rows.items() if found not in corrected}
            _refuse_twice(left, [c.now for c in corrections])
            for correction in corrections:
                del tables.rows[correction.was.uuid]
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
            _add(tables, batch)

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        where = Slice(*at, copy.offset, copy.offset + 1)
        with self._state.change() as tables:
            for index, dealt in enumerate(tables.ledger.get(at, [])):
                entry = dealt.entry
                if copy.offset not in entry.slice.offsets or entry.outcome is not Outcome.ARCHIVED:
                    continue
                if entry.absent == 0 or tables.rows_in(where) or tables.copies_in(where):
                    break
                more = replace(entry, duplicates=entry.duplicates + 1, absent=entry.absent - 1)
                tables.ledger[at][index] = replace(dealt, entry=more)
                _add(tables, Batch(where, duplicates=[copy]))
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
            _add(tables, batch)
            entry = LedgerEntry(where, Outcome.ARCHIVED, "", 0, 0, 0, 0, batch.run_id, self._clock())
            tables.ledger.setdefault(where.partition_log, []).append(tables.counted(entry))

    def recount_ledger(self, where: Slice) -> None:
        with self._state.change() as tables:
            ledger = tables.ledger.get(where.partition_log, [])
            found = [dealt for dealt in ledger if dealt.entry.slice == where]
            if not found:
                raise stale(str(where), "no ledger row is of just this slice")
            entry, there = found[0].entry, tables.numbers(where)
            standing = there.archived + there.duplicates - len(_self_copies(tables, where))
            refuse_to_hide(where, entry.outcome, entry.archived + entry.duplicates, standing)
            _drop_self_copies(tables, where)
            ledger[ledger.index(found[0])] = tables.counted(entry)

    def recount_summary(self, topic: str) -> None:
        """Nothing: a mock keeps no summary that could be wrong."""

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        with self._state.read() as tables:
            copies = tables.copies_in(place)
        return sorted(copies, key=lambda copy: copy.offset)[:limit]


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


def _add(tables: Tables, batch: Batch) -> None:
    tables.rows.update((row.uuid, row) for row in batch.rows)
    if batch.duplicates:
        tables.duplicates.setdefault(batch.slice.partition_log, []).extend(batch.duplicates)
    if batch.collisions:
        tables.collisions.setdefault(batch.slice.partition_log, []).extend(batch.collisions)
