"""What every part of the mock catalog stands on: its tables, in memory or in a directory."""

from __future__ import annotations

import datetime
import threading
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, TypeAlias

from hop_archive.catalog.records import (
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Restore,
    Row,
    Snapshot,
    Suppression,
    VerifiedRange,
)
from hop_archive.model.findings import FindingRecord
from hop_archive.model.slices import PartitionLog
from hop_archive.model.watermarks import Watermarks
from hop_archive.shared_state import Pairs, SharedState

AdoptedKey: TypeAlias = tuple[str, int, int]
"""Topic, timestamp and CRC-32 of the value: what a row without a digest is known by."""


@dataclass(frozen=True, slots=True)
class Dealt:
    """A ledger row, with the times that only summaries show."""

    entry: LedgerEntry
    first_timestamp_ms: int | None
    last_timestamp_ms: int | None


@dataclass(frozen=True, slots=True)
class Pending:
    """What is remembered of a pending delete, by bucket and key."""

    recorded_bucket: str
    command: str
    at: datetime.datetime
    claimed: bool = False


@dataclass(slots=True)
class Tables:
    """All that a catalog holds."""

    generations: dict[str, list[Generation]] = field(default_factory=dict)
    observed: Annotated[dict[PartitionLog, Watermarks], Pairs()] = field(default_factory=dict)
    ledger: Annotated[dict[PartitionLog, list[Dealt]], Pairs()] = field(default_factory=dict)
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

    def topics(self) -> set[str]:
        """The topics of which there is anything."""
        with_rows = {row.topic for row in self.rows.values()}
        return {*with_rows, *(partition_log.topic for partition_log in self.ledger), *self.generations}

    def entries(self, topics: Collection[str] | None) -> Iterator[Dealt]:
        """The ledger rows of ``topics``, or of all, in order of their slices."""
        for partition_log in sorted(self.ledger):
            if topics is None or partition_log.topic in topics:
                yield from sorted(self.ledger[partition_log], key=lambda dealt: dealt.entry.slice.start)

    def offsets(self, topic: str) -> dict[PartitionLog, list[int]]:
        """The offsets of a topic's rows, by log."""
        found: dict[PartitionLog, list[int]] = {}
        for row in self.rows.values():
            if row.topic == topic and row.generation is not None:
                assert row.partition is not None
                assert row.offset is not None
                found.setdefault(PartitionLog(topic, row.generation, row.partition), []).append(row.offset)
        return found


class MockSession:
    """The tables and a clock; the parts of the mock catalog inherit from this.

    Args:
        name: The stanza's name, for messages.
        directory: Where it is kept, for other processes to share; None keeps it in memory.
        clock: Tells the time of commits (UTC).
    """

    def __init__(
        self,
        name: str = "mock-db",
        directory: Path | None = None,
        *,
        clock: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC),
    ) -> None:
        self._name = name
        self._clock = clock
        self._directory = directory
        self._held: dict[str, threading.Lock] = {}
        self._state: SharedState[Tables] = SharedState(Tables, directory, "catalog")

    @property
    def name(self) -> str:
        """The stanza's name, for messages."""
        return self._name
