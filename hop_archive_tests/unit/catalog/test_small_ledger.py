"""How many rows a ledger has that is tidied as it grows, and what is still told of an hour, a day, a week."""

from __future__ import annotations

import datetime
import itertools

from hop_archive.catalog.ledger import TEN_MINUTES, YOUNG, begin, merged, period
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, LedgerEntry, Outcome
from hop_archive.model.slices import Slice
from hop_archive_tests.contract.catalog_helpers import full_batch, slice_of

START = datetime.datetime(2026, 3, 1, 0, 0, 30, tzinfo=datetime.UTC)
MINUTE = datetime.timedelta(minutes=1)
MOST_ROWS = 50


def entry_at(minute: int, run_id: str = "run") -> LedgerEntry:
    """The ledger row of the message of a minute."""
    where = Slice("alerts", 1, 0, minute, minute + 1)
    return LedgerEntry(where, Outcome.ARCHIVED, "", 1, 0, 0, 100, run_id, START + minute * MINUTE)


def committed_since(ledger: list[LedgerEntry], since: datetime.datetime) -> int:
    return sum(entry.archived for entry in ledger if entry.created_at >= since)


def test_with_a_message_a_minute_a_log_has_some_thirty_rows_and_windows_are_told_well() -> None:
    """For 40 days; what is older than a week is one row, whether of a month or of years."""
    ledger: list[LedgerEntry] = []
    rows: list[int] = []
    for minute in range(40 * 24 * 60):
        now = START + minute * MINUTE
        is_later = bool(ledger) and ledger[-1].created_at < begin(now, TEN_MINUTES)
        ledger.append(entry_at(minute, run_id=f"run {minute}"))
        if is_later:
            young = [entry for entry in ledger if entry.created_at >= now - YOUNG]
            old = [entry for entry in ledger if entry.created_at < now - YOUNG]
            ledger = merged(old, lambda entry, now=now: period(entry.created_at, now)) + young  # type: ignore[misc]
        rows.append(len(ledger))
        if minute % 97 == 0 and minute > 25 * 60:
            assert 60 <= committed_since(ledger, now - datetime.timedelta(hours=1)) <= 60 + 10
            assert 24 * 60 <= committed_since(ledger, now - datetime.timedelta(hours=24)) <= 24 * 60 + 120
    assert max(rows) <= MOST_ROWS
    assert 25 <= sum(rows[-1440:]) / 1440 <= 35
    assert sum(entry.archived for entry in ledger) == len(rows)
    for day, some in itertools.groupby(ledger[1:], key=lambda entry: entry.created_at.date()):
        before = START.date() + (day - START.date())
        expected = 24 * 60 if day < ledger[-1].created_at.date() else (len(rows) - 1) % 1440 + 1
        assert sum(entry.archived for entry in some) == expected, before


def test_a_period_never_goes_over_the_end_of_a_day() -> None:
    now = datetime.datetime(2026, 3, 9, 14, 33, tzinfo=datetime.UTC)
    moments = [now - n * MINUTE for n in range(7 * 24 * 60)]
    for kind, some in itertools.groupby(moments, key=lambda at: period(at, now)):
        assert kind is not None
        days = {at.date() for at in some}
        assert days == {kind.date()}
    assert period(now - datetime.timedelta(days=9), now) is None


def test_rows_of_another_block_of_offsets_are_not_merged() -> None:
    mock = MockCatalog()
    for start in (9_000_000, 9_999_990, 10_000_010):
        stop = {9_000_000: 9_999_990, 9_999_990: 10_000_010}.get(start, start + 5)
        mock.commit(Batch(slice_of(start, stop), Outcome.LOST, "gone"))
    assert mock.merge_ledger(datetime.datetime.now(datetime.UTC) + MINUTE) == 1
    assert [e.slice.start for e in mock.ledger()] == [9_000_000, 10_000_010]


def test_a_commit_tidies_what_earlier_ten_minutes_left() -> None:
    now = START
    mock = MockCatalog(clock=lambda: now)
    for minute in range(9):
        now = START + minute * MINUTE
        mock.commit(full_batch(minute, minute + 1))
    assert len(mock.ledger()) == 9
    now = START + 10 * MINUTE
    mock.commit(full_batch(9, 10))
    assert [(e.slice.start, e.slice.stop) for e in mock.ledger()] == [(0, 8), (8, 9), (9, 10)]
