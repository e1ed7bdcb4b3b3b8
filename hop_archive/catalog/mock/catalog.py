"""A catalog without a database: in memory, or in a directory that processes share. It keeps the whole contract."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.mock.findings import MockFindings
from hop_archive.catalog.mock.objects import Named, joined
from hop_archive.catalog.mock.rebuilding import MockRebuilding
from hop_archive.catalog.mock.removals import MockRemovals
from hop_archive.catalog.mock.repairs import MockRepairs
from hop_archive.catalog.mock.reports import MockReports
from hop_archive.catalog.mock.restores import MockRestores
from hop_archive.catalog.mock.scrubs import MockScrubs
from hop_archive.catalog.mock.select import place_of, selected
from hop_archive.catalog.mock.session import Dealt, Tables
from hop_archive.catalog.mock.snapshots import MockSnapshots
from hop_archive.catalog.protocol import SELECT_TIMEOUT_S
from hop_archive.catalog.records import (
    Batch,
    Collision,
    Duplicate,
    Generation,
    LedgerEntry,
    Mentions,
    Miscount,
    Outcome,
    Recorded,
    Row,
    Standing,
    TopicSummary,
)
from hop_archive.errors import ProofChangedError, SliceTakenError, StaleDecisionError
from hop_archive.model.conditions import TABLES, CatalogCondition
from hop_archive.model.identity import Identity, Known
from hop_archive.model.query import Order, Query
from hop_archive.model.slices import EMPTY, OffsetSet, PartitionLog, Slice
from hop_archive.model.watermarks import Watermarks


def _count(offsets: Iterable[int], within: Slice) -> int:
    return sum(within.start <= offset < within.stop for offset in offsets)


class MockCatalog(
    MockFindings,
    MockRebuilding,
    MockRemovals,
    MockRepairs,
    MockReports,
    MockRestores,
    MockScrubs,
    MockSnapshots,
):
    """A catalog as good as the real one to everything that uses it, but for speed and for size.

    Args:
        name: The stanza's name, for messages.
        directory: Where it is kept, for other processes to share; None keeps it in memory.
        clock: Tells the time of commits (UTC).
    """

    def check(self) -> None:
        """Nothing can be wrong with it."""

    def condition(self) -> CatalogCondition:
        """This process's clock, and every right."""
        every = frozenset({"SELECT", "INSERT", "UPDATE", "DELETE"})
        return CatalogCondition(
            at=datetime.datetime.now(datetime.UTC),
            version="",
            is_old=False,
            read_only=False,
            role="",
            rights=dict.fromkeys(TABLES, every),
        )

    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        """The generations of ``topics`` (None: of all), by ascending number; a topic without any is not in the result."""
        with self._state.read() as tables:
            meant = tables.generations if topics is None else topics
            return {topic: tuple(tables.generations[topic]) for topic in meant if topic in tables.generations}

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        """Record generation ``number`` of ``topic``, or return the one that has this number already."""
        with self._state.change() as tables:
            so_far = tables.generations.setdefault(topic, [])
            for known in so_far:
                if known.number == number:
                    return known
            new = Generation(topic, number, cluster_id, topic_id, self._clock(), reason)
            so_far.append(new)
            so_far.sort(key=lambda generation: generation.number)
            return new

    def observe(self, watermarks: Mapping[PartitionLog, Watermarks]) -> None:
        """Remember the watermarks last seen."""
        with self._state.change() as tables:
            for partition_log, marks in watermarks.items():
                before = tables.observed.get(partition_log)
                tables.observed[partition_log] = replace(
                    marks, leader_epoch=before.leader_epoch if before else None
                )

    def observed(self, topics: Collection[str]) -> Mapping[PartitionLog, Watermarks]:
        """The watermarks last remembered, of every generation of ``topics``."""
        with self._state.read() as tables:
            return {
                partition_log: marks
                for partition_log, marks in tables.observed.items()
                if partition_log.topic in topics
            }

    def note_proven(
        self,
        epochs: Mapping[PartitionLog, int | None],
        instead_of: Mapping[PartitionLog, int | None] | None = None,
    ) -> None:
        """Remember under which leader epoch each log was proven to be the one that is covered; see ``Catalog.note_proven``."""
        with self._state.change() as tables:
            for partition_log, epoch in epochs.items():
                known = tables.observed.get(partition_log)
                if known and (instead_of is None or instead_of[partition_log] == known.leader_epoch):
                    tables.observed[partition_log] = replace(known, leader_epoch=epoch)

    def left_behind(self, topics: Collection[str], cluster_id: str) -> Mapping[PartitionLog, OffsetSet]:
        """What the lives of ``topics`` on a cluster were observed to hold, and nothing covers."""
        covered = self.coverage(topics)
        with self._state.read() as tables:
            lives = {
                (g.topic, g.number)
                for name in topics
                for g in tables.generations.get(name, ())
                if g.cluster_id == cluster_id
            }
            return {
                partition_log: left
                for partition_log, marks in tables.observed.items()
                if partition_log[:2] in lives
                and (left := OffsetSet.between(0, marks.stable) - covered.get(partition_log, EMPTY))
            }

    def tails(
        self, partition_logs: Collection[PartitionLog], most: int
    ) -> Mapping[PartitionLog, Sequence[Standing]]:
        """The last ``most`` messages of each log that are archived or duplicates, by ascending offset."""
        with self._state.read() as tables:
            standing: dict[PartitionLog, list[Standing]] = {
                partition_log: [] for partition_log in partition_logs
            }
            for row in tables.rows.values():
                if row.generation is None or row.partition is None or row.offset is None:
                    continue
                if (at := PartitionLog(row.topic, row.generation, row.partition)) in standing:
                    standing[at].append(Standing(row.offset, row.timestamp_ms, row.digest))
            for partition_log, found in standing.items():
                for one in tables.duplicates.get(partition_log, ()):
                    kept = tables.rows.get(one.uuid)
                    found.append(Standing(one.offset, one.timestamp_ms, kept.digest if kept else None))
        return {partition_log: sorted(found)[-most:] for partition_log, found in standing.items() if found}

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        """The offsets dealt with, of every generation of ``topics`` (or of all)."""
        with self._state.read() as tables:
            dealt = [d.entry.slice for d in tables.entries(topics)]
        return {
            partition_log: OffsetSet.of((s.start, s.stop) for s in slices)
            for partition_log, slices in groupby(dealt, key=lambda s: s.partition_log)
        }

    def has_adopted(self, topic: str) -> bool:
        """Whether another archiver wrote rows of ``topic``."""
        with self._state.read() as tables:
            return any(key[0] == topic for key in tables.adopted)

    def known(self, identities: Sequence[Identity]) -> Sequence[Known]:
        """Archived messages that any of ``identities`` might be a copy of."""
        with self._state.read() as tables:
            found: dict[uuid.UUID, Known] = {}
            for identity in identities:
                key = (identity.topic, identity.timestamp_ms, identity.message_crc32)
                for own in (identity.uuid, *tables.adopted.get(key, ())):
                    if own in tables.rows:
                        found[own] = _known(tables.rows[own])
            return list(found.values())

    def commit(self, batch: Batch) -> None:
        """Record a batch: its rows, duplicates, collisions, ledger row and topic summary, or none of them.

        Raises:
            SliceTakenError: The ledger holds some offset of the slice already; nothing was changed.
            StaleDecisionError: A UUID of the rows is in the catalog already, or what a duplicate repeats is not;
                nothing was changed.
            ProofChangedError: The log is proven under another leader epoch than the batch's, or not; nothing was changed.
        """
        with self._state.change() as tables:
            self._refuse_unproven(tables, batch)
            self._refuse_taken(tables, batch)
            self._refuse_stale(tables, batch)
            partition_log = batch.slice.partition_log
            tables.ledger.setdefault(partition_log, []).append(_dealt(batch, self._clock()))
            tables.rows.update((row.uuid, row) for row in batch.rows)
            tables.duplicates.setdefault(partition_log, []).extend(batch.duplicates)
            tables.collisions.setdefault(partition_log, []).extend(batch.collisions)

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        """One summary a topic, sorted by topic; a topic of which there is nothing to say is left out."""
        with self._state.read() as tables:
            dealt = list(tables.entries(topics))
            rows = [row for row in tables.rows.values() if topics is None or row.topic in topics]
        if since is not None:
            dealt = [d for d in dealt if d.entry.created_at >= since]
            return [_summary(topic, list(of_topic)) for topic, of_topic in groupby(dealt, key=_topic)]
        by_topic: dict[str, list[Row]] = {}
        for row in rows:
            by_topic.setdefault(row.topic, []).append(row)
        ledgers = {topic: list(of_topic) for topic, of_topic in groupby(dealt, key=_topic)}
        return [
            _with_rows(_summary(topic, ledgers.get(topic, [])), by_topic.get(topic, []))
            for topic in sorted(ledgers.keys() | by_topic.keys())
        ]

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        """The ledger's rows, sorted by slice."""
        with self._state.read() as tables:
            return [dealt.entry for dealt in tables.entries(topics)]

    def rows(self, topic: str) -> Iterator[Row]:
        """The rows of ``topic`` in order of generation, partition and offset; adopted rows last."""
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if row.topic == topic]
        yield from sorted(rows, key=place_of)

    def topics(self) -> Sequence[str]:
        """The topics that have rows; sorted."""
        with self._state.read() as tables:
            return sorted({row.topic for row in tables.rows.values()})

    def known_topics(self) -> Sequence[str]:
        """The topics of which there is anything; sorted."""
        with self._state.read() as tables:
            return sorted(tables.topics())

    def recorded(self, topic: str, *, segments: bool) -> Iterator[Recorded]:
        """The objects that rows of ``topic`` name, in byte order of their keys."""
        with self._state.read() as tables:
            every = [row for row in tables.rows.values() if row.topic == topic]
        rows = [row for row in every if (row.position is not None) is segments]
        rows.sort(key=lambda row: (row.object_key, row.bucket, row.position or 0))
        if not segments:
            return (
                Recorded(row.object_key, row.bucket, row.topic, 1, row.size_bytes, False, row.uuid)
                for row in rows
            )
        return joined(
            Named(row.object_key, row.bucket, row.topic, row.position, row.size_bytes, row.uuid)
            for row in rows
        )

    def find(self, own: uuid.UUID) -> Row | None:
        """The row of this UUID, if there is one."""
        with self._state.read() as tables:
            return tables.rows.get(own)

    def select(
        self, query: Query, order: Order = Order.PLACE, *, timeout_s: float = SELECT_TIMEOUT_S
    ) -> Iterator[Row]:
        """The rows that ``query`` means, in ``order``; see ``Catalog.select``. All are in memory at once.

        Raises:
            ConfigurationError: A topic of the query means none here; or it has a condition, and a mock knows no SQL.
        """
        with self._state.read() as tables:
            rows, known = list(tables.rows.values()), tables.topics()
        yield from selected(self._name, rows, query, known, order)

    def mentions(self, own: uuid.UUID, topic: str, limit: int = 10) -> Mentions:
        """Where else the catalog speaks of the message of this UUID and topic; the first ``limit`` of each kind."""
        copies = [pair for pair in self.duplicates(topic) if pair[1].uuid == own]
        with self._state.read() as tables:
            pairs = [(partition_log, c) for partition_log, some in tables.collisions.items() for c in some]
        met = sorted(
            (pair for pair in pairs if own in (pair[1].client_uuid, pair[1].archived_as)),
            key=lambda pair: (pair[0], pair[1].offset),
        )
        return Mentions(tuple(copies[:limit]), len(copies), tuple(met[:limit]), len(met))

    def duplicates(self, topic: str) -> Iterator[tuple[PartitionLog, Duplicate]]:
        """The recorded duplicates of ``topic`` in order of log and offset."""
        with self._state.read() as tables:
            found = [
                (partition_log, d)
                for partition_log, some in tables.duplicates.items()
                for d in some
                if partition_log.topic == topic
            ]
        yield from sorted(found, key=lambda pair: (pair[0], pair[1].offset))

    def collisions(self, topic: str) -> Sequence[tuple[PartitionLog, Collision]]:
        """The recorded collisions of ``topic``, in order of log and offset."""
        with self._state.read() as tables:
            found = [
                (partition_log, c)
                for partition_log, some in tables.collisions.items()
                for c in some
                if partition_log.topic == topic
            ]
        return sorted(found, key=lambda pair: (pair[0], pair[1].offset))

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        """Where the ledger's numbers are wrong; a mock keeps no summary that could be."""
        with self._state.read() as tables:
            entries = [dealt.entry for dealt in tables.entries([topic])]
            offsets = tables.offsets(topic)
            copies = {at: [d.offset for d in found] for at, found in tables.duplicates.items()}
        found: list[Miscount] = []
        for entry in entries:
            rows = _count(offsets.get(entry.slice.partition_log, ()), entry.slice)
            again = _count(copies.get(entry.slice.partition_log, ()), entry.slice)
            found.append(Miscount(topic, entry.slice, "archived", entry.archived, rows))
            found.append(Miscount(topic, entry.slice, "duplicates", entry.duplicates, again))
        return [one for one in found if one.said != one.found]

    def unledgered(self, topic: str) -> Sequence[Slice]:
        """For each log of ``topic`` with rows that no ledger row covers: from the first of them to the last."""
        coverage = self.coverage([topic])
        with self._state.read() as tables:
            offsets = tables.offsets(topic)
        outside = {
            at: [o for o in found if o not in coverage.get(at, EMPTY)] for at, found in offsets.items()
        }
        return [Slice(*at, min(found), max(found) + 1) for at, found in sorted(outside.items()) if found]

    def merge_ledger(self, before: datetime.datetime) -> int:
        """Merge neighbouring ledger rows of the same outcome and reason that were made before ``before``.

        Returns:
            By how many rows the ledger became shorter.
        """
        with self._state.change() as tables:
            shorter = 0
            for partition_log, dealt in tables.ledger.items():
                tables.ledger[partition_log] = _merged(dealt, before)
                shorter += len(dealt) - len(tables.ledger[partition_log])
            return shorter

    def close(self) -> None:
        """Nothing to let go of."""

    def _refuse_unproven(self, tables: Tables, batch: Batch) -> None:
        known = tables.observed.get(batch.slice.partition_log)
        if batch.proven_epoch not in (None, known.leader_epoch if known else None):
            raise ProofChangedError(
                f"database {self._name!r}: {batch.slice} was read of a log that is not the one which is proven now.",
                remedy="Nothing was changed. Plan again: that proves the log first.",
                slice=str(batch.slice),
            )

    def _refuse_taken(self, tables: Tables, batch: Batch) -> None:
        wanted = batch.slice
        holders = [
            {"start": e.slice.start, "stop": e.slice.stop, "outcome": e.outcome.value, "run_id": e.run_id,
             "created_at": e.created_at.isoformat()}
            for e in (dealt.entry for dealt in tables.ledger.get(wanted.partition_log, ()))
            if e.slice.start < wanted.stop and wanted.start < e.slice.stop
        ]  # fmt: skip
        if holders:
            raise SliceTakenError(
                f"database {self._name!r}: {wanted} is in the ledger already, all or in part.",
                remedy="Nothing was changed. Plan again from the coverage.",
                slice=str(wanted),
                holders=holders,
            )

    def _refuse_stale(self, tables: Tables, batch: Batch) -> None:
        own = [row.uuid for row in batch.rows]
        taken = sorted({str(one) for one in own if one in tables.rows})
        if taken or len(set(own)) < len(own):
            raise StaleDecisionError(
                f"database {self._name!r}: another writer catalogued messages of {batch.slice} meanwhile:"
                f" {', '.join(taken)}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=taken,
            )
        gone = sorted(str(one) for one in batch.referred() if one not in tables.rows)
        if gone:
            raise StaleDecisionError(
                f"database {self._name!r}: what messages of {batch.slice} repeat was taken away meanwhile:"
                f" {', '.join(gone)}.",
                remedy="Nothing was changed. Ask again which messages are known.",
                slice=str(batch.slice),
                uuids=gone,
            )


