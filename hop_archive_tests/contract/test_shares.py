"""What catalogs remember of what was looked at, and tell from a key on: the same over a mock, one in a directory, and Postgres."""

from __future__ import annotations

import datetime
import itertools
import threading
import uuid

import pytest

from hop_archive.catalog.checked import (
    FIRST_KEY,
    LAST_KEY,
    CheckedRange,
    CheckedScope,
    Look,
    Section,
    ledger_key,
    with_checked,
)
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import Batch, Recorded, Row, RowJob
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import object_key, segment_key
from hop_archive_tests.contract.catalog_helpers import Adopt, adopted_row, full_batch, row_at, slice_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

T0 = datetime.datetime(2026, 11, 20, 1, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)
ALONE = Section("archive", "alerts", Look.ALONE)


def at(
    after: str, through: str, when: datetime.datetime = T0, took: int = 10, section: Section = ALONE
) -> CheckedRange:
    return CheckedRange(section, after, through, when, took)


def test_parts_of_a_section_that_touch_and_are_of_one_look_are_one(catalog: Catalog) -> None:
    catalog.note_checked([at("b", "c"), at(FIRST_KEY, "b"), at("d", LAST_KEY), at("c", "d", T0 + HOUR)])
    assert catalog.checked() == [at("", "c", took=20), at("c", "d", T0 + HOUR), at("d", LAST_KEY)]
    assert catalog.checked(["other"]) == []


def test_sections_are_apart(catalog: Catalog) -> None:
    sections = [
        Section("", "alerts", Look.LEDGER),
        ALONE,
        ALONE._replace(look=Look.SEGMENTS),
        ALONE._replace(topic="other"),
        ALONE._replace(bucket="backup"),
        Section("archive", "", Look.OUTSIDE),
    ]
    catalog.note_checked([at("a", "b", section=section) for section in sections])
    assert {done.section for done in catalog.checked()} == {*sections}
    assert len(catalog.checked(["alerts"])) == 4
    catalog.note_checked([at("a", "b", T0 + HOUR)])
    assert [done.section for done in catalog.checked() if done.checked_at > T0] == [ALONE]


def test_what_is_looked_at_anew_takes_the_place_of_what_was_known(catalog: Catalog) -> None:
    catalog.note_checked([at(FIRST_KEY, LAST_KEY, took=100)])
    catalog.note_checked([at("k", "m", T0 + HOUR, took=20)])
    assert catalog.checked() == [
        at("", "k", took=40),
        at("k", "m", T0 + HOUR, took=20),
        at("m", LAST_KEY, took=40),
    ]
    catalog.note_checked([at("", "é\U0001f52d", T0 + 2 * HOUR, took=30)])
    assert catalog.checked() == [
        at("", "é\U0001f52d", T0 + 2 * HOUR, took=30),
        at("é\U0001f52d", LAST_KEY, took=10),
    ]
    catalog.note_checked([at("", LAST_KEY, T0 + 3 * HOUR, took=90)])
    assert catalog.checked() == [at("", LAST_KEY, T0 + 3 * HOUR, took=90)]


def test_keys_are_in_byte_order_whatever_the_language_of_the_database(catalog: Catalog) -> None:
    for after, through in (("A", "Z"), ("Z", "a"), ("a", "z"), ("z", "é")):
        catalog.note_checked([at(after, through)])
    assert catalog.checked() == [at("A", "é", took=40)]


