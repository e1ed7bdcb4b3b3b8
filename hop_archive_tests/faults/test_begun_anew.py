"""A catalog that was lost, and begun anew by a run before it was made again: what is told apart by UUIDs may be told apart otherwise.

Two messages have one UUID of their publisher's: the archive gave the second one another. Then the catalog is lost, retention
takes the first one, and a run that finds an empty catalog gives the second one the publisher's.
"""

from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Outcome
from hop_archive.errors import ConflictError
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import digest
from hop_archive.read.catalog_snapshot import CatalogSnapshot, snapshot
from hop_archive.read.snapshot_locations import FolderLocation
from hop_archive.recover.rebuild.from_snapshot import take_in
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.upkeep.repair.plan import Repair, Upstream
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.damaging import verified
from hop_archive_tests.invariants import assert_ledger_is_sound
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, adopted_row, exhausted

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
SHARED = (("_id", uuid.UUID(int=7).bytes),)


def put(world: World, topic: str, *values: bytes, headers: tuple[tuple[str, bytes], ...] = ()) -> None:
    for value in values:
        world.cluster.append(topic, value, headers=headers, partition=0, timestamp_ms=NOW_MS)


def archived(layout: WorldLayout, second_topic: str = BUSY) -> World:
    """The first message, and in perhaps another topic the second one, of the same UUID; and others."""
    world = World(layout, store=MockStore(deleting_allowed=True))
    for topic in (BUSY, QUIET):
        world.cluster.create_topic(topic)
    put(world, BUSY, b"first", headers=SHARED)
    put(world, second_topic, b"second", headers=SHARED)
    put(world, BUSY, b"another")
    put(world, QUIET, b"quiet")
    exhausted(catch_up(world.archive(run_id="first"), overlap=0))
    return world


def begun_anew(world: World) -> World:
    """Retention takes the first message, and a run finds an empty catalog."""
    anew = replace(world, catalog=MockCatalog())
    with world.cluster.change() as state:
        for log in state.topics[BUSY].logs:
            log.low = 1
    exhausted(catch_up(anew.archive(run_id="anew"), overlap=0))
    return anew


def everything(world: World, topic: str) -> tuple[object, ...]:
    catalog = world.catalog
    parts = catalog.ledger([topic]), list(catalog.rows(topic)), list(catalog.duplicates(topic))
    return *parts, catalog.generations([topic]), catalog.observed([topic])


def contents(world: World) -> dict[bytes, int]:
    """How many rows each content has."""
    wanted = (b"first", b"second", b"another", b"quiet")
    names = {digest(None, headers, value): value for value in wanted for headers in ((), SHARED)}
    found = [names[row.digest or b""] for topic in (BUSY, QUIET) for row in world.catalog.rows(topic)]
    return {value: found.count(value) for value in wanted}


def verification(world: World) -> Verification:
    return Verification(world.catalog, world.store, grace_s=0, sleep=lambda _: None)


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest) -> WorldLayout:
    return request.param  # type: ignore[no-any-return]


@pytest.fixture
def location(tmp_path: Path) -> FolderLocation:
    return FolderLocation(tmp_path / "catalog")


def test_a_snapshot_is_not_taken_in_where_other_content_has_a_uuid_of_it_by_now(
    layout: WorldLayout, location: FolderLocation
) -> None:
    world = archived(layout)
    snapshot(CatalogSnapshot(world.catalog, location))
    anew = begun_anew(world)
    before = everything(anew, BUSY)
    wanted = Rebuild(anew.catalog, anew.store)
    with pytest.raises(ConflictError) as refused:
        exhausted(take_in(wanted, location))
    text = str(refused.value)
    for fact in (f"{uuid.UUID(int=7)}", f"{BUSY}[0]@0-1", f"{BUSY}[0]@1-2", str(location), "empty database"):
        assert fact in text
    with pytest.raises(ConflictError):  # nor is what the snapshot alone could tell of it made up of the store
        exhausted(rebuild(wanted))
    assert everything(anew, BUSY) == before
    assert list(anew.catalog.rows(QUIET)) == list(world.catalog.rows(QUIET)), "the others are taken in"
    empty = replace(anew, catalog=MockCatalog())
    exhausted(take_in(Rebuild(empty.catalog, empty.store), location))
    assert list(empty.catalog.rows(BUSY)) == list(world.catalog.rows(BUSY)), (
        "what the message says to do helps"
    )


def test_so_it_is_where_that_content_is_of_another_topic_and_nothing_of_its_own_is_there(
    layout: WorldLayout, location: FolderLocation
) -> None:
    world = archived(layout, second_topic=QUIET)
    snapshot(CatalogSnapshot(world.catalog, location))
    anew = begun_anew(world)
    with pytest.raises(ConflictError, match=rf"{BUSY}\[0\]@0-1 .* {QUIET}\[0\]@0-1"):
        exhausted(take_in(Rebuild(anew.catalog, anew.store), location))
    assert contents(anew) == {b"first": 0, b"second": 1, b"another": 1, b"quiet": 1}
    assert len(anew.catalog.generations([QUIET])[QUIET]) == 1