def _known(row: Row) -> Known:
    return Known(row.uuid, row.topic, row.timestamp_ms, row.message_crc32, row.is_client_uuid, row.digest)


def _topic(dealt: Dealt) -> str:
    return dealt.entry.slice.topic


def _dealt(batch: Batch, now: datetime.datetime) -> Dealt:
    times = [row.timestamp_ms for row in batch.rows]
    entry = LedgerEntry(
        batch.slice,
        batch.outcome,
        batch.reason,
        len(batch.rows),
        len(batch.duplicates),
        batch.absent,
        batch.size_bytes,
        batch.run_id,
        now,
    )
    return Dealt(entry, min(times, default=None), max(times, default=None))


def _summary(topic: str, dealt: Sequence[Dealt]) -> TopicSummary:
    """What these ledger rows say."""
    entries = [d.entry for d in dealt]
    return TopicSummary(
        topic,
        messages=sum(e.archived for e in entries),
        duplicates=sum(e.duplicates for e in entries),
        absent=sum(e.absent for e in entries),
        lost=sum(len(e.slice) for e in entries if e.outcome is Outcome.LOST),
        skipped=sum(len(e.slice) for e in entries if e.outcome is Outcome.SKIPPED),
        pruned=sum(len(e.slice) for e in entries if e.outcome is Outcome.PRUNED),
        size_bytes=sum(e.size_bytes for e in entries),
        first_timestamp_ms=_least(d.first_timestamp_ms for d in dealt),
        last_timestamp_ms=_greatest(d.last_timestamp_ms for d in dealt),
        last_batch_at=max((e.created_at for e in entries), default=None),
    )


