"""What was verified and when, in a mock."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.records import Outcome, Row, VerifiedRange, VerifiedShare
from hop_archive.catalog.rules import with_verified
from hop_archive.model.slices import OffsetSet, PartitionLog


class MockScrubs(MockSession):
    """The part of a mock catalog that knows when what was verified."""

    def verified(self, topics: Collection[str] | None = None) -> Sequence[VerifiedRange]:
        """The ranges that were verified, sorted by place."""
        with self._state.read() as tables:
            every = list(tables.verified)
        return sorted(one for one in every if topics is None or one.topic in topics)

    def note_verified(self, new: VerifiedRange) -> None:
        """Remember that a range was verified; see ``Catalog.note_verified``."""
        with self._state.change() as tables:
            known = [one for one in tables.verified if one[:3] == new[:3]]
            others = [one for one in tables.verified if one[:3] != new[:3]]
            tables.verified[:] = [*others, *with_verified(known, new)]

    def verified_shares(self, topics: Collection[str] | None = None) -> Sequence[VerifiedShare]:
        """How much of each topic was verified, sorted by topic."""
        with self._state.read() as tables:
            entries = [d.entry for d in tables.entries(topics) if d.entry.outcome is Outcome.ARCHIVED]
        covered: dict[PartitionLog, list[tuple[int, int]]] = {}
        for entry in entries:
            covered.setdefault(entry.slice.partition_log, []).append((entry.slice.start, entry.slice.stop))
        shares: dict[str, VerifiedShare] = {}
        known = self.verified(topics)
        for partition_log, ranges in covered.items():
            here = [one for one in known if PartitionLog(*one[:3]) == partition_log]
            every, done = OffsetSet.of(ranges), OffsetSet.of((one.start, one.stop) for one in here)
            so_far = shares.get(partition_log.topic, VerifiedShare(partition_log.topic, 0, 0, None))
            moments = [one.verified_at for one in here] + ([so_far.oldest] if so_far.oldest else [])
            shares[partition_log.topic] = VerifiedShare(
                partition_log.topic,
                so_far.offsets + every.size,
                so_far.never + (every - done).size,
                min(moments, default=None),
            )
        return [shares[topic] for topic in sorted(shares)]

    def adopted_span(self, topic: str) -> tuple[int, int] | None:
        """Least and greatest timestamp of a topic's rows that another archiver wrote; None without any."""
        times = [row.timestamp_ms for row in self.adopted_rows(topic, -(2**63))]
        return (times[0], times[-1]) if times else None

    def adopted_rows(self, topic: str, since_ms: int) -> Iterator[Row]:
        """Those rows, from a timestamp on, by timestamp."""
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if row.topic == topic and row.digest is None]
        rows.sort(key=lambda row: row.timestamp_ms)
        yield from (row for row in rows if row.timestamp_ms >= since_ms)
