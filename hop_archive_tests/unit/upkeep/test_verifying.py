"""Verification while the archive goes on working, and what it costs; damage itself is in integration/test_verifying."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Recorded
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Kind
from hop_archive.model.message import TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import Slice
from hop_archive.model.topics import TopicPolicy
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import NewObject, ObjectInfo
from hop_archive.upkeep.remove.remove import Removing
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects, recorded_objects
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.worlds import QUIET, World, WorldLayout, awkward_world


def archived(world: World) -> World:
    for _ in catch_up(world.archive()):
        pass
    return world


def verification(world: World) -> Verification:
    return Verification(world.catalog, world.store, grace_s=0, sleep=lambda _: None)


class Counting(MockStore):
    """A store whose listings cost something: a thousand objects a request."""

    listings = 0

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        self.listings += 1
        return super().listing(prefix, start_after)


def test_many_foreign_objects_are_found_by_few_listings_wherever_they_stand() -> None:
    world = World(store=Counting())
    world.cluster.create_topic(QUIET)
    world.cluster.append(QUIET, b"one")
    archived(world)
    foreign = [f"{folder}{number:03}" for folder in ("a/", "m", f"{QUIET}0", "zz/") for number in range(100)]
    foreign += [f"{QUIET}0", f"{QUIET}/~~", f"{QUIET}/é"]
    world.store.create([NewObject(key, b"?") for key in foreign])
    assert isinstance(world.store, Counting)
    world.store.listings = 0
    found = list(objects(verification(world)))
    assert {one.kind for one in found} == {Kind.FOREIGN_OBJECT}
    assert sorted(one.object_key for one in found) == sorted(foreign)
    assert world.store.listings < 10


class Snapshot(MockCatalog):
    """A catalog of which a long verification sees rows as they stood when it began: without any."""

    def recorded(self, topic: str, *, segments: bool, after: str = "") -> Iterator[Recorded]:
        return iter(())


def test_an_object_that_a_row_names_by_now_is_no_orphan() -> None:
    world = archived(awkward_world())
    world.catalog.__class__ = Snapshot
    assert list(objects(verification(world))) == []


LOOKS = (objects, lambda wanted: recorded_objects(wanted, QUIET))


class AsBefore(MockCatalog):
    """A catalog of which a long verification sees rows as they stood when it began."""

    was: Sequence[Recorded] = ()

    def recorded(self, topic: str, *, segments: bool, after: str = "") -> Iterator[Recorded]:
        of_look = (one for one in self.was if one.topic == topic and one.is_segment is segments)
        return (one for one in of_look if one.key > after)


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_what_was_removed_with_its_object_meanwhile_is_not_missing(layout: WorldLayout) -> None:
    world = archived(awkward_world(layout))
    rows = list(world.catalog.rows(QUIET))
    was = [one for way in (True, False) for one in world.catalog.recorded(QUIET, segments=way)]
    world.catalog.__class__ = AsBefore
    assert isinstance(world.catalog, AsBefore)
    world.catalog.was = was
    removing = Removing(world.catalog, MockStore(deleting_allowed=True))
    for row in rows:
        world.store._shelf.remove(row.object_key)
    wanted = replace(verification(world), query=Query((QUIET,)))
    for look in LOOKS:
        assert {one.kind for one in look(wanted)} == {Kind.MISSING_OBJECT}
    removing.remove_places(
        [entry.slice for entry in world.catalog.ledger([QUIET])],
        "pruned",
        removing.removal("t", ""),
    )
    for look in LOOKS:
        assert list(look(wanted)) == []


class Blink(MockStore):
    """A store whose first listing of a topic was before one of its objects was put where it belongs."""

    hidden = ""

    def listing(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        found = list(super().listing(prefix, start_after))
        if self.hidden and prefix != self.hidden:
            return (info for info in found if info.key != self.hidden)
        return iter(found)


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_an_object_that_is_there_when_it_is_looked_for_again_is_not_missing(layout: WorldLayout) -> None:
    world = archived(awkward_world(layout))
    key = next(world.catalog.rows(QUIET)).object_key
    world.store.__class__ = Blink
    assert isinstance(world.store, Blink)
    world.store.hidden = key
    wanted = verification(world)
    for look in LOOKS:
        assert list(look(wanted)) == []
    world.store._shelf.remove(key)
    for look in LOOKS:
        assert [one.object_key for one in look(wanted)] == [key]


def test_what_retention_took_before_any_run_looked_is_told() -> None:
    world = archived(awkward_world())
    for value in (b"lost", b"still there"):
        world.cluster.append(QUIET, value)
    archive, at = world.archive(), TopicPartition(QUIET, 0)
    world.cluster.delete_records(QUIET, 0, archive.source.watermarks([at])[at].high - 1)
    found = list(source(verification(world), archive))
    assert [one.kind for one in found] == [Kind.LOST, Kind.NOT_ARCHIVED]


def test_a_log_that_lost_its_end_is_told_before_any_run_has_looked() -> None:
    world = archived(awkward_world())
    world.cluster.append(QUIET, b"the last")
    archived(world)
    with world.cluster.read() as state:
        end = state.topics[QUIET].logs[0].high
    world.cluster.lose_end(QUIET, 0, end - 1)
    for value in (b"another", b"more"):
        world.cluster.append(QUIET, value)
    found = list(source(verification(world), world.archive()))
    assert [one.kind for one in found] == [Kind.NOT_ARCHIVED, Kind.LOG_TRUNCATED]
    assert found[1].slice == Slice(QUIET, 1, 0, end - 1, end)


def test_a_glob_of_topics_does_not_mean_those_that_are_vetoed() -> None:
    world = archived(awkward_world())
    world.cluster.create_topic("vetoed")
    world.cluster.append("vetoed", b"one")
    archive = replace(world.archive(), topics=TopicPolicy(veto=("vetoed",)))
    wanted = verification(world)
    assert list(source(replace(wanted, query=Query(("*",))), archive)) == []
    named = list(source(replace(wanted, query=Query(("vetoed",))), archive))
    assert [one.kind for one in named] == [Kind.NOT_ARCHIVED]


def test_a_hole_that_is_filled_meanwhile_is_not_told() -> None:
    world = archived(awkward_world())
    state = world.catalog._state
    with state.change() as tables:
        partition_log = max(tables.ledger, key=lambda at: len(tables.ledger[at]))
        middle = sorted(tables.ledger[partition_log], key=lambda entry: entry.slice.start)[1]
        tables.ledger[partition_log].remove(middle)

    def fill(_: float) -> None:
        with state.change() as tables:
            tables.ledger[partition_log].append(middle)

    wanted = verification(world)
    assert [one.kind for one in ledger(wanted)] == [Kind.COVERAGE_HOLE]
    assert list(ledger(replace(wanted, sleep=fill))) == []