def _with_rows(summary: TopicSummary, rows: Sequence[Row]) -> TopicSummary:
    """Over all time the rows count, of which the ledger does not know those adopted."""
    return replace(
        summary,
        messages=len(rows),
        size_bytes=sum(row.size_bytes for row in rows),
        first_timestamp_ms=_least(row.timestamp_ms for row in rows),
        last_timestamp_ms=_greatest(row.timestamp_ms for row in rows),
    )


def _least(times: Iterable[int | None]) -> int | None:
    return min((t for t in times if t is not None), default=None)


def _greatest(times: Iterable[int | None]) -> int | None:
    return max((t for t in times if t is not None), default=None)


def _merged(dealt: Sequence[Dealt], before: datetime.datetime) -> list[Dealt]:
    merged: list[Dealt] = []
    for one in sorted(dealt, key=lambda d: d.entry.slice.start):
        if merged and _continues(merged[-1].entry, one.entry, before):
            merged[-1] = _joined(merged[-1], one)
        else:
            merged.append(one)
    return merged


def _continues(left: LedgerEntry, right: LedgerEntry, before: datetime.datetime) -> bool:
    touching = left.slice.stop == right.slice.start
    alike = (left.outcome, left.reason) == (right.outcome, right.reason)
    return touching and alike and max(left.created_at, right.created_at) < before


def _joined(left: Dealt, right: Dealt) -> Dealt:
    a, b = left.entry, right.entry
    entry = replace(
        a,
        slice=a.slice.within(a.slice.start, b.slice.stop),
        archived=a.archived + b.archived,
        duplicates=a.duplicates + b.duplicates,
        absent=a.absent + b.absent,
        size_bytes=a.size_bytes + b.size_bytes,
        run_id=a.run_id if a.run_id == b.run_id else "",
        created_at=max(a.created_at, b.created_at),
    )
    first = _least((left.first_timestamp_ms, right.first_timestamp_ms))
    return Dealt(entry, first, _greatest((left.last_timestamp_ms, right.last_timestamp_ms)))
