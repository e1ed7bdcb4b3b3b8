"""The ledger, and numbers by topic and day, in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.mock.session import Dealt, MockSession
from hop_archive.catalog.records import (
    LedgerDay,
    LedgerEntry,
    MessageDay,
    Miscount,
    Outcome,
    Row,
    TopicSummary,
)
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice

_DAY_MS = 86_400_000


class MockLedger(MockSession):
    """The part of a mock catalog that says what became of each offset."""

    def coverage(self, topics: Collection[str] | None = None) -> Mapping[PartitionLog, OffsetSet]:
        with self._state.read() as tables:
            logs = sorted(at for at in tables.ledger if topics is None or at.topic in topics)
            return {at: covered for at in logs if (covered := tables.covered(at))}

    def ledger(self, topics: Collection[str] | None = None) -> Sequence[LedgerEntry]:
        with self._state.read() as tables:
            return [dealt.entry for dealt in tables.entries(topics)]

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        with self._state.read() as tables:
            entries = [d for d in tables.entries(topics) if since is None or d.entry.created_at >= since]
            rows = [row for row in tables.rows.values() if topics is None or row.topic in topics]
        ledgers = {
            topic: list(some) for topic, some in groupby(entries, key=lambda dealt: dealt.entry.slice.topic)
        }
        if since is not None:
            return [_summary(topic, dealt) for topic, dealt in ledgers.items()]
        # Over all time the rows count, of which the ledger does not know those adopted.
        by_topic: dict[str, list[Row]] = {}
        for row in rows:
            by_topic.setdefault(row.topic, []).append(row)
        found: list[TopicSummary] = []
        for topic in sorted(ledgers.keys() | by_topic.keys()):
            here = by_topic.get(topic, [])
            times = [row.timestamp_ms for row in here]
            summary = replace(
                _summary(topic, ledgers.get(topic, [])),
                messages=len(here),
                size_bytes=sum(row.size_bytes for row in here),
                first_timestamp_ms=min(times, default=None),
                last_timestamp_ms=max(times, default=None),
            )
            found.append(summary)
        return found

    def miscounts(self, topic: str) -> Sequence[Miscount]:
        """A mock keeps no summary that could be wrong."""
        found: list[Miscount] = []
        with self._state.read() as tables:
            offsets = tables.offsets(topic)
            for dealt in tables.entries([topic]):
                entry, where = dealt.entry, dealt.entry.slice
                here = offsets.get(where.partition_log, ())
                rows = sum(where.start <= offset < where.stop for offset in here)
                copies = len(tables.copies_in(where))
                found.append(Miscount(topic, where, "archived", entry.archived, rows))
                found.append(Miscount(topic, where, "duplicates", entry.duplicates, copies))
        return [miscount for miscount in found if miscount.said != miscount.found]

    def unledgered(self, topic: str) -> Sequence[Slice]:
        found: list[Slice] = []
        with self._state.read() as tables:
            for at, offsets in sorted(tables.offsets(topic).items()):
                covered = tables.covered(at)
                outside = [offset for offset in offsets if offset not in covered]
                found += [Slice(*at, min(outside), max(outside) + 1)] if outside else []
        return found

    def merge_ledger(self, before: datetime.datetime) -> int:
        shorter = 0
        with self._state.change() as tables:
            for at, ledger in tables.ledger.items():
                merged: list[Dealt] = []
                for dealt in sorted(ledger, key=lambda dealt: dealt.entry.slice.start):
                    if merged and _continues(merged[-1].entry, dealt.entry, before):
                        merged[-1] = _joined(merged[-1], dealt)
                    else:
                        merged.append(dealt)
                shorter += len(ledger) - len(merged)
                tables.ledger[at] = merged
        return shorter

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        with self._state.read() as tables:
            rows = [row for row in tables.rows.values() if topics is None or row.topic in topics]
        counts: dict[tuple[str, int], list[int]] = {}
        for row in rows:
            if since.timestamp() * 1000 <= row.timestamp_ms < until.timestamp() * 1000:
                counts.setdefault((row.topic, row.timestamp_ms // _DAY_MS), []).append(row.size_bytes)
        epoch = datetime.date(1970, 1, 1)
        return [
            MessageDay(topic, epoch + datetime.timedelta(days=day), len(sizes), sum(sizes))
            for (topic, day), sizes in sorted(counts.items())
        ]

    def ledger_days(
        self, since: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[LedgerDay]:
        with self._state.read() as tables:
            entries = [dealt for dealt in tables.entries(topics) if dealt.entry.created_at >= since]
        days: dict[tuple[str, datetime.date], LedgerDay] = {}
        for dealt in entries:
            entry, last = dealt.entry, dealt.last_timestamp_ms
            key = (entry.slice.topic, entry.created_at.date())
            so_far = days.get(key, LedgerDay(*key, 0, 0, None))
            lags = [] if so_far.lag_s is None else [so_far.lag_s]
            if last is not None and last > 0:
                lags.append(max(0.0, entry.created_at.timestamp() - last / 1000))
            lost = so_far.lost + (len(entry.slice) if entry.outcome is Outcome.LOST else 0)
            duplicates = so_far.duplicates + entry.duplicates
            days[key] = LedgerDay(*key, duplicates, lost, max(lags, default=None))
        return [days[key] for key in sorted(days)]


def _summary(topic: str, dealt: Sequence[Dealt]) -> TopicSummary:
    """What these ledger rows say."""
    entries = [d.entry for d in dealt]

    def offsets(outcome: Outcome) -> int:
        return sum(len(e.slice) for e in entries if e.outcome is outcome)

    return TopicSummary(
        topic,
        messages=sum(e.archived for e in entries),
        duplicates=sum(e.duplicates for e in entries),
        absent=sum(e.absent for e in entries),
        lost=offsets(Outcome.LOST),
        skipped=offsets(Outcome.SKIPPED),
        pruned=offsets(Outcome.PRUNED),
        size_bytes=sum(e.size_bytes for e in entries),
        first_timestamp_ms=min(_known(d.first_timestamp_ms for d in dealt), default=None),
        last_timestamp_ms=max(_known(d.last_timestamp_ms for d in dealt), default=None),
        last_batch_at=max((e.created_at for e in entries), default=None),
    )


def _known(times: Iterable[int | None]) -> list[int]:
    return [t for t in times if t is not None]


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
    firsts = _known((left.first_timestamp_ms, right.first_timestamp_ms))
    lasts = _known((left.last_timestamp_ms, right.last_timestamp_ms))
    return Dealt(entry, min(firsts, default=None), max(lasts, default=None))
