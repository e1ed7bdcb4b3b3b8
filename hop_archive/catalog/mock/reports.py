"""Numbers for reports, in a mock."""

from __future__ import annotations

import datetime
from collections.abc import Collection, Sequence

from hop_archive.catalog.mock.session import MockSession
from hop_archive.catalog.records import LedgerDay, MessageDay, Outcome

_DAY_MS = 86_400_000


class MockReports(MockSession):
    """The part of a mock catalog that counts by topic and day."""

    def message_days(
        self, since: datetime.datetime, until: datetime.datetime, topics: Collection[str] | None = None
    ) -> Sequence[MessageDay]:
        """Messages and bytes by topic and day of their timestamps, sorted."""
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
        """Duplicates, losses and lag by topic and day of commit, sorted."""
        with self._state.read() as tables:
            dealt = [one for one in tables.entries(topics) if one.entry.created_at >= since]
        days: dict[tuple[str, datetime.date], LedgerDay] = {}
        for one in dealt:
            entry, key = one.entry, (one.entry.slice.topic, one.entry.created_at.date())
            so_far = days.get(key, LedgerDay(*key, 0, 0, None))
            last = one.last_timestamp_ms
            lag_s = (
                max(0.0, entry.created_at.timestamp() - last / 1000)
                if last is not None and last > 0
                else None
            )
            lags = [lag for lag in (so_far.lag_s, lag_s) if lag is not None]
            lost = len(entry.slice) if entry.outcome is Outcome.LOST else 0
            days[key] = LedgerDay(
                *key, so_far.duplicates + entry.duplicates, so_far.lost + lost, max(lags, default=None)
            )
        return [days[key] for key in sorted(days)]
