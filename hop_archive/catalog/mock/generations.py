"""Generations of topics, what was last seen of their logs, and snapshots of how a cluster was set up, in a mock."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from hop_archive.catalog.mock.session import MockSession, is_untold, log_of
from hop_archive.catalog.records import UNKNOWN_CLUSTER, Generation, Snapshot, SnapshotKind, Standing
from hop_archive.catalog.refusals import refuse_odd
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.model.watermarks import Watermarks


class MockGenerations(MockSession):
    """The part of a mock catalog that knows generations, watermarks, proofs and snapshots."""

    def generations(self, topics: Collection[str] | None) -> Mapping[str, Sequence[Generation]]:
        with self._state.read() as tables:
            chosen = tables.generations if topics is None else topics
            return {
                topic: tuple(tables.generations[topic]) for topic in chosen if topic in tables.generations
            }

    def begin_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> Generation:
        with self._state.change() as tables:
            so_far = tables.generations.setdefault(topic, [])
            for known in so_far:
                if known.number == number:
                    return known
            new = Generation(topic, number, cluster_id, topic_id, self._clock(), reason)
            so_far.append(new)
            so_far.sort(key=lambda generation: generation.number)
            return new

    def claim_generation(
        self, topic: str, number: int, cluster_id: str, topic_id: str | None, reason: str
    ) -> bool:
        with self._state.change() as tables:
            so_far = tables.generations.get(topic, [])
            if not so_far or (so_far[-1].number, so_far[-1].cluster_id) != (number, UNKNOWN_CLUSTER):
                return False
            so_far[-1] = replace(so_far[-1], cluster_id=cluster_id, topic_id=topic_id, reason=reason)
            for at in [at for at in tables.ledger if at[:2] == (topic, number)]:
                tables.ledger[at] = [entry for entry in tables.ledger[at] if not is_untold(entry)]
            return True

    def observe(self, watermarks: Mapping[PartitionLog, Watermarks]) -> None:
        with self._state.change() as tables:
            for at, marks in watermarks.items():
                before = tables.observed.get(at)
                tables.observed[at] = replace(marks, leader_epoch=before.leader_epoch if before else None)

    def observed(self, topics: Collection[str]) -> Mapping[PartitionLog, Watermarks]:
        with self._state.read() as tables:
            return {at: marks for at, marks in tables.observed.items() if at.topic in topics}

    def note_proven(
        self,
        epochs: Mapping[PartitionLog, int | None],
        instead_of: Mapping[PartitionLog, int | None] | None = None,
    ) -> None:
        with self._state.change() as tables:
            for at, epoch in epochs.items():
                known = tables.observed.get(at)
                if known and (instead_of is None or instead_of[at] == known.leader_epoch):
                    tables.observed[at] = replace(known, leader_epoch=epoch)

    def left_behind(self, topics: Collection[str], cluster_id: str) -> Mapping[PartitionLog, OffsetSet]:
        with self._state.read() as tables:
            here = {
                (generation.topic, generation.number)
                for name in topics
                for generation in tables.generations.get(name, ())
                if generation.cluster_id == cluster_id
            }
            ends = {
                at: max(marks.stable, tables.covered(at).stop)
                for at, marks in tables.observed.items()
                if at[:2] in here
            }
            return {
                at: left
                for at, end in ends.items()
                if (left := OffsetSet.between(0, end) - tables.covered(at))
            }

    def tails(
        self, partition_logs: Collection[PartitionLog], most: int
    ) -> Mapping[PartitionLog, Sequence[Standing]]:
        with self._state.read() as tables:
            standing: dict[PartitionLog, list[Standing]] = {at: [] for at in partition_logs}
            for row in tables.rows.values():
                if row.offset is not None and (at := log_of(row)) in standing:
                    standing[at].append(Standing(row.offset, row.timestamp_ms, row.digest))
            for at, found in standing.items():
                for copy in tables.duplicates.get(at, ()):
                    kept = tables.rows.get(copy.uuid)
                    found.append(Standing(copy.offset, copy.timestamp_ms, kept.digest if kept else None))
        return {at: sorted(found)[-most:] for at, found in standing.items() if found}

    def keep_snapshots(self, cluster_id: str, snapshots: Sequence[Snapshot]) -> None:
        refuse_odd(cluster_id, snapshots)
        # What JSON makes of them, as a database gives it back.
        kept = [replace(new, content=json.loads(json.dumps(new.content))) for new in snapshots]
        with self._state.change() as tables:
            for new in kept:
                there = tables.snapshots.get((cluster_id, new.kind, new.name))
                if there is None or there.taken_at <= new.taken_at:
                    tables.snapshots[cluster_id, new.kind, new.name] = new

    def snapshots(
        self, kind: SnapshotKind, names: Collection[str] | None = None, cluster_id: str | None = None
    ) -> Sequence[Snapshot]:
        with self._state.read() as tables:
            return [
                snapshot
                for _, snapshot in sorted(tables.snapshots.items())
                if snapshot.kind == kind
                and (names is None or snapshot.name in names)
                and (cluster_id is None or snapshot.cluster_id == cluster_id)
            ]