def test_so_it_is_where_another_archiver_wrote_the_row_of_the_snapshot(location: FolderLocation) -> None:
    world = archived("segment")
    own = uuid.UUID(int=9)
    world.catalog.adopt([adopted_row(QUIET)._replace(uuid=own)])
    snapshot(CatalogSnapshot(world.catalog, location))
    anew = begun_anew(world)
    put(anew, BUSY, b"another", headers=(("_id", own.bytes),))
    exhausted(catch_up(anew.archive(), overlap=0))
    with pytest.raises(ConflictError, match=rf"{QUIET}.*{own}.*another archiver"):
        exhausted(take_in(Rebuild(anew.catalog, anew.store, topics=(QUIET,)), location))


def test_a_snapshot_is_not_taken_in_where_a_generation_of_it_has_another_number(
    layout: WorldLayout, location: FolderLocation
) -> None:
    """The log lost its end, which made a second generation of the same topic id; begun anew, it is the first."""
    world = archived(layout)
    with world.cluster.change() as state:
        state.topics[BUSY].logs[0].lose_end(2)
    exhausted(catch_up(world.archive(), overlap=0))
    put(world, BUSY, b"quiet")
    exhausted(catch_up(world.archive(), overlap=0))
    one, two = world.catalog.generations([BUSY])[BUSY]
    assert one.topic_id == two.topic_id
    snapshot(CatalogSnapshot(world.catalog, location))
    anew = replace(world, catalog=MockCatalog())
    exhausted(catch_up(anew.archive(), overlap=0))
    before = everything(anew, BUSY)
    with pytest.raises(ConflictError, match=r"generation 2 .* generation 1"):
        exhausted(take_in(Rebuild(anew.catalog, anew.store), location))
    assert everything(anew, BUSY) == before


def test_what_a_run_called_lost_that_began_anew_is_archived_again_where_no_uuid_is_in_the_way(
    layout: WorldLayout, location: FolderLocation
) -> None:
    world = archived(layout, second_topic=QUIET)
    world.cluster.append(BUSY, b"first", headers=SHARED, timestamp_ms=NOW_MS + 1)
    world.cluster.delete_topic(QUIET)
    exhausted(catch_up(world.archive(), overlap=0))
    snapshot(CatalogSnapshot(world.catalog, location))
    anew = begun_anew(world)
    assert Outcome.LOST in {entry.outcome for entry in anew.catalog.ledger([BUSY])}
    exhausted(take_in(Rebuild(anew.catalog, anew.store), location))
    assert list(rebuild(Rebuild(anew.catalog, anew.store))) == []
    assert contents(anew) == contents(world)
    assert {entry.outcome for entry in anew.catalog.ledger([BUSY])} == {Outcome.ARCHIVED}
    assert len(anew.catalog.generations([BUSY])[BUSY]) == 1
    assert_ledger_is_sound(anew.catalog.ledger())


def rebuilt_from_the_store(anew: World) -> list[Finding]:
    found = list(rebuild(Rebuild(anew.catalog, anew.store)))
    assert_ledger_is_sound(anew.catalog.ledger())
    assert len(anew.catalog.generations([BUSY])[BUSY]) == 1
    return found


def test_a_rebuild_from_the_store_gives_no_message_a_second_row_and_names_what_gets_none(
    layout: WorldLayout,
) -> None:
    anew = begun_anew(archived(layout))
    found = rebuilt_from_the_store(anew)
    assert contents(anew) == {b"first": 0, b"second": 1, b"another": 1, b"quiet": 1}
    assert [f.uuid for f in found if f.kind is Kind.CORRUPT_OBJECT] == [uuid.UUID(int=7)]
    (copy,) = [f for f in found if f.kind is Kind.ORPHAN_OBJECT]
    (kept,) = [row for row in anew.catalog.rows(BUSY) if row.offset == 1]
    assert copy.detail == f"{kept.object_key} holds the same message"


def test_repair_leaves_what_has_no_row_since_other_content_has_its_uuid(layout: WorldLayout) -> None:
    anew = begun_anew(archived(layout))
    rebuilt_from_the_store(anew)
    (alone,) = {f.object_key for f in rebuilt_from_the_store(anew) if f.kind is Kind.CORRUPT_OBJECT}
    exhausted(verified(anew.archive()))
    said = {
        done.record.finding.object_key: (done.outcome, done.how)
        for done in repair(Repair(anew.catalog, anew.store, None, Upstream(anew.archive())), dry_run=False)
    }
    outcome, how = said[alone]
    assert (outcome, "other content" in how) == (RepairOutcome.LEFT, True), how
    assert alone in {info.key for info in anew.store.listing()}


def test_an_empty_catalog_gets_a_row_of_each_message_though_one_stands_under_two_uuids(
    layout: WorldLayout,
) -> None:
    anew = replace(begun_anew(archived(layout)), catalog=MockCatalog())
    found = rebuilt_from_the_store(anew)
    assert contents(anew) == {b"first": 1, b"second": 1, b"another": 1, b"quiet": 1}
    assert {f.kind for f in found} == {Kind.ORPHAN_OBJECT}
    wanted = verification(anew)
    assert {f.kind for f in [*objects(wanted), *ledger(wanted)]} <= {Kind.ORPHAN_OBJECT}
