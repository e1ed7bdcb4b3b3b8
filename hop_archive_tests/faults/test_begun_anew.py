"""A catalog that was lost, and begun anew by a run before it was made again: what is told apart by UUIDs may be told apart otherwise.

Two messages have one UUID of their publisher's: the archive gave the second one another. Then the catalog is lost, retention
takes the first one, and a run that finds an empty catalog gives the second one the publisher's.
"""

from __future__ import annotations

import uuid
from dataclasses import replace

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.identity import digest
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.store.mock import MockStore
from hop_archive.upkeep.repair.plan import Repair, Upstream
from hop_archive.upkeep.repair.repair import RepairOutcome, repair
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.damaging import verified
from hop_archive_tests.invariants import assert_ledger_is_sound
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, exhausted

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
