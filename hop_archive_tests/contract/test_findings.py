"""What catalogs remember of findings: the same over a mock, a mock in a directory, and Postgres."""

from __future__ import annotations

import datetime
import threading
import uuid

from hop_archive.catalog.checked import CheckedScope
from hop_archive.catalog.protocol import Catalog
from hop_archive.model.findings import ACCEPTED, Finding, FindingRecord, Kind
from hop_archive_tests.contract.catalog_helpers import slice_of

pytest_plugins = ("hop_archive_tests.contract.catalog_fixtures",)

T0 = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
DAY = datetime.timedelta(days=1)
OWN = uuid.UUID(int=7)

MISSING = Finding(Kind.MISSING_OBJECT, "alerts", "gone", OWN, "b", "alerts/1.bson", slice_of(3, 4))
CORRUPT = Finding(Kind.CORRUPT_OBJECT, "alerts", "CRC", OWN, "b", "alerts/1.bson", slice_of(3, 4))
HOLE = Finding(Kind.COVERAGE_HOLE, "alerts", "hole", slice=slice_of(10, 20))
FOREIGN = Finding(Kind.FOREIGN_OBJECT, "", "what is this", None, "b", "x.txt")
LOST = Finding(Kind.LOST, "other", "lost", slice=slice_of(0, 5, "other"))
LEADERLESS = Finding(Kind.NO_LEADER, "other", "no leader", partition=3)
EVERY = [MISSING, CORRUPT, HOLE, FOREIGN, LOST, LEADERLESS]


def noted(catalog: Catalog, **only: object) -> list[FindingRecord]:
    return list(catalog.findings(**only))  # type: ignore[arg-type] # as given


def test_what_was_noted_is_found_open_in_the_order_noted(catalog: Catalog) -> None:
    for one in EVERY:
        assert catalog.note_findings([one], T0) == [True]
    found = noted(catalog)
    assert [one.finding for one in found][1:] == EVERY[1:]
    assert {(one.first_seen, one.last_seen, one.resolved_at, one.resolution) for one in found} == {
        (T0, T0, None, "")
    }
    assert [one.finding for one in noted(catalog, topics=["other", ""])] == [FOREIGN, LOST, LEADERLESS]
    assert [one.finding for one in noted(catalog, kinds=[Kind.LOST])] == [LOST]
    assert len(noted(catalog, limit=2)) == 2
    assert noted(catalog, limit=0) == []


def test_a_trouble_seen_again_is_one_finding_with_what_was_last_seen(catalog: Catalog) -> None:
    catalog.note_findings(EVERY, T0)
    catalog.note_findings([one._replace(detail=f"{one.detail} still") for one in EVERY], T0 + DAY)
    catalog.note_findings([HOLE], T0)  # by somebody who was slow
    found = noted(catalog)
    assert len(found) == len(EVERY)
    assert {(one.first_seen, one.last_seen) for one in found} == {(T0, T0 + DAY)}
    assert {one.finding.detail for one in found} >= {"CRC still", "lost still"}


def test_an_object_that_is_missing_is_so_once_whichever_of_its_messages_told_it(catalog: Catalog) -> None:
    first = MISSING._replace(object_key="segments/alerts/1/0/x.bson")
    other = first._replace(uuid=uuid.UUID(int=8), slice=slice_of(4, 5))
    assert catalog.note_findings([first, other], T0) == [True, True]
    (found,) = noted(catalog)
    assert (found.finding.object_key, found.finding.uuid, found.finding.slice) == (
        first.object_key,
        None,
        None,
    )
    assert found.finding.detail == "gone"


def test_what_is_told_twice_of_one_slice_is_one_finding_that_tells_both(catalog: Catalog) -> None:
    one = Finding(Kind.COUNT_MISMATCH, "alerts", "archived: 1, 2", slice=slice_of(0, 9))
    catalog.note_findings([one, one._replace(detail="duplicates: 0, 1")], T0)
    assert [found.finding.detail for found in noted(catalog)] == ["archived: 1, 2; duplicates: 0, 1"]


