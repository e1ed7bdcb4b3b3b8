"""Mending in a mock."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from hop_archive.catalog.mock.session import Dealt, MockSession, Tables
from hop_archive.catalog.records import Batch, Correction, Duplicate, LedgerEntry, Outcome, Row
from hop_archive.errors import DataError, SliceTakenError, StaleDecisionError
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice


class MockRepairs(MockSession):
    """The part of a mock catalog that is corrected."""

    def correct_rows(self, corrections: Sequence[Correction]) -> None:
        """Put rows in the place of rows, all or none; see ``Catalog.correct_rows``."""
        with self._state.change() as tables:
            if any(tables.rows.get(one.was.uuid) != one.was for one in corrections):
                raise _stale("rows", "not all of them stand as they were seen")
            left = {
                own: row for own, row in tables.rows.items() if own not in {c.was.uuid for c in corrections}
            }
            _refuse_twice(left, [one.now for one in corrections])
            for one in corrections:
                del tables.rows[one.was.uuid]
            tables.rows.update((one.now.uuid, one.now) for one in corrections)

    def put_back(self, batch: Batch) -> None:
        """Add rows and duplicates that the ledger counts; see ``Catalog.put_back``."""
        with self._state.change() as tables:
            entries = [e for e in _overlapping(tables, batch.slice) if e.outcome is Outcome.ARCHIVED]
            covered = OffsetSet.of((e.slice.start, e.slice.stop) for e in entries)
            if not all(offset in covered for offset in batch.offsets):
                raise _stale(str(batch.slice), "the ledger does not cover all of it as archived")
            _refuse_twice(tables.rows, batch.rows)
            for entry in entries:
                rows, copies = _standing(tables, entry.slice)
                more = [row for row in batch.rows if row.offset in _range(entry.slice)]
                again = [one for one in batch.duplicates if one.offset in _range(entry.slice)]
                if len(rows) + len(more) > entry.archived or len(copies) + len(again) > entry.duplicates:
                    raise _stale(str(batch.slice), "the ledger counts no more than is there")
            _add(tables, batch)

    def record_copy(self, at: PartitionLog, copy: Duplicate) -> None:
        """Record a copy where the ledger says that nothing is; see ``Catalog.record_copy``."""
        where = Slice(*at, copy.offset, copy.offset + 1)
        with self._state.change() as tables:
            ledger = tables.ledger.get(at, [])
            for index, dealt in enumerate(ledger):
                entry = dealt.entry
                if copy.offset not in _range(entry.slice) or entry.outcome is not Outcome.ARCHIVED:
                    continue
                if entry.absent == 0 or any(_standing(tables, where)):
                    break
                more = replace(entry, duplicates=entry.duplicates + 1, absent=entry.absent - 1)
                ledger[index] = replace(dealt, entry=more)
                _add(tables, Batch(where, duplicates=[copy]))
                return
        raise _stale(str(where), "the ledger does not call it absent, or something stands there")

    def account(self, batch: Batch) -> None:
        """Cover a slice by what stands there, and by what is added; see ``Catalog.account``."""
        where = batch.slice
        with self._state.change() as tables:
            if _overlapping(tables, where):
                raise SliceTakenError(f"{where} is in the ledger by now.", remedy="Nothing was changed.")
            _refuse_twice(tables.rows, batch.rows)
            rows, copies = _standing(tables, where, without_self_copies=True)
            absent = len(where) - len(rows) - len(copies) - len(batch.rows) - len(batch.duplicates)
            if absent < 0:
                raise _stale(str(where), "an offset of it stands there twice")
            _drop_self_copies(tables, where)
            _add(tables, batch)
            counts = (len(rows) + len(batch.rows), len(copies) + len(batch.duplicates), absent)
            size_bytes = sum(row.size_bytes for row in rows) + batch.size_bytes
            entry = LedgerEntry(where, Outcome.ARCHIVED, "", *counts, size_bytes, batch.run_id, self._clock())
            times = [row.timestamp_ms for row in (*rows, *batch.rows)]
            dealt = Dealt(entry, min(times, default=None), max(times, default=None))
            tables.ledger.setdefault(where.partition_log, []).append(dealt)

    def recount_ledger(self, where: Slice) -> None:
        """Make a ledger row say what the rows are; see ``Catalog.recount_ledger``."""
        with self._state.change() as tables:
            found = [
                dealt for dealt in tables.ledger.get(where.partition_log, ()) if dealt.entry.slice == where
            ]
            if not found:
                raise _stale(str(where), "no ledger row is of just this slice")
            entry = found[0].entry
            rows, copies = _standing(tables, where, without_self_copies=True)
            _refuse_to_hide(entry, len(rows) + len(copies))
            _drop_self_copies(tables, where)
            counted = replace(
                entry,
                archived=len(rows),
                duplicates=len(copies),
                absent=len(where) - len(rows) - len(copies),
                size_bytes=sum(row.size_bytes for row in rows),
            )
            ledger = tables.ledger[where.partition_log]
            ledger[ledger.index(found[0])] = replace(found[0], entry=counted)

    def recount_summary(self, topic: str) -> None:
        """Nothing: a mock keeps no summary that could be wrong."""

    def duplicates_in(self, place: Slice, limit: int) -> Sequence[Duplicate]:
        """The first ``limit`` of the recorded duplicates in a slice, by offset."""
        with self._state.read() as tables:
            _, copies = _standing(tables, place)
        return sorted(copies, key=lambda one: one.offset)[:limit]


def _stale(about: str, why: str) -> StaleDecisionError:
    return StaleDecisionError(f"{about}: {why}.", remedy="Nothing was changed. Look again.", about=about)


def _place(row: Row) -> tuple[object, ...] | None:
    return None if row.offset is None else (row.topic, row.generation, row.partition, row.offset)


def _refuse_twice(there: dict[uuid.UUID, Row], new: Sequence[Row]) -> None:
    places = {_place(row) for row in there.values()} - {None}
    own, stand = [row.uuid for row in new], [at for row in new if (at := _place(row)) is not None]
    if len({*own}) < len(own) or len({*stand}) < len(stand) or there.keys() & {*own} or places & {*stand}:
        raise _stale("rows", "a UUID or an offset of them has a row already")


def _range(where: Slice) -> range:
    return range(where.start, where.stop)


def _overlapping(tables: Tables, where: Slice) -> list[LedgerEntry]:
    entries = [dealt.entry for dealt in tables.ledger.get(where.partition_log, ())]
    return [e for e in entries if e.slice.start < where.stop and where.start < e.slice.stop]


def _standing(
    tables: Tables, where: Slice, *, without_self_copies: bool = False
) -> tuple[list[Row], list[Duplicate]]:
    rows = [
        row
        for row in tables.rows.values()
        if (row.topic, row.generation, row.partition) == where.partition_log and row.offset in _range(where)
    ]
    themselves = {(row.offset, row.uuid) for row in rows} if without_self_copies else set()
    copies = [
        one
        for one in tables.duplicates.get(where.partition_log, ())
        if one.offset in _range(where) and (one.offset, one.uuid) not in themselves
    ]
    return rows, copies


def _drop_self_copies(tables: Tables, where: Slice) -> None:
    _, kept = _standing(tables, where, without_self_copies=True)
    others = [
        one for one in tables.duplicates.get(where.partition_log, ()) if one.offset not in _range(where)
    ]
    if where.partition_log in tables.duplicates:
        tables.duplicates[where.partition_log] = [*others, *kept]


def _add(tables: Tables, batch: Batch) -> None:
    tables.rows.update((row.uuid, row) for row in batch.rows)
    if batch.duplicates:
        tables.duplicates.setdefault(batch.slice.partition_log, []).extend(batch.duplicates)
    if batch.collisions:
        tables.collisions.setdefault(batch.slice.partition_log, []).extend(batch.collisions)


def _refuse_to_hide(entry: LedgerEntry, found: int) -> None:
    if entry.outcome is not Outcome.ARCHIVED:
        raise DataError(
            f"{entry.slice} is recorded as {entry.outcome.value}, and {found} messages stand there."
        )
    if found < entry.archived + entry.duplicates:
        raise DataError(f"{entry.slice}: messages that the ledger counts are not there.")
    if found > len(entry.slice):
        raise DataError(f"{entry.slice}: an offset of it stands there twice.")
