"""What every part of the mock catalog stands on: its tables, in memory or in a directory."""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, TypeAlias

from hop_archive.catalog.checked import CheckedRange, VerifiedRange
from hop_archive.catalog.compaction import Compacted
from hop_archive.catalog.ledger import Numbers
from hop_archive.catalog.records import (
    UNTOLD,
    Batch,
    Claim,
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Outcome,
    Restore,
    Row,
    Snapshot,
    Suppression,
    TextEntry,
)
from hop_archive.model.findings import FindingRecord
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks
from hop_archive.shared_state import Pairs, SharedState

AdoptedKey: TypeAlias = tuple[str, int, int]
"""Topic, timestamp and CRC-32 of the value: what a row without a digest is known by."""


@dataclass(frozen=True, slots=True)
class Pending:
    """What is remembered of a pending delete, by bucket and key."""

    recorded_bucket: str
    command: str
    at: datetime.datetime
    claimed: bool = False
    due: datetime.datetime | None = None
    reason: str = ""


@dataclass(slots=True)
class Tables:
    """All that a catalog holds."""

    generations: dict[str, list[Generation]] = field(default_factory=dict)
    observed: Annotated[dict[PartitionLog, Watermarks], Pairs()] = field(default_factory=dict)
    ledger: Annotated[dict[PartitionLog, list[LedgerEntry]], Pairs()] = field(default_factory=dict)
    rows: dict[uuid.UUID, Row] = field(default_factory=dict)
    adopted: Annotated[dict[AdoptedKey, list[uuid.UUID]], Pairs()] = field(default_factory=dict)
    duplicates: Annotated[dict[PartitionLog, list[Duplicate]], Pairs()] = field(default_factory=dict)
    collisions: Annotated[dict[PartitionLog, list[Collision]], Pairs()] = field(default_factory=dict)
    restores: list[Restore] = field(default_factory=list)
    snapshots: Annotated[dict[tuple[str, str, str], Snapshot], Pairs()] = field(default_factory=dict)
    condemned: Annotated[dict[tuple[str, str], Pending], Pairs()] = field(default_factory=dict)
    suppressions: dict[uuid.UUID, Suppression] = field(default_factory=dict)
    findings: list[FindingRecord] = field(default_factory=list)
    verified: list[VerifiedRange] = field(default_factory=list)
    checked: list[CheckedRange] = field(default_factory=list)
    texts: dict[uuid.UUID, TextEntry] = field(default_factory=dict)
    row_numbers: dict[uuid.UUID, int] = field(default_factory=dict)
    last_row_number: int = 0
    row_progress: dict[str, int] = field(default_factory=dict)
    archivers: dict[str, datetime.datetime] = field(default_factory=dict)
    claims: list[Claim] = field(default_factory=list)
    compacted: Annotated[dict[PartitionLog, Compacted], Pairs()] = field(default_factory=dict)

    def topics(self) -> set[str]:
        """The topics of which there is anything."""
        with_rows = {row.topic for row in self.rows.values()}
        return {*with_rows, *(at.topic for at in self.ledger), *self.generations}

    def entries(self, topics: Collection[str] | None) -> Iterator[LedgerEntry]:
        """The ledger rows of ``topics``, or of all, in order of their slices."""
        for at in sorted(self.ledger):
            if topics is None or at.topic in topics:
                yield from sorted(self.ledger[at], key=lambda entry: entry.slice)

    def entries_in(self, where: Slice) -> list[LedgerEntry]:
        """The ledger rows that overlap a slice."""
        entries = self.ledger.get(where.partition_log, ())
        return [e for e in entries if e.slice.start < where.stop and where.start < e.slice.stop]

    def covered(self, at: PartitionLog, outcome: Outcome | None = None) -> OffsetSet:
        """The offsets of a log that the ledger has, or has with this outcome."""
        entries = self.ledger.get(at, ())
        return OffsetSet.of((e.slice.start, e.slice.stop) for e in entries if outcome in (None, e.outcome))

    def put(self, entry: LedgerEntry, instead_of: LedgerEntry | None = None) -> None:
        """Let a ledger row stand there, in the place of another one or as a new one."""
        ledger = self.ledger.setdefault(entry.slice.partition_log, [])
        if instead_of is None:
            ledger.append(entry)
        else:
            ledger[ledger.index(instead_of)] = entry

    def add(self, batch: Batch) -> None:
        """Add the rows, duplicates and collisions of a batch."""
        at = batch.slice.partition_log
        self.rows.update((row.uuid, row) for row in batch.rows)
        self.duplicates.setdefault(at, []).extend(copy._replace(digest=None) for copy in batch.duplicates)
        self.collisions.setdefault(at, []).extend(batch.collisions)

    def rows_of(self, topics: Collection[str] | None) -> list[Row]:
        """The rows of ``topics``, or all."""
        return [row for row in self.rows.values() if topics is None or row.topic in topics]

    def offsets(self, topic: str) -> dict[PartitionLog, list[int]]:
        """The offsets of a topic's rows, by log."""
        found: dict[PartitionLog, list[int]] = {}
        for row in self.rows.values():
            if row.topic == topic and row.offset is not None:
                found.setdefault(log_of(row), []).append(row.offset)
        return found

    def rows_in(self, where: Slice) -> list[Row]:
        """The rows of the offsets of a slice."""
        return [row for row in self.rows.values() if row.stands_in(where)]

    def copies_in(self, where: Slice) -> list[Duplicate]:
        """The recorded duplicates of the offsets of a slice."""
        copies = self.duplicates.get(where.partition_log, ())
        return [copy for copy in copies if where.start <= copy.offset < where.stop]

    def numbers(self, where: Slice) -> Numbers:
        """What stands at the offsets of a slice."""
        rows, copies = self.rows_in(where), self.copies_in(where)
        absent = len(where) - len(rows) - len(copies)
        return Numbers(len(rows), len(copies), absent, sum(row.size_bytes for row in rows))

    def counted(self, entry: LedgerEntry) -> LedgerEntry:
        """A ledger row with the numbers of the rows that it counts."""
        times = [row.timestamp_ms for row in self.rows_in(entry.slice)]
        first, last = min(times, default=None), max(times, default=None)
        numbers = self.numbers(entry.slice)._asdict()
        return replace(entry, **numbers, first_timestamp_ms=first, last_timestamp_ms=last)


class MockSession:
    """The tables and a clock; the parts of the mock catalog inherit from this. ``MockCatalog`` describes its arguments."""

    def __init__(
        self,
        name: str = "mock-db",
        directory: Path | None = None,
        *,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._name = name
        self._named = f"database {name!r}"
        self._clock = clock
        self._directory = directory
        self._held: dict[str, threading.Lock] = {}
        self._state: SharedState[Tables] = SharedState(Tables, directory, "catalog")

    @property
    def name(self) -> str:
        return self._name


def log_of(row: Row) -> PartitionLog:
    """The log in which a row that has a place stands."""
    assert row.generation is not None
    assert row.partition is not None
    return PartitionLog(row.topic, row.generation, row.partition)


def is_untold(entry: LedgerEntry) -> bool:
    """Whether it is of offsets of which a rebuild found no document."""
    return (entry.outcome, entry.reason) == (Outcome.SKIPPED, UNTOLD)
