"""Compacting: which objects become one, what is left alone, and that everybody else goes on with what it made."""

from __future__ import annotations

import datetime
import tempfile
import tracemalloc
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.catalog.compaction import ObjectShare
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Batch, Correction, Outcome
from hop_archive.errors import ConfigurationError, CorruptError, ForbiddenError, UnavailableError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Kind
from hop_archive.model.keys import is_compressed_key, is_segment_key, slice_of
from hop_archive.model.progress import Progress
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive.model.times import milliseconds
from hop_archive.model.topics import LayoutPolicy
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.fetch import fetch_documents
from hop_archive.read.snapshot_locations import FolderLocation
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.compact.compact import compact, plan_compaction
from hop_archive.upkeep.compact.plan import Compaction, Group, groups, logs_to_look_at
from hop_archive.upkeep.remove.prune import Policy, prune
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive.upkeep.repair.plan import Repair, Upstream
from hop_archive.upkeep.repair.repair import repair
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.objects import backup_objects, objects
from hop_archive.upkeep.verify.recorder import FindingsRecorder
from hop_archive.upkeep.verify.share import verify_share
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.compactions import MOMENT, after_grace, compact_all, trickled_world, wanted
from hop_archive_tests.contract.catalog_helpers import row_at
from hop_archive_tests.damaging import verified
from hop_archive_tests.removals import Backed, archive_all, assert_whole, copied
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, WorldLayout, at_call, exhausted

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
AT = PartitionLog("alerts", 1, 0)


# Which objects become one


def catalog_of(sizes: Sequence[tuple[str, int, int]], start: int = 0) -> MockCatalog:
    """A catalog of one log, in which objects of so many rows and bytes follow one another, archived when the world was."""
    catalog = MockCatalog(clock=lambda: MOMENT)
    extend(catalog, sizes, start)
    return catalog