def test_a_resolved_finding_is_closed_once_and_opened_anew_when_it_is_seen_again(catalog: Catalog) -> None:
    catalog.note_findings(EVERY, T0)
    numbers = [one.number for one in noted(catalog)]
    assert catalog.resolve_findings(numbers[:2], "mended", T0 + DAY) == 2
    assert catalog.resolve_findings(numbers[:1], "again", T0 + 2 * DAY) == 0
    assert len(noted(catalog)) == len(EVERY) - 2
    first, *_ = noted(catalog, open_only=False)
    assert (first.resolved_at, first.resolution) == (T0 + DAY, "mended")
    assert catalog.note_findings([CORRUPT], T0 + 3 * DAY) == [True]
    assert [one.first_seen for one in noted(catalog, kinds=[Kind.CORRUPT_OBJECT], open_only=False)] == [
        T0,
        T0 + 3 * DAY,
    ]


def test_what_a_person_accepted_is_not_opened_again(catalog: Catalog) -> None:
    parts = [LOST._replace(slice=slice_of(*ends, "other")) for ends in ((0, 5), (5, 9))]
    catalog.note_findings([*parts, FOREIGN], T0)
    catalog.resolve_findings([one.number for one in noted(catalog)], f"{ACCEPTED}known", T0)
    merged = LOST._replace(slice=slice_of(0, 9, "other"))
    longer = LOST._replace(slice=slice_of(0, 10, "other"))
    assert catalog.note_findings([FOREIGN, merged, longer], T0 + DAY) == [False, False, True]
    assert [one.finding for one in noted(catalog)] == [longer]
    elsewhere = FOREIGN._replace(object_key="y.txt")
    assert catalog.note_findings([elsewhere], T0) == [True]


def test_a_complete_look_closes_what_it_did_not_see_and_nothing_else(catalog: Catalog) -> None:
    catalog.note_findings(EVERY, T0)
    in_backup = MISSING._replace(bucket="backup")
    spared = CORRUPT._replace(object_key="spared", uuid=uuid.UUID(int=9))
    catalog.note_findings([in_backup, spared], T0)
    catalog.note_findings([HOLE], T0 + DAY)
    scope = CheckedScope(
        [Kind.MISSING_OBJECT, Kind.COVERAGE_HOLE, Kind.LOST], T0 + DAY, ["alerts"], not_bucket="backup"
    )
    assert catalog.close_unseen(scope, "not found any more", T0 + DAY) == 1
    assert {one.finding.kind for one in noted(catalog)} == {one.kind for one in EVERY}
    assert (
        catalog.close_unseen(CheckedScope([Kind.MISSING_OBJECT], T0 + DAY, bucket="backup"), "gone", T0 + DAY)
        == 1
    )
    assert (
        catalog.close_unseen(
            CheckedScope([Kind.CORRUPT_OBJECT], T0 + DAY, spared=["spared"]), "gone", T0 + DAY
        )
        == 1
    )
    young = CheckedScope([Kind.FOREIGN_OBJECT], T0 + DAY, young_since=T0)
    assert catalog.close_unseen(young, "gone", T0 + DAY) == 0
    assert {one.finding for one in noted(catalog)} == {spared, HOLE, FOREIGN, LOST, LEADERLESS}
    assert {one.resolution for one in noted(catalog, open_only=False)} >= {"not found any more", "gone"}


def test_open_findings_are_counted_by_topic_and_kind(catalog: Catalog) -> None:
    catalog.note_findings([*EVERY, HOLE._replace(slice=slice_of(30, 40))], T0)
    counts = [(one.topic, one.kind, one.number) for one in catalog.open_findings()]
    assert counts == [
        ("", Kind.FOREIGN_OBJECT, 1),
        ("alerts", Kind.CORRUPT_OBJECT, 1),
        ("alerts", Kind.COVERAGE_HOLE, 2),
        ("alerts", Kind.MISSING_OBJECT, 1),
        ("other", Kind.LOST, 1),
        ("other", Kind.NO_LEADER, 1),
    ]
    assert [one.topic for one in catalog.open_findings(["other"])] == ["other"] * 2


def test_two_who_note_the_same_at_once_make_one_finding_each(catalog: Catalog) -> None:
    many = [HOLE._replace(slice=slice_of(start, start + 1)) for start in range(200)]
    threads = [
        threading.Thread(target=catalog.note_findings, args=(some, T0)) for some in (many, many[::-1], many)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(noted(catalog)) == len(many)


def test_more_than_one_page_is_streamed(catalog: Catalog) -> None:
    many = [HOLE._replace(slice=slice_of(start, start + 1)) for start in range(1_001)]
    catalog.note_findings(many, T0)
    assert len({one.number for one in catalog.findings()}) == 1_001
    assert len(list(catalog.findings(limit=1_001))) == 1_001