def test_many_at_once_leave_ranges_that_do_not_overlap(catalog: Catalog) -> None:
    def note(first: int) -> None:
        for start in range(first, 60, 3):
            catalog.note_checked([at(f"{start:03}", f"{start + 5:03}", T0 + start * HOUR)])

    threads = [threading.Thread(target=note, args=(first,)) for first in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = catalog.checked()
    assert all(one.through <= two.after for one, two in itertools.pairwise(found))
    assert found[0].after == "000"


def test_what_was_divided_tells_no_more_than_it_took() -> None:
    whole = [at(FIRST_KEY, LAST_KEY, took=100)]
    for start in range(9):
        whole = with_checked(whole, at(f"{start}", f"{start + 1}", T0 + HOUR, took=12))
    assert sum(done.took for done in whole) <= 9 * 12 + 100
    assert [done.took for done in whole if done.checked_at > T0] == [9 * 12]


MISSING = Finding(Kind.MISSING_OBJECT, "alerts", "gone", None, "archive", "alerts/5")


def test_a_look_at_some_keys_closes_what_is_of_those(catalog: Catalog) -> None:
    keys = ("alerts/4", "alerts/5", "alerts/6", "alerts/é")
    catalog.note_findings([MISSING._replace(object_key=key) for key in keys], T0)
    catalog.note_findings([Finding(Kind.MISSING_OBJECT, "alerts", "of no key")], T0)
    scope = CheckedScope([Kind.MISSING_OBJECT], T0 + HOUR, ["alerts"], keys=("alerts/4", "alerts/6"))
    assert catalog.close_unseen(scope, "gone", T0 + HOUR) == 2
    left = {record.finding.object_key for record in catalog.findings()}
    assert left == {"alerts/4", "alerts/é", ""}
    scope = CheckedScope([Kind.MISSING_OBJECT], T0 + HOUR, ["alerts"], keys=("alerts/6", LAST_KEY))
    assert catalog.close_unseen(scope, "gone", T0 + HOUR) == 1


def committed_alone(catalog: Catalog, number: int) -> list[Row]:
    where = slice_of(0, number)
    rows = [row_at(where, offset, position=None) for offset in range(number)]
    rows = [
        r._replace(object_key=object_key("alerts", 1_700_000_000_000 + n * 9_000_000, r.uuid))
        for n, r in enumerate(rows)
    ]
    catalog.commit(Batch(where, rows=rows))
    return rows


def test_objects_of_one_document_are_told_from_a_key_on(catalog: Catalog) -> None:
    keys = sorted(row.object_key for row in committed_alone(catalog, 12))
    assert [r.key for r in catalog.recorded("alerts", segments=False)] == keys
    for n, key in enumerate(keys):
        assert [r.key for r in catalog.recorded("alerts", segments=False, after=key)] == keys[n + 1 :]
        assert [r.key for r in catalog.recorded("alerts", segments=False, after=key[:-1])] == keys[n:]
    assert list(catalog.recorded("alerts", segments=False, after=LAST_KEY)) == []


def in_segments(
    catalog: Catalog, offsets: int, step: int, *, partition: int = 0, generation: int = 1
) -> list[str]:
    """Commit messages in segments of so many offsets; the keys."""
    where = slice_of(0, offsets, generation=generation, partition=partition)
    rows = []
    for offset in range(0, offsets, 1):
        start = offset // step * step
        key = segment_key("alerts", generation, partition, start, start + step)
        rows.append(row_at(where, offset, object_key=key, position=offset % step * 10, size_bytes=10))
    catalog.commit(Batch(where, rows=rows))
    return sorted({row.object_key for row in rows})


@pytest.fixture
def in_small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hop_archive.catalog.postgres.rows._PAGE_OFFSETS", 7)


def objects_of(found: list[Recorded]) -> list[tuple[str, int, int]]:
    return [(r.key, r.rows, r.end_bytes) for r in found if r.rows]


@pytest.mark.usefixtures("in_small_pages")
def test_segments_are_told_whole_from_a_key_on_however_long_they_are(catalog: Catalog) -> None:
    keys = [
        *in_segments(catalog, 40, 4),
        *in_segments(catalog, 30, 15, partition=2),
        *in_segments(catalog, 20, 1, partition=10),
        *in_segments(catalog, 12, 3, partition=1, generation=12),
    ]
    sizes = {key: int(key[-25:-5]) - int(key[-46:-26]) for key in keys}
    wanted = [(key, sizes[key], sizes[key] * 10) for key in sorted(keys)]
    assert objects_of(list(catalog.recorded("alerts", segments=True))) == wanted
    for n, (key, _, _) in enumerate(wanted):
        assert objects_of(list(catalog.recorded("alerts", segments=True, after=key))) == wanted[n + 1 :]
        assert objects_of(list(catalog.recorded("alerts", segments=True, after=f"{key[:-5]}"))) == wanted[n:]
    for after in ("", "segments/alerts/", "segments/alerts/1/0", "segments/", "alerts/z"):
        assert objects_of(list(catalog.recorded("alerts", segments=True, after=after))) == wanted
    for after in ("segments/alerts/1/0/", "segments/alerts/1/0/0", "segments/alerts/1/0/!"):
        assert objects_of(list(catalog.recorded("alerts", segments=True, after=after))) == wanted
    in_next = [one for one in wanted if one[0] > "segments/alerts/1/0/x"]
    for after in ("segments/alerts/1/0/x", "segments/alerts/1/0/5", "segments/alerts/1/0/" + "9" * 30):
        assert objects_of(list(catalog.recorded("alerts", segments=True, after=after))) == in_next
    assert list(catalog.recorded("alerts", segments=True, after="segments/alerts/9")) == []


@pytest.mark.usefixtures("in_small_pages")
def test_between_segments_there_may_be_objects_of_one_document_and_nothing(catalog: Catalog) -> None:
    committed_alone(catalog, 30)
    where = slice_of(1_000_000, 1_000_004)
    key = segment_key("alerts", 1, 0, where.start, where.stop)
    rows = [row_at(where, o, object_key=key, position=(o - where.start) * 10, size_bytes=10) for o in range(where.start, where.stop)]  # fmt: skip
    catalog.commit(Batch(where, rows=rows))
    found = list(catalog.recorded("alerts", segments=True))
    assert objects_of(found) == [(key, 4, 40)]
    assert [r.key for r in found] == sorted(r.key for r in found)
    assert all(r.key < key for r in found if not r.rows)
    behind = list(catalog.recorded("alerts", segments=True, after=found[0].key))
    assert [r.key for r in behind] == [r.key for r in found[1:]]


@pytest.mark.usefixtures("in_small_pages")
def test_a_segment_whose_name_is_none_is_told_with_the_others(catalog: Catalog) -> None:
    keys = in_segments(catalog, 40, 4)
    where = slice_of(40, 50)
    odd = [row_at(where, o, object_key=f"odd/{o % 2}", position=o, size_bytes=1) for o in range(40, 50)]
    catalog.commit(Batch(where, rows=odd))
    found = {r.key: 0 for r in catalog.recorded("alerts", segments=True)}
    for record in catalog.recorded("alerts", segments=True):
        found[record.key] += record.rows
    assert {key: rows for key, rows in found.items() if rows} == {
        **dict.fromkeys(keys, 4),
        "odd/0": 5,
        "odd/1": 5,
    }


def test_ledger_rows_of_a_slice_are_counted(catalog: Catalog) -> None:
    for start in range(0, 40, 10):
        catalog.commit(full_batch(start, start + 10))
    assert catalog.miscounts_in(slice_of(0, 40)) == []
    assert catalog.summary_miscounts("alerts") == []
    assert catalog.miscounts_in(slice_of(0, 40, partition=3)) == []
    assert catalog.summary_miscounts("unknown") == []


def test_where_a_ledger_row_ends_orders_a_topics_ledger() -> None:
    places = [(1, 0, 5), (1, 0, 40), (1, 2, 1), (1, 10, 1), (2, 0, 1), (10, 0, 1)]
    keys = [ledger_key(*place) for place in places]
    assert keys == sorted(keys)
    assert FIRST_KEY < keys[0] < keys[-1] < LAST_KEY


@pytest.mark.parametrize("job", [RowJob.CHECK_OBJECTS, RowJob.CHECK_COPIES])
def test_every_new_row_is_looked_at_once_adopted_ones_and_suppressed_too(
    catalog: Catalog, adopt: Adopt, job: RowJob
) -> None:
    batch = full_batch(0, 5)
    catalog.commit(batch)
    adopted = adopted_row()
    adopt([adopted])
    catalog.suppress({batch.rows[0].uuid: "alerts"}, "asked for")
    span = catalog.begin_row_job(job)
    assert span.done_to == 0
    rows, reached = catalog.rows_for(job, ["alerts"], span.done_to, span.last, 100)
    assert {row.uuid for row in rows} == {adopted.uuid, *(row.uuid for row in batch.rows)}
    catalog.note_row_job(job, min(reached, span.settled_to))
    later = full_batch(5, 6)
    catalog.commit(later)
    span = catalog.begin_row_job(job)
    rows, _ = catalog.rows_for(job, ["alerts"], span.done_to, span.last, 100)
    assert {row.uuid for row in rows} <= {later.rows[0].uuid, adopted.uuid, *(row.uuid for row in batch.rows)}
    assert later.rows[0].uuid in {row.uuid for row in rows}


def test_an_object_is_what_its_rows_tell() -> None:
    where = slice_of(0, 3)
    rows = [row_at(where, n, object_key="k", position=n * 10, size_bytes=10) for n in range(3)]
    assert Recorded.of_rows(rows) == Recorded("k", rows[0].bucket, "alerts", 3, 30, True, rows[0].uuid)
    alone = row_at(where, 0, object_key="k", position=None, size_bytes=7)
    assert Recorded.of_rows([alone])[3:6] == (1, 7, False)
    assert isinstance(alone.uuid, uuid.UUID)


@pytest.mark.usefixtures("in_small_pages")
def test_a_segment_whose_name_is_of_no_log_of_its_rows_is_told_wherever_its_rows_come(
    catalog: Catalog,
) -> None:
    keys = in_segments(catalog, 40, 4)
    where = slice_of(40, 44)
    rows = [row_at(where, o, object_key="alerts/damaged", position=(o - 40) * 10, size_bytes=10) for o in range(40, 44)]  # fmt: skip
    catalog.commit(Batch(where, rows=rows))
    for after in ("", keys[3], keys[-1]):
        told = {r.key for r in catalog.recorded("alerts", segments=True, after=after)}
        assert told == {"alerts/damaged", *(key for key in keys if key > after)}