def extend(catalog: MockCatalog, sizes: Sequence[tuple[str, int, int]], start: int) -> None:
    for key, rows, size_bytes in sizes:
        where = Slice(*AT, start, start + rows)
        each = [
            row_at(where, offset, object_key=key, position=None, size_bytes=size_bytes // rows, bucket="mock")
            for offset in range(start, start + rows)
        ]
        catalog.commit(Batch(where, rows=each))
        start += rows


def small(count: int, size_bytes: int = 10, name: str = "s") -> list[tuple[str, int, int]]:
    return [(f"{name}{number:03}", 1, size_bytes) for number in range(count)]


def compaction(segment_bytes: int = 1_000, **changes: object) -> Compaction:
    layouts = LayoutPolicy("segment", segment_bytes=segment_bytes)
    return Compaction(layouts, datetime.timedelta(days=1), **changes)  # type: ignore[arg-type] # as the caller has them


def planned(catalog: MockCatalog, asked: Compaction | None = None) -> list[Group]:
    asked = asked or compaction()
    later = MOMENT + datetime.timedelta(days=30)
    return [
        group
        for log in logs_to_look_at(catalog, asked, "alerts", later)
        for group in groups(catalog, asked, log, "mock")
        if group.is_worth_it
    ]


def names(group: Group) -> list[str]:
    return [share.key for share in group.objects]


def test_neighbours_become_one_up_to_the_size_of_a_segment() -> None:
    one, two = planned(catalog_of(small(32, 50)))
    assert [len(one.objects), len(two.objects)] == [20, 12]
    assert (one.place.start, one.place.stop, two.place.start, two.place.stop) == (0, 20, 20, 32)


def test_fewer_than_ten_objects_are_left_alone() -> None:
    assert planned(catalog_of(small(9))) == []
    assert len(planned(catalog_of(small(10)))) == 1


def test_an_object_of_half_a_segment_is_left_alone_and_parts_those_around_it() -> None:
    one, two = planned(catalog_of([*small(11), ("large", 1, 500), *small(12, name="t")]))
    assert names(one) == [f"s{n:03}" for n in range(11)]
    assert names(two) == [f"t{n:03}" for n in range(12)]
    assert (one.place.stop, two.place.start) == (11, 12)
    assert len(planned(catalog_of([*small(11), ("small", 1, 499), *small(12, name="t")]))) == 1


def test_nothing_of_another_bucket_is_taken() -> None:
    catalog = catalog_of(small(11))
    where = Slice(*AT, 11, 12)
    catalog.commit(Batch(where, rows=[row_at(where, 11, object_key="there", position=None, bucket="other")]))
    extend(catalog, small(11, name="t"), 12)
    assert [set(names(group)) & {"there"} for group in planned(catalog)] == [set(), set()]


@pytest.mark.parametrize("outcome", [Outcome.LOST, Outcome.SKIPPED, Outcome.PRUNED])
def test_no_segment_reaches_over_what_was_not_archived_or_was_taken_away(outcome: Outcome) -> None:
    """Its key says that all of its offsets were read: a rebuild would call what was lost absent."""
    catalog = catalog_of(small(11))
    catalog.commit(Batch(Slice(*AT, 11, 15), outcome, "because"))
    extend(catalog, small(11, name="t"), 15)
    assert [(group.place.start, group.place.stop) for group in planned(catalog)] == [(0, 11), (15, 26)]


def test_absent_offsets_between_messages_are_of_a_segment_so_that_a_rebuild_knows_that_they_were_read() -> (
    None
):
    catalog = MockCatalog(clock=lambda: MOMENT)
    for number in range(12):
        where = Slice(*AT, number * 10, number * 10 + 10)
        catalog.commit(
            Batch(
                where,
                rows=[
                    row_at(
                        where,
                        where.start + 4,
                        object_key=f"o{number}",
                        position=None,
                        size_bytes=10,
                        bucket="mock",
                    )
                ],
            )
        )
    (group,) = planned(catalog)
    assert (group.place.start, group.place.stop) == (0, 120)


def test_what_is_young_waits_and_so_does_what_stands_behind_it() -> None:
    catalog = catalog_of(small(12))
    catalog._clock = lambda: MOMENT + datetime.timedelta(days=29, hours=12)
    extend(catalog, small(1, name="young"), 12)
    catalog._clock = lambda: MOMENT
    extend(catalog, small(12, name="t"), 13)
    (group,) = planned(catalog)
    assert (group.place.start, group.place.stop) == (0, 12)


def test_objects_that_stand_among_the_messages_of_one_another_come_together_whole() -> None:
    catalog = MockCatalog(clock=lambda: MOMENT)
    where = Slice(*AT, 0, 40)
    rows = [
        row_at(where, n, object_key=f"o{n % 20:02}", position=None, size_bytes=20, bucket="mock")
        for n in range(40)
    ]
    catalog.commit(Batch(where, rows=rows))
    (group,) = planned(catalog)
    assert (group.place.start, group.place.stop, group.rows) == (0, 40, 40)
    for part in planned(catalog, compaction(480)):
        standing = [
            r for r in catalog.select(Query(places=(part.place,))) if r.object_key in set(names(part))
        ]
        assert len(standing) == part.rows


def test_a_quiet_topic_is_looked_at_daily_and_each_message_is_written_anew_some_few_times() -> None:
    """Ten messages a day for half a year: what is more than half of all that is at the end is left until there is more."""
    catalog = catalog_of([])
    written: Counter[int] = Counter()
    asked = compaction(10_000_000)
    for day in range(180):
        extend(catalog, small(10, name=f"day {day:03} "), day * 10)
        for group in planned(catalog, asked):
            rows = [
                r for r in catalog.select(Query(places=(group.place,))) if r.object_key in set(names(group))
            ]
            written.update(row.offset for row in rows if row.offset is not None)
            for row in rows:
                catalog._state._value.rows[row.uuid] = row._replace(object_key=f"made on {day:03}")  # type: ignore[union-attr] # it has been used
    assert max(written.values()) <= 9
    assert len({row.object_key for row in catalog.rows("alerts")}) <= 15


# What is done


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_second_run_has_nothing_to_do_and_reads_no_rows(layout: WorldLayout) -> None:
    world = trickled_world(layout)
    first = compact_all(world)
    assert first.progress.counts["segments"] == 2
    assert list(plan_compaction(world.removing(), wanted(world))) == []
    world.catalog.objects_in = None  # type: ignore[method-assign, assignment] # nobody is to call it
    assert compact_all(world).progress.counts["segments"] == 0


def test_what_comes_later_is_put_to_what_was_compacted_before() -> None:
    world = trickled_world("message")
    compact_all(world)
    for number in range(24):
        world.cluster.append(QUIET, b"more %d" % number)
        archive_all(world)
    compact_all(world)
    (key,) = {row.object_key for row in world.catalog.rows(QUIET)}
    place = slice_of(key)
    assert place is not None
    assert (place.start, place.stop) == (0, 39)
    after_grace(world)
    assert_whole(world)


def test_it_stops_when_asked_to_and_goes_on_where_it_was() -> None:
    world = trickled_world("message")
    answers = iter([False, True])
    assert compact_all(world, stop=lambda: next(answers)).progress.counts["segments"] == 1
    assert compact_all(world).progress.counts["segments"] == 1


def test_a_limit_ends_a_run_after_the_segment_that_reaches_it() -> None:
    world = trickled_world("message")
    assert compact_all(world, limit=1).progress.counts["segments"] == 1
    assert compact_all(world, limit=1).progress.counts["segments"] == 1
    assert compact_all(world, limit=1).progress.counts["segments"] == 0


def test_the_plan_ends_where_the_limit_ends_the_run_and_reads_no_further() -> None:
    world = trickled_world("message")
    read: list[Slice] = []
    objects_in = world.catalog.objects_in

    def noted(place: Slice, most: int) -> Sequence[ObjectShare]:
        read.append(place)
        return objects_in(place, most)

    world.catalog.objects_in = noted  # type: ignore[method-assign] # it tells what it is asked
    (part,) = plan_compaction(world.removing(), wanted(world, limit=1))
    assert len({place.topic for place in read}) == 1
    done = compact_all(world, limit=1).progress.counts
    assert (part.segments, part.objects, part.messages) == (1, done["objects"], done["messages"])


def test_a_plan_holds_the_objects_of_one_segment_however_many_there_are() -> None:
    """Two hundred thousand objects, told one by one: what kept those of a log would be noticed."""

    class Telling(MockCatalog):
        def objects_in(self, place: Slice, most: int) -> Sequence[ObjectShare]:
            stop = min(place.stop, place.start + most)
            return [ObjectShare(f"o{n}", "mock", 1, 10, 10, n, n, 0) for n in range(place.start, stop)]

    catalog, count = Telling(clock=lambda: MOMENT), 200_000
    where = Slice(*AT, 0, count)
    catalog.commit(Batch(where, rows=[row_at(where, 0, object_key="o0", position=None, bucket="mock")]))
    later = MOMENT + datetime.timedelta(days=30)
    tracemalloc.start()
    try:
        (part,) = plan_compaction(
            Removing(catalog, MockStore(), now=lambda: later), compaction(10_000, topics=("alerts",))
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (part.objects, part.segments) == (count, count // 1_000)
    assert peak < 16_000_000, "those of a page and of a segment are 9 MB, all of them 42"


def test_only_topics_that_are_meant_are_compacted() -> None:
    world = trickled_world("message")
    compact_all(world, topics=("*.quiet",))
    assert {is_segment_key(row.object_key) for row in world.catalog.rows(QUIET)} == {True}
    assert {is_segment_key(row.object_key) for row in world.catalog.rows(BUSY)} == {False}
    with pytest.raises(ConfigurationError):
        compact_all(world, topics=("no.such",))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_segments_are_compressed_where_the_stanza_says_so(layout: WorldLayout) -> None:
    world = trickled_world(layout)
    compact_all(world)
    keys = {row.object_key for row in world.catalog.rows(QUIET)}
    assert {is_compressed_key(key) for key in keys} == {layout == "zstd"}


def test_the_plan_says_what_is_done_and_changes_nothing() -> None:
    world = trickled_world("segment")
    before = (world.rows(), world.catalog._state._value)
    plan = list(plan_compaction(world.removing(), wanted(world)))
    assert (world.rows(), world.catalog._state._value) == before
    done = compact_all(world).progress.counts
    assert sum(part.objects for part in plan) == done["objects"]
    assert sum(part.segments for part in plan) == done["segments"] == 2
    assert sum(part.messages for part in plan) == done["messages"]
    assert sum(part.stored_bytes for part in plan) == done["old_bytes"] == done["new_bytes"]


def test_where_nothing_may_be_deleted_nothing_is_made() -> None:
    world = trickled_world("message")
    before = [info.key for info in world.store.listing()]
    world.store._deleting_allowed = False
    with pytest.raises(ForbiddenError):
        compact_all(world)
    assert [info.key for info in world.store.listing()] == before


class ReadOnly(MockStore):
    """A backup that only its owner writes to, as one that S3 fills itself."""

    def create(self, objects: Sequence[object]) -> Sequence[object]:  # type: ignore[override] # it creates none
        raise ForbiddenError("no right to PutObject")


def test_old_copies_stay_in_a_backup_that_takes_no_new_ones() -> None:
    world = trickled_world("message")
    copies = {info.key for info in world.backup.listing()}
    world.backup.__class__ = ReadOnly
    removing = world.removing()
    exhausted(compact(removing, wanted(world)))
    assert "no right to PutObject" in removing.tally.backup_refusal
    after_grace(world)
    assert {info.key for info in world.backup.listing()} == copies
    assert {info.key for info in world.store.listing()} == {row.object_key for row in world.rows()}


# Damage


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_damaged_is_left_alone_and_told_as_verification_tells_it(layout: WorldLayout) -> None:
    world = trickled_world(layout)
    victim = next(iter(world.catalog.rows(QUIET)))
    body = world.store._shelf.get(victim.object_key) or b""
    world.store.damage(victim.object_key, body[:20] + bytes(9) + body[29:])
    asked = wanted(world)
    found = list(compact(world.removing(), asked))
    verification = Verification(world.catalog, world.store)
    assert [*map(str, found)] == [*map(str, documents(verification))] != []
    assert {one.kind for one in found} <= {Kind.CORRUPT_OBJECT, Kind.WRONG_SIZE}
    assert {record.finding for record in world.catalog.findings()} == set(found)
    assert (asked.progress.counts["damaged"], asked.progress.counts["segments"]) == (1, 1)
    assert victim in world.rows()


def test_a_segment_that_reads_back_otherwise_is_named_by_no_row() -> None:
    world = trickled_world("message")
    before = world.rows()

    class Decaying(MockStore):
        def fetch(self, extents: Iterator[Extent]) -> Iterator[bytes]:  # type: ignore[override] # an iterator here
            for body, extent in [(b, e) for e in extents for b in MockStore.fetch(self, [e])]:
                yield body[:-1] + b"?" if extent.key.startswith("segments/") else body

    world.store.__class__ = Decaying
    with pytest.raises(Exception, match="is not what was stored a moment ago"):
        compact_all(world)
    assert world.rows() == before
    world.store.__class__ = MockStore
    compact_all(world)
    after_grace(world)
    assert_whole(world)


@pytest.mark.parametrize(("decaying", "other"), [(BUSY, QUIET), (QUIET, BUSY)])
def test_one_topic_whose_segments_read_back_otherwise_keeps_no_other_from_being_compacted(
    decaying: str, other: str
) -> None:
    world = trickled_world("message")

    class Decaying(MockStore):
        def fetch(self, extents: Iterator[Extent]) -> Iterator[bytes]:  # type: ignore[override] # an iterator here
            for body, extent in [(b, e) for e in extents for b in MockStore.fetch(self, [e])]:
                yield body[:-1] + b"?" if extent.key.startswith(f"segments/{decaying}/") else body

    world.store.__class__ = Decaying
    with pytest.raises(CorruptError, match="is not what was stored a moment ago"):
        compact_all(world)
    assert any(is_segment_key(row.object_key) for row in world.catalog.rows(other))
    assert not any(is_segment_key(row.object_key) for row in world.catalog.rows(decaying))


@pytest.mark.parametrize("refusal", [ForbiddenError("AccessDenied"), UnavailableError("InternalError")])
@pytest.mark.parametrize(("protected", "other"), [(BUSY, QUIET), (QUIET, BUSY)])
def test_an_object_that_is_always_refused_keeps_no_other_log_from_being_compacted(
    protected: str, other: str, refusal: Exception
) -> None:
    world = trickled_world("message")

    class Refusing(MockStore):
        def fetch(self, extents: Iterator[Extent]) -> Iterator[bytes]:  # type: ignore[override] # an iterator here
            for extent in extents:
                if extent.key.startswith(f"{protected}/"):
                    raise refusal
                yield from MockStore.fetch(self, [extent])

    world.store.__class__ = Refusing
    with pytest.raises(type(refusal), match=r"could not be compacted; the others are done"):
        compact_all(world)
    assert any(is_segment_key(row.object_key) for row in world.catalog.rows(other))
    assert not any(is_segment_key(row.object_key) for row in world.catalog.rows(protected))


# Everybody else


@pytest.mark.parametrize("layout", LAYOUTS)
def test_objects_that_wait_for_their_readers_are_no_orphans_until_they_should_be_gone(
    layout: WorldLayout,
) -> None:
    world = trickled_world(layout)
    compact_all(world)
    verification = Verification(
        world.catalog, world.store, grace_s=-60, backup=world.backup, backup_grace_s=-60, sleep=lambda _: None
    )
    assert list(objects(verification)) == []
    assert list(backup_objects(verification)) == []
    scheduled = replace(verification, checked=Progress())
    assert list(verify_share(scheduled, FindingsRecorder(world.catalog), least=10_000)) == []
    waiting = verification.checked.counts["objects waiting to be deleted"]
    assert waiting == len(list(world.store.listing())) - len({row.object_key for row in world.rows()}) > 20
    assert scheduled.checked.counts["objects waiting to be deleted"] >= waiting
    world.catalog._clock = lambda: MOMENT + datetime.timedelta(days=4)
    late = list(objects(Verification(world.catalog, world.store, grace_s=-60, sleep=lambda _: None)))
    assert {finding.kind for finding in late} == {Kind.ORPHAN_OBJECT}
    assert len(late) == waiting


@pytest.mark.parametrize("layout", LAYOUTS)
def test_who_read_rows_before_and_their_objects_after_all_was_deleted_gets_the_documents(
    layout: WorldLayout,
) -> None:
    world = trickled_world(layout)
    rows = world.rows()
    compact_all(world)
    after_grace(world)
    assert [found.problems for found in fetch_documents(world.store, rows, world.catalog.find)] == [()] * len(
        rows
    )
    assert any(found.problems for found in fetch_documents(world.store, rows))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_over", [False, True])
def test_a_rebuild_beside_a_compacted_catalog_adds_and_finds_nothing(
    layout: WorldLayout, is_over: bool
) -> None:
    world = trickled_world(layout)
    compact_all(world)
    if is_over:
        after_grace(world)
    rows, ledger = world.rows(), world.catalog.ledger()
    assert list(rebuild(Rebuild(world.catalog, world.store))) == []
    assert (world.rows(), world.catalog.ledger()) == (rows, ledger)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_lost_catalog_is_rebuilt_with_each_message_once_in_its_segment(layout: WorldLayout) -> None:
    """Also while the old objects are there still: of two equal documents that in the later object is taken."""
    world = trickled_world(layout)
    compact_all(world)
    then = {row.uuid: row for row in world.rows()}
    lost = MockCatalog()
    found = list(rebuild(Rebuild(lost, world.store)))
    assert {row.uuid: row for topic in lost.topics() for row in lost.rows(topic)} == then
    assert {finding.kind for finding in found} == {Kind.ORPHAN_OBJECT}
    after_grace(world)
    again = MockCatalog()
    assert list(rebuild(Rebuild(again, world.store))) == []
    assert {row.uuid: row for topic in again.topics() for row in again.rows(topic)} == then
    quiet = PartitionLog(QUIET, 1, 0)
    assert again.coverage()[quiet] == world.coverage()[quiet]


def test_a_snapshot_of_the_catalog_says_where_documents_were_moved_to() -> None:
    world = trickled_world("message")
    with tempfile.TemporaryDirectory() as folder:
        location = FolderLocation(Path(folder))
        snapshot(CatalogSnapshot(world.catalog, location))
        unchanged = snapshot(CatalogSnapshot(world.catalog, location))
        compact_all(world, topics=(QUIET,))
        after = snapshot(CatalogSnapshot(world.catalog, location))
        assert after["topics"][QUIET]["files"] != unchanged["topics"][QUIET]["files"]
        assert after["topics"][BUSY] == unchanged["topics"][BUSY]


def test_what_was_compacted_is_pruned_and_the_rest_of_its_segment_stays() -> None:
    world = trickled_world("message")
    compact_all(world)
    after_grace(world)
    removing = world.removing()
    rows = list(world.catalog.rows(QUIET))
    old = datetime.datetime.fromtimestamp((rows[5].timestamp_ms + 1) / 1000, datetime.UTC)
    policy = Policy((QUIET,), datetime.timedelta(days=30))
    prune(
        Removing(removing.catalog, removing.store, removing.backup, now=lambda: old + policy.older_than),
        policy,
    )
    left = list(world.catalog.rows(QUIET))
    assert 0 < len(left) < len(rows)
    assert [found.problems for found in fetch_documents(world.store, left)] == [()] * len(left)


def test_all_of_a_segment_that_was_compacted_is_pruned_with_its_object() -> None:
    world = copied(trickled_world("message"))
    compact_all(world)
    after_grace(world)
    removing = world.removing()
    policy = Policy((QUIET,), datetime.timedelta(days=30))
    much_later = MOMENT + datetime.timedelta(days=365)
    prune(Removing(removing.catalog, removing.store, removing.backup, now=lambda: much_later), policy)
    assert list(world.catalog.rows(QUIET)) == []
    assert_whole(world)


def requests_to_read(world: Backed) -> int:
    """How many requests reading everything by place takes: one an object, where they are small."""
    return len({row.object_key for row in world.rows()})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_reading_takes_a_request_a_segment_afterwards_and_compacting_two_reads_and_two_writes_for_each(
    layout: WorldLayout,
) -> None:
    world = trickled_world(layout)
    before = requests_to_read(world)
    calls: Counter[str] = Counter()

    class Counting(MockStore):
        def create(self, new: Sequence[object]) -> Sequence[object]:  # type: ignore[override] # passed on
            calls["put"] += len(new)
            return MockStore.create(self, new)  # type: ignore[arg-type] # likewise

    for store in (world.store, world.backup):
        store.__class__ = Counting
    done = compact_all(world).progress.counts
    assert calls["put"] == 2 * done["segments"]
    assert requests_to_read(world) == before - done["objects"] + done["segments"]
    assert done["objects"] >= 10 * done["segments"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kinds", [None, (Kind.MISSING_OBJECT,), (Kind.ORPHAN_OBJECT,)])
def test_a_catalog_that_was_put_back_to_before_finds_its_documents_in_the_segments(
    layout: WorldLayout, kinds: tuple[Kind, ...] | None
) -> None:
    """From a dump, say: its rows name objects that are gone. Whatever is mended first, nothing is put aside that is needed."""
    world = trickled_world(layout)
    before = copied(world).catalog
    compact_all(world)
    after_grace(world)
    then = {row.uuid: row for row in world.rows()}
    world.catalog = before
    found = list(verified(world.archive()))
    assert {finding.kind for finding in found} == {Kind.MISSING_OBJECT, Kind.ORPHAN_OBJECT}
    exhausted(
        repair(Repair(world.catalog, world.store, world.backup, Upstream(None), kinds=kinds), dry_run=False)
    )
    assert {row.uuid: row for row in world.rows()} == then
    exhausted(repair(Repair(world.catalog, world.store, world.backup, Upstream(None)), dry_run=False))
    assert list(verified(world.archive())) == []
    assert_whole(world)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("is_mended_in_part", [False, True])
def test_suppressing_after_a_catalog_was_put_back_deletes_no_segment_that_alone_has_others_documents(
    layout: WorldLayout, is_mended_in_part: bool
) -> None:
    world = trickled_world(layout)
    before = copied(world).catalog
    compact_all(world)
    after_grace(world)
    then = {row.uuid: row for row in world.rows()}
    world.catalog = before
    victim = list(before.rows(QUIET))[-1]
    if is_mended_in_part:
        before.correct_rows([Correction(victim, then[victim.uuid])])
    with pytest.raises(CorruptError, match="alone has the document"):
        suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1)
    exhausted(verified(world.archive()))
    exhausted(repair(Repair(world.catalog, world.store, world.backup, Upstream(None)), dry_run=False))
    assert suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1).done == (victim.uuid,)
    rows = world.rows()
    assert len(rows) == len(then)
    assert [found.problems for found in fetch_documents(world.store, rows)] == [()] * len(rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_catalog_that_was_put_back_to_while_a_segment_was_made_does_not_have_it_deleted(
    layout: WorldLayout,
) -> None:
    """Then the segment is a pending delete, long due, and its documents are nowhere else by now."""
    world = trickled_world(layout)
    kept: list[MockCatalog] = []
    compact_all(world, at_call("catalog.move_documents", lambda: kept.append(copied(world).catalog)))
    after_grace(world)
    then = {row.uuid: row for row in world.rows()}
    (world.catalog,) = kept[:1]
    assert world.catalog._state._value is not None
    made = {key for _, key in world.catalog._state._value.condemned}
    after_grace(world)
    assert made <= {info.key for info in world.store.listing()}
    assert world.catalog.pending_keys(world.store.bucket, made) == frozenset()
    exhausted(verified(world.archive()))
    exhausted(repair(Repair(world.catalog, world.store, world.backup, Upstream(None)), dry_run=False))
    assert {row.uuid: row for row in world.rows()} == then
    assert_whole(world)


def test_the_memory_taken_is_that_of_some_segments_however_much_there_is(tmp_path: Path) -> None:
    """Eighty documents of 400 kB become segments of ten: what held all of them would be noticed."""
    each, segment_bytes = 400_000, 4_400_000
    world = Backed("message", catalog=MockCatalog(clock=lambda: MOMENT))
    world.store = MockStore(directory=tmp_path / "store", deleting_allowed=True)
    world.backup = MockStore("backup", directory=tmp_path / "backup", bucket="backup", deleting_allowed=True)
    world.limits = replace(world.limits, batch_messages=1, batch_bytes=2 * each, buffer_bytes=4 * each)
    world.cluster.create_topic(QUIET)
    for number in range(80):
        world.cluster.append(QUIET, bytes([number]) * each)
    exhausted(catch_up(world.archive(), overlap=0))
    asked = compaction(segment_bytes)
    tracemalloc.start()
    try:
        exhausted(compact(world.removing(), asked))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert asked.progress.counts["segments"] == 8
    # 3.7 of it is what compacting holds; Python's own table of interned strings, after many tests, may grow just then: 0.9 more.
    assert peak < 5.5 * segment_bytes < 80 * each


def test_what_is_a_month_old_is_compacted_of_a_log_that_goes_on_though_its_ledger_rows_are_merged() -> None:
    """Of more than a week ago there is one ledger row, with the time of the last commit: by that alone nothing would ever be old."""
    catalog = MockCatalog(clock=lambda: MOMENT)
    for hour in range(24 * 60):
        at = MOMENT + datetime.timedelta(hours=hour)
        catalog._clock = lambda at=at: at  # type: ignore[misc]
        where = Slice(*AT, hour, hour + 1)
        row = row_at(
            where,
            hour,
            object_key=f"o{hour}",
            position=None,
            size_bytes=10,
            bucket="mock",
            timestamp_ms=milliseconds(at),
        )
        catalog.commit(Batch(where, rows=[row]))
    assert len(catalog.ledger(["alerts"])) < 60
    asked = replace(compaction(1_000_000), older_than=datetime.timedelta(days=30))

    def due(now: datetime.datetime) -> list[Group]:
        logs = logs_to_look_at(catalog, asked, "alerts", now)
        return [g for log in logs for g in groups(catalog, asked, log, "mock") if g.is_worth_it]

    (group,) = due(at)
    assert (group.place.start, group.place.stop) == (0, 24 * 30 - 1)
    (group,) = due(at + datetime.timedelta(days=31))
    assert group.place.stop == 24 * 60, "of a log that fell silent, all in the end"


def with_one_that_got_no_row(layout: WorldLayout) -> tuple[Backed, str]:
    """Its UUID is other content's in a catalog that was begun anew, as a rebuild has told; and the key of its segment."""
    before = Backed(layout, store=MockStore(deleting_allowed=True))
    shared = (("_id", uuid.UUID(int=7).bytes),)
    before.cluster.create_topic(BUSY)
    for value, headers in ((b"first", shared), (b"between", ()), (b"second", shared)):
        before.cluster.append(BUSY, value, headers=headers, timestamp_ms=NOW_MS)
    exhausted(catch_up(before.archive(), overlap=0))
    (alone,) = {row.object_key for row in before.catalog.rows(BUSY)}
    world = Backed(
        layout, cluster=before.cluster, store=before.store, catalog=MockCatalog(clock=lambda: MOMENT)
    )
    world.backup = MockStore("backup", bucket="backup", deleting_allowed=True)
    world.cluster.delete_records(BUSY, 0, 2)
    exhausted(catch_up(world.archive(), overlap=0))
    exhausted(rebuild(Rebuild(world.catalog, world.store)))
    return world, alone


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_a_segment_that_alone_has_a_message_which_got_no_row_is_left_where_it_is(layout: WorldLayout) -> None:
    world, alone = with_one_that_got_no_row(layout)
    for number in range(12):
        world.cluster.append(BUSY, b"later %d" % number, timestamp_ms=NOW_MS + number)
        archive_all(world)
    assert alone in {row.object_key for row in world.catalog.rows(BUSY)}, "it is no orphan"
    made = compact_all(world)
    after_grace(world)
    assert made.progress.counts["segments"] == 1, "all others are compacted"
    assert alone in {info.key for info in world.store.listing()}
    found = list(objects(Verification(world.catalog, world.store, grace_s=0, sleep=lambda _: None)))
    assert alone in {one.object_key for one in found if one.kind is Kind.ORPHAN_OBJECT}, "and told of"


@pytest.mark.parametrize("layout", ["segment", "zstd"])
def test_who_has_a_message_suppressed_beside_one_that_got_no_row_is_told_what_to_do(
    layout: WorldLayout,
) -> None:
    world, alone = with_one_that_got_no_row(layout)
    (between,) = [row for row in world.catalog.rows(BUSY) if row.object_key == alone]
    with pytest.raises(
        CorruptError, match=f"{alone} alone may have the message {uuid.UUID(int=7)} of offset 0"
    ):
        suppress(world.removing(), [between.uuid], "a reason")
    assert alone in {info.key for info in world.store.listing()}


def test_a_copy_in_the_backup_that_alone_has_a_message_which_got_no_row_stays_there() -> None:
    world, alone = with_one_that_got_no_row("segment")
    (body,) = world.store.fetch([Extent(alone)])
    world.backup.create([NewObject(alone, body)])
    (between,) = [row for row in world.catalog.rows(BUSY) if row.object_key == alone]
    world.store.delete([alone])
    removing = world.removing()
    assert between.slice is not None
    removing.remove_places([between.slice], "pruned", removing.removal("prune", "a policy"))
    assert alone in {info.key for info in world.backup.listing()}
