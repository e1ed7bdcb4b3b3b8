"""What rebuilding asks of a mock catalog: to add what is missing, and leave what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hop_archive.catalog.mock.session import Dealt, MockSession, Tables, is_untold
from hop_archive.catalog.records import Batch, LedgerEntry, Outcome, Reinstated, Row
from hop_archive.errors import StaleDecisionError
from hop_archive.model.slices import OffsetSet, PartitionLog


class MockRebuilding(MockSession):
    """The part of a mock catalog that is rebuilt."""

    def reinstate(self, batch: Batch) -> Reinstated:
        at = batch.slice.partition_log
        with self._state.change() as tables:
            elsewhere = [
                str(row.uuid)
                for row in batch.rows
                if (there := tables.rows.get(row.uuid)) is not None and there[:4] != row[:4]
            ]
            if elsewhere:
                raise StaleDecisionError(
                    f"{self._named}: messages of {batch.slice} have rows elsewhere: {', '.join(elsewhere[:10])}.",
                    remedy="Nothing was changed. Ask again which messages are known.",
                    slice=str(batch.slice),
                    uuids=elsewhere[:10],
                )
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
                d for d in batch.duplicates if d.offset in archived and d.offset not in taken
            )
            met = tables.collisions.setdefault(at, [])
            known = {collision.offset for collision in met}
            met.extend(c for c in batch.collisions if c.offset not in known)
            for part in covered:
                _recount(tables, at, part.start)
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
        with self._state.change() as tables:
            entries = [d.entry for d in tables.entries([topic]) if d.entry.outcome is Outcome.ARCHIVED]
            return sum(_recount(tables, e.slice.partition_log, e.slice.start) for e in entries)

    def _cover(self, tables: Tables, batch: Batch) -> OffsetSet:
        """Put the offsets of the slice into the ledger that are not in it, or are called lost there."""
        where, at = batch.slice, batch.slice.partition_log
        kept: list[Dealt] = []
        for dealt in tables.ledger.get(at, ()):
            entry = dealt.entry
            if (entry.outcome is Outcome.LOST or is_untold(entry)) and entry.slice.offsets & where.offsets:
                left = entry.slice.offsets - where.offsets
                kept += [replace(dealt, entry=replace(entry, slice=where.within(*part))) for part in left]
            else:
                kept.append(dealt)
        covered = where.offsets - OffsetSet.of((d.entry.slice.start, d.entry.slice.stop) for d in kept)
        now = self._clock()
        for part in covered:
            new = where.within(*part)
            entry = LedgerEntry(new, Outcome.ARCHIVED, "", 0, 0, len(new), 0, batch.run_id, now)
            kept.append(Dealt(entry, None, None))
        if kept:
            tables.ledger[at] = kept
        return covered


def _recount(tables: Tables, at: PartitionLog, start: int) -> bool:
    """Set the numbers of the ledger row that begins at ``start``; whether they were wrong."""
    ledger = tables.ledger[at]
    (index,) = (n for n, dealt in enumerate(ledger) if dealt.entry.slice.start == start)
    before = ledger[index].entry
    ledger[index] = tables.counted(before)
    after = ledger[index].entry
    return (before.archived, before.duplicates) != (after.archived, after.duplicates)
