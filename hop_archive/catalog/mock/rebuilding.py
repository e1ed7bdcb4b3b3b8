"""What rebuilding asks of the mock catalog: to add what is missing, and leave what is there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from hop_archive.catalog.mock.session import Dealt, MockSession, Tables
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNTOLD, Batch, LedgerEntry, Outcome, Reinstated, Row
from hop_archive.errors import StaleDecisionError
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog


class MockRebuilding(MockSession):
    """The part of the mock catalog that rebuilding needs; see ``Catalog`` for what its methods promise."""

    def reinstate(self, batch: Batch) -> Reinstated:
        """Add what a batch says and the catalog lacks; what is there stays as it is.

        Raises:
            StaleDecisionError: A UUID was catalogued elsewhere meanwhile; nothing was changed.
        """
        with self._state.change() as tables:
            self._refuse_elsewhere(tables, batch)
            partition_log = batch.slice.partition_log
            covered = self._cover(tables, batch)
            archived = {o for part in _archived(tables, partition_log) for o in range(*part)}
            rows, copies = _offsets(tables, partition_log)
            taken = rows | copies
            fitting = [r for r in batch.rows if r.offset is not None and r.offset in archived - taken]
            tables.rows.update((row.uuid, row) for row in fitting)
            rows |= {row.offset for row in fitting if row.offset is not None}
            tables.duplicates.setdefault(partition_log, []).extend(
                d for d in batch.duplicates if d.offset in archived and d.offset not in rows | copies
            )
            met = tables.collisions.setdefault(partition_log, [])
            known = {collision.offset for collision in met}
            met.extend(c for c in batch.collisions if c.offset not in known)
            for part in covered:
                _count(tables, partition_log, part.start)
            refused = tuple(r for r in batch.rows if r.uuid not in tables.rows)
            return Reinstated(len(fitting), sum(part.stop - part.start for part in covered), refused)

    def adopt(self, rows: Iterable[Row]) -> int:
        """Add rows as another archiver left them in a catalog that was adopted: no ledger row accounts for them.

        Args:
            rows: Without generation, partition, offset, timestamp type and digest.
        """
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
        """Set the numbers of the topic's archived ledger rows to those of their rows; it keeps no summary."""
        wrong = 0
        with self._state.change() as tables:
            for partition_log in [one for one in tables.ledger if one.topic == topic]:
                for dealt in list(tables.ledger[partition_log]):
                    if dealt.entry.outcome is Outcome.ARCHIVED:
                        wrong += _count(tables, partition_log, dealt.entry.slice.start)
        return wrong

    def claim_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> bool:
        """Say of a rebuilt generation, if it is the newest, which topic it is of, on which cluster."""
        with self._state.change() as tables:
            so_far = tables.generations.get(topic, [])
            if not so_far or (so_far[-1].number, so_far[-1].cluster_id) != (number, UNKNOWN_CLUSTER):
                return False
            so_far[-1] = replace(so_far[-1], cluster_id=cluster_id, topic_id=topic_id, reason=reason)
            for partition_log in [one for one in tables.ledger if one[:2] == (topic, number)]:
                tables.ledger[partition_log] = [
                    d for d in tables.ledger[partition_log] if not _is_untold(d.entry)
                ]
            return True

    def _refuse_elsewhere(self, tables: Tables, batch: Batch) -> None:
        elsewhere = [
            str(row.uuid)
            for row in batch.rows
            if (there := tables.rows.get(row.uuid)) is not None and there[:4] != row[:4]
        ]
        if elsewhere:
            raise StaleDecisionError(
                f"database {self._name!r}: messages of {batch.slice} have rows elsewhere: {', '.join(elsewhere[:10])}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=elsewhere[:10],
            )

    def _cover(self, tables: Tables, batch: Batch) -> OffsetSet:
        """Put the offsets of the slice into the ledger that are not in it, or are called lost there."""
        wanted = batch.slice
        kept: list[Dealt] = []
        for dealt in tables.ledger.get(wanted.partition_log, ()):
            entry = dealt.entry
            if (entry.outcome is Outcome.LOST or _is_untold(entry)) and entry.slice.offsets & wanted.offsets:
                left = entry.slice.offsets - wanted.offsets
                parts = [replace(entry, slice=wanted.within(*part)) for part in left]
                kept += [replace(dealt, entry=part) for part in parts]
            else:
                kept.append(dealt)
        there = OffsetSet.of((d.entry.slice.start, d.entry.slice.stop) for d in kept)
        covered = wanted.offsets - there
        now = self._clock()
        for part in covered:
            new = wanted.within(*part)
            kept.append(
                Dealt(
                    LedgerEntry(new, Outcome.ARCHIVED, "", 0, 0, len(new), 0, batch.run_id, now), None, None
                )
            )
        if kept:
            tables.ledger[wanted.partition_log] = kept
        return covered


def _is_untold(entry: LedgerEntry) -> bool:
    return (entry.outcome, entry.reason) == (Outcome.SKIPPED, UNTOLD)


def _archived(tables: Tables, partition_log: PartitionLog) -> OffsetSet:
    entries = (dealt.entry for dealt in tables.ledger.get(partition_log, ()))
    found = [(e.slice.start, e.slice.stop) for e in entries if e.outcome is Outcome.ARCHIVED]
    return OffsetSet.of(found) if found else EMPTY


def _offsets(tables: Tables, partition_log: PartitionLog) -> tuple[set[int], set[int]]:
    """The offsets of rows and of duplicates."""
    rows = set(tables.offsets(partition_log.topic).get(partition_log, ()))
    return rows, {d.offset for d in tables.duplicates.get(partition_log, ())}


def _count(tables: Tables, partition_log: PartitionLog, start: int) -> bool:
    """Set the numbers of the ledger row that begins at ``start``; whether they were wrong."""
    ledger = tables.ledger[partition_log]
    (at,) = (n for n, dealt in enumerate(ledger) if dealt.entry.slice.start == start)
    entry = ledger[at].entry
    rows = [
        row
        for row in tables.rows.values()
        if row[:3] == tuple(partition_log)
        and row.offset is not None
        and entry.slice.start <= row.offset < entry.slice.stop
    ]
    copies = sum(
        entry.slice.start <= d.offset < entry.slice.stop for d in tables.duplicates.get(partition_log, ())
    )
    size_bytes = sum(row.size_bytes for row in rows)
    absent = len(entry.slice) - len(rows) - copies
    counted = replace(entry, archived=len(rows), duplicates=copies, absent=absent, size_bytes=size_bytes)
    times = [row.timestamp_ms for row in rows]
    ledger[at] = Dealt(counted, min(times, default=None), max(times, default=None))
    return (entry.archived, entry.duplicates) != (len(rows), copies)
