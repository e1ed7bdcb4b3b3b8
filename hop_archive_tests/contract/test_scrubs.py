"""What catalogs remember of what was verified: the same over a mock, a mock in a directory, and Postgres."""

from __future__ import annotations

import datetime
import threading

from hop_archive.catalog.checked import VerifiedRange, VerifiedShare
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Outcome
from hop_archive_tests.contract.catalog_helpers import Adopt, adopted_row, full_batch, slice_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

T0 = datetime.datetime(2026, 11, 20, 1, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
HOUR = datetime.timedelta(hours=1)


def at(start: int, stop: int, when: datetime.datetime = T0, partition: int = 0) -> VerifiedRange:
    return VerifiedRange("alerts", 1, partition, start, stop, when)


def test_ranges_of_one_day_that_touch_are_one_as_old_as_the_oldest(catalog: Catalog) -> None:
    for one in (
        at(10, 20, T0 + HOUR),
        at(0, 10),
        at(30, 40),
        at(20, 30, T0 + 2 * HOUR),
        at(0, 5, partition=1),
    ):
        catalog.note_verified(one)
    assert catalog.verified() == [at(0, 40), at(0, 5, partition=1)]
    assert catalog.verified(["other"]) == []


def test_what_is_verified_anew_takes_the_place_of_what_was_known(catalog: Catalog) -> None:
    catalog.note_verified(at(0, 100))
    catalog.note_verified(at(40, 60, T0 + DAY))
    assert catalog.verified() == [at(0, 40), at(40, 60, T0 + DAY), at(60, 100)]
    catalog.note_verified(at(60, 80, T0 + DAY + HOUR))
    assert catalog.verified() == [at(0, 40), at(40, 80, T0 + DAY), at(80, 100)]
    catalog.note_verified(at(0, 100, T0 + 2 * DAY))
    assert catalog.verified() == [at(0, 100, T0 + 2 * DAY)]
    catalog.note_verified(at(0, 100, T0 + 2 * DAY))
    assert catalog.verified() == [at(0, 100, T0 + 2 * DAY)]


def test_the_share_of_each_topic_that_was_verified_is_told(catalog: Catalog) -> None:
    catalog.commit(full_batch(0, 10))
    catalog.commit(full_batch(20, 30))
    catalog.commit(Batch(slice_of(30, 1_000), Outcome.LOST, "gone"))
    catalog.commit(full_batch(0, 7, "other", partition=3))
    catalog.note_verified(at(5, 25))
    assert catalog.verified_shares() == [
        VerifiedShare("alerts", 20, 10, T0),
        VerifiedShare("other", 7, 7, None),
    ]
    assert catalog.verified_shares(["other"]) == [VerifiedShare("other", 7, 7, None)]


def test_rows_of_another_archiver_are_streamed_by_time(catalog: Catalog, adopt: Adopt) -> None:
    assert catalog.adopted_span("alerts") is None
    rows = [adopted_row(timestamp_ms=ms) for ms in (5, -7, 3)]
    adopt(rows)
    catalog.commit(full_batch(0, 3))
    assert catalog.adopted_span("alerts") == (-7, 5)
    assert [row.timestamp_ms for row in catalog.adopted_rows("alerts", -7)] == [-7, 3, 5]
    assert [row.timestamp_ms for row in catalog.adopted_rows("alerts", 4)] == [5]
    catalog.note_verified(VerifiedRange("alerts", 0, 0, -7, 6, T0))
    assert catalog.verified() == [VerifiedRange("alerts", 0, 0, -7, 6, T0)]


def test_many_at_once_leave_ranges_that_do_not_overlap(catalog: Catalog) -> None:
    def note(first: int) -> None:
        for start in range(first, 100, 3):
            catalog.note_verified(at(start, start + 5))

    threads = [threading.Thread(target=note, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert catalog.verified() == [at(0, 104)]
