"""Topics that are called as folders of the archive's are: archived, verified, rebuilt and cleaned as all others are."""

from __future__ import annotations

import uuid
from collections.abc import Collection
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Kind
from hop_archive.model.keys import (
    alternative_key,
    is_own,
    is_segment_key,
    object_key,
    segment_key,
    slice_of,
    topic_of,
    uuid_of,
)
from hop_archive.model.query import Query
from hop_archive.model.topics import TopicPolicy
from hop_archive.read.snapshot_locations import PREFIX
from hop_archive.recover.rebuild.plan import stored_topics
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.source.mock.source import MockSource
from hop_archive.store.mock import MockStore
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.remove.clean_tests import clean_topics
from hop_archive.upkeep.repair.plan import QUARANTINE
from hop_archive.upkeep.verify.objects import backup_objects, objects
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.removals import archive_all, small_world
from hop_archive_tests.strategies import timestamps_ms
from hop_archive_tests.worlds import NOW_MS, World, WorldLayout, exhausted

RESERVED = ("hop_archive", "segments", "2023", "quarantine", "probe", "restores", "snapshots", "ledger")
OWN = (
    "hop_archive/probe",
    f"{QUARANTINE}hop_archive/2026/1/2/3/{uuid.UUID(int=7)}.bson",
    f"{QUARANTINE}{segment_key('2023', 1, 0, 0, 5)}",
    f"{PREFIX}manifests/00000001.json",
    "hop_archive/restores/000001-abc/report.json",
)
FOREIGN = ("hop_archive/readme.txt", "hop_archive/other/x", "segments/nowhere/x", "segments/2023/x")


def orphan(topic: str) -> str:
    return object_key(topic, NOW_MS, uuid.UUID(int=99))


def orphan_segment(topic: str) -> str:
    return segment_key(topic, 1, 0, 700, 800)


def archived_world(layout: WorldLayout, topics: Collection[str]) -> World:
    world = World(layout)
    for topic in topics:
        world.cluster.create_topic(topic)
        for number in range(10):
            world.cluster.append(topic, b"%d of %s" % (number, topic.encode()), headers=())
    exhausted(catch_up(world.archive(), overlap=0))
    world.store.create([NewObject(key, b"?") for key in OWN])
    return world


def found(world: World, *topics: str) -> list[tuple[str, str]]:
    wanted = Verification(world.catalog, world.store, Query(topics), grace_s=-60)
    return sorted((one.kind.value, one.object_key) for one in objects(wanted))


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_nothing_is_wrong_with_them(layout: WorldLayout) -> None:
    world = archived_world(layout, RESERVED)
    assert found(world) == []
    assert [one for topic in RESERVED for one in found(world, topic)] == []
    wanted = Verification(world.catalog, world.store, backup=world.store)
    assert list(backup_objects(wanted)) == []


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_each_object_is_counted_once(layout: WorldLayout) -> None:
    world = archived_world(layout, [topic for topic in RESERVED if topic != "2023"])
    wanted = Verification(world.catalog, world.store)
    assert list(objects(wanted)) == []
    there = [info for info in world.store.listing() if not is_own(info.key)]
    assert wanted.checked.counts["objects"] == len(there)


@pytest.mark.parametrize("known", [RESERVED, ("hop_archive",), ("segments",), ("2023",), ("unlike",)])
def test_each_orphan_and_each_foreign_object_is_told_once_whichever_topics_are_known(
    known: Collection[str],
) -> None:
    world = archived_world("message", known)
    orphans = [key for topic in RESERVED for key in (orphan(topic), orphan_segment(topic))]
    world.store.create([NewObject(key, b"?") for key in (*orphans, *FOREIGN)])
    assert found(world) == sorted(
        [
            *((Kind.ORPHAN_OBJECT.value, key) for key in orphans),
            *((Kind.FOREIGN_OBJECT.value, key) for key in FOREIGN),
        ]
    )


def test_a_message_of_theirs_that_is_missing_is_told() -> None:
    world = archived_world("message", RESERVED)
    gone = {next(iter(world.catalog.rows(topic))).object_key for topic in RESERVED}
    kept = [info.key for info in world.store.listing() if info.key not in gone]
    bodies = list(world.store.fetch(Extent(key) for key in kept))
    world.store = MockStore()
    world.store.create(list(map(NewObject, kept, bodies)))
    assert found(world) == sorted((Kind.MISSING_OBJECT.value, key) for key in gone)


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
def test_they_are_rebuilt_as_they_were(layout: WorldLayout) -> None:
    world = archived_world(layout, RESERVED)
    assert stored_topics(world.store) == sorted(RESERVED)
    catalog = MockCatalog()
    assert list(rebuild(Rebuild(catalog, world.store))) == []
    for topic in RESERVED:
        assert list(catalog.rows(topic)) == list(world.catalog.rows(topic))


@pytest.mark.parametrize("layout", ["message", "segment", "zstd"])
@pytest.mark.parametrize("topic", ["hop_archive", "segments", "2023"])
def test_cleaning_one_takes_its_objects_away_and_nothing_else(layout: WorldLayout, topic: str) -> None:
    world = small_world(layout)
    for name in RESERVED:
        world.cluster.create_topic(name)
        world.cluster.append(name, b"value of %s" % name.encode(), headers=())
    archive_all(world)
    world.store.create([NewObject(key, b"?") for key in (*OWN, orphan(topic), orphan_segment(topic))])
    archive = replace(
        world.archive(),
        topics=TopicPolicy(test_topics=(topic,)),
        source=MockSource(cluster=world.cluster, writable=True),
    )
    others = [info.key for info in world.store.listing() if topic_of(info.key) != topic]
    clean_topics(archive, world.removing(), [topic], grace_s=-60)
    assert [info.key for info in world.store.listing()] == others


@given(st.sampled_from(RESERVED), timestamps_ms, st.uuids(), st.integers(0, 3))
def test_no_key_of_a_message_is_one_of_the_archives_own(
    topic: str, timestamp_ms: int, own: uuid.UUID, attempt: int
) -> None:
    key = alternative_key(object_key(topic, timestamp_ms, own), attempt)
    assert (topic_of(key), uuid_of(key), is_own(key), is_segment_key(key)) == (topic, own, False, False)


@pytest.mark.parametrize("key", OWN)
def test_what_is_the_archives_own_is_of_no_topic(key: str) -> None:
    assert (is_own(key), topic_of(key), uuid_of(key)) == (True, None, None)


@pytest.mark.parametrize(
    "key",
    [
        "segments/t/1/0/99999999999999999999-99999999999999999999.bson",
        f"segments/t/1/0/{0:020}-{2**63:020}.bson",
        f"segments/t/{2**31}/0/{0:020}-{5:020}.bson",
        f"segments/t/1/{2**31}/{0:020}-{5:020}.bson",
        f"segments/t/1/0/{5:020}-{5:020}.bson",
        f"segments/t/1/0/{0:020}-{5:020}.{10**12}.bson",
        f"segments/t/١/0/{0:020}-{5:020}.bson",
        f"t/2026/1/2/3/{uuid.UUID(int=7)}.{10**12}.bson",
    ],
)
def test_numbers_that_kafka_never_has_make_no_key_of_ours(key: str) -> None:
    assert (topic_of(key), is_segment_key(key), slice_of(key)) == (None, False, None)
