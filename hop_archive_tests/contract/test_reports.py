"""Numbers by topic and day: the same over a mock, a mock in a directory, and Postgres."""

from __future__ import annotations

import datetime

import pytest

from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Duplicate, MessageDay, Outcome
from hop_archive_tests.contract.catalog_helpers import row_at, slice_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

DAY_MS = 86_400_000
FIRST = datetime.datetime(2026, 11, 20, tzinfo=datetime.UTC)


def test_messages_count_for_the_day_of_their_timestamp(catalog: Catalog) -> None:
    begin = int(FIRST.timestamp() * 1000)
    times = (begin - 1, begin, begin + DAY_MS - 1, begin + DAY_MS, begin + 2 * DAY_MS)
    where = slice_of(0, 5)
    rows = [row_at(where, at, timestamp_ms=ms, size_bytes=10 + at) for at, ms in enumerate(times)]
    catalog.commit(Batch(where, rows=rows))
    until = FIRST + datetime.timedelta(days=2)
    assert catalog.message_days(FIRST, until) == [
        MessageDay("alerts", FIRST.date(), 2, 23),
        MessageDay("alerts", FIRST.date() + datetime.timedelta(days=1), 1, 13),
    ]
    assert catalog.message_days(FIRST, until, ["other"]) == []


def test_duplicates_losses_and_lag_count_for_the_day_of_commit(catalog: Catalog) -> None:
    now = datetime.datetime.now(datetime.UTC)
    recent = int(now.timestamp() * 1000) - 60_000
    where = slice_of(0, 3)
    row = row_at(where, 0, timestamp_ms=recent)
    catalog.commit(Batch(where, rows=[row], duplicates=[Duplicate(1, recent, row.uuid, "same")]))
    catalog.commit(Batch(slice_of(3, 10), Outcome.LOST, "gone"))
    found = catalog.ledger_days(now - datetime.timedelta(hours=1))
    assert (sum(one.duplicates for one in found), sum(one.lost for one in found)) == (1, 7)
    assert max(one.lag_s or 0 for one in found) == pytest.approx(60, abs=30)
    assert catalog.ledger_days(now + datetime.timedelta(hours=1)) == []
    assert catalog.ledger_days(now - datetime.timedelta(hours=1), ["other"]) == []
