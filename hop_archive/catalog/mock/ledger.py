"""The ledger, and numbers by topic and day, in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from hop_archive.catalog.ledger import YOUNG, ends_ms, merged, period
from hop_archive.catalog.mock.session import MockSession
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
            return list(tables.entries(topics))

    def summaries(
        self, topics: Collection[str] | None = None, since: datetime.datetime | None = None
    ) -> Sequence[TopicSummary]:
        with self._state.read() as tables:
            entries = [e for e in tables.entries(topics) if since is None or e.created_at >= since]
            rows = tables.rows_of(topics)
        ledgers = {topic: list(some) for topic, some in groupby(entries, key=lambda entry: entry.slice.topic)}
        if since is not None:
            return [_summary(topic, some) for topic, some in ledgers.items()]
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

    def miscounts(self, topic: str, *, every: int = 1, turn: int = 0) -> Sequence[Miscount]:
        """A mock keeps no summary that could be wrong, and counts all each time."""
        found: list[Miscount] = []
        with self._state.read() as tables:
            offsets = tables.offsets(topic)
            for entry in tables.entries([topic]):
                where = entry.slice
                here = offsets.get(where.partition_log, ())
                rows = sum(where.start <= offset < where.stop for offset in here)
                found.append(Miscount(topic, where, "archived", entry.archived, rows))
                copies = len(tables.copies_in(where))
                found.append(Miscount(topic, where, "duplicates", entry.duplicates, copies))
        return [miscount for miscount in found if miscount.said != miscount.found]

    def miscounts_in(self, where: Slice) -> Sequence[Miscount]:
        found = self.miscounts(where.topic)
        return [
            m
            for m in found
            if m.slice and m.slice.start in where.offsets and m.slice.partition_log == where.partition_log
        ]

    def summary_miscounts(self, topic: str) -> Sequence[Miscount]:
        """None: a mock keeps no summary that could be wrong."""
        return []

    def unledgered(self, topic: str) -> Sequence[Slice]:
        found: list[Slice] = []
        with self._state.read() as tables:
            for at, offsets in sorted(tables.offsets(topic).items()):
                covered = tables.covered(at)
                outside = [offset for offset in offsets if offset not in covered]
                found += [Slice(*at, min(outside), max(outside) + 1)] if outside else []
        return found

    def merge_ledger(self, before: datetime.datetime, since: datetime.datetime | None = None) -> int:
        shorter = 0
        with self._state.change() as tables:
            for at, ledger in tables.ledger.items():
                if not any(
                    (since is None or since <= e.created_at) and e.created_at < before for e in ledger
                ):
                    continue
                old = [entry for entry in ledger if entry.created_at < before]
                tables.ledger[at] = merged(old, lambda _: None) + [
                    e for e in ledger if e.created_at >= before
                ]
                shorter += len(ledger) - len(tables.ledger[at])
        return shorter

    def tidy(self, at: PartitionLog, now: datetime.datetime) -> None:
        """Merge what is older than two minutes, by periods."""
        with self._state.change() as tables:
            ledger = tables.ledger.get(at, [])
            old = [entry for entry in ledger if entry.created_at < now - YOUNG]
            young = [entry for entry in ledger if entry.created_at >= now - YOUNG]
            tables.ledger[at] = merged(old, lambda entry: period(entry.created_at, now)) + young

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        with self._state.read() as tables:
            rows = tables.rows_of(topics)
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
            entries = [entry for entry in tables.entries(topics) if entry.created_at >= since]
        days: dict[tuple[str, datetime.date], LedgerDay] = {}
        for entry in entries:
            key = (entry.slice.topic, entry.created_at.date())
            so_far = days.get(key, LedgerDay(*key, 0, 0, None))
            lags = [] if so_far.lag_s is None else [so_far.lag_s]
            if (lag_ms := entry.longest_lag_ms) is not None:
                lags.append(lag_ms / 1000)
            lost = so_far.lost + (len(entry.slice) if entry.outcome is Outcome.LOST else 0)
            duplicates = so_far.duplicates + entry.duplicates
            days[key] = LedgerDay(*key, duplicates, lost, max(lags, default=None))
        return [days[key] for key in sorted(days)]


def _summary(topic: str, entries: Sequence[LedgerEntry]) -> TopicSummary:
    """What these ledger rows say."""

    def offsets(outcome: Outcome) -> int:
        return sum(len(e.slice) for e in entries if e.outcome is outcome)

    first_ms, last_ms = ends_ms(entries)
    return TopicSummary(
        topic,
        messages=sum(e.archived for e in entries),
        duplicates=sum(e.duplicates for e in entries),
        absent=sum(e.absent for e in entries),
        lost=offsets(Outcome.LOST),
        skipped=offsets(Outcome.SKIPPED),
        pruned=offsets(Outcome.PRUNED),
        size_bytes=sum(e.size_bytes for e in entries),
        first_timestamp_ms=first_ms,
        last_timestamp_ms=last_ms,
        last_batch_at=max((e.created_at for e in entries), default=None),
    )
