"""A rebuilt catalog says what the original said, as far as documents tell, whatever call fails or is the last."""

from __future__ import annotations

import contextlib
import copy
import random
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.protocol import Catalog
from hop_archive.catalog.records import UNKNOWN_CLUSTER, UNTOLD, Outcome, Row
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.survey import REBUILT
from hop_archive.model.findings import Finding, Kind
from hop_archive.model.keys import alternative_key
from hop_archive.model.slices import OffsetSet, PartitionLog
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.source.protocol import Source
from hop_archive.store.protocol import Extent, NewObject
from hop_archive.upkeep.verify.documents import documents
from hop_archive.upkeep.verify.ledger import ledger
from hop_archive.upkeep.verify.objects import objects
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import Verification
from hop_archive_tests.invariants import assert_archived, assert_ledger_is_sound, assert_no_object_twice
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, awkward_world, exhausted, fill

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
PAIRS = 60


def archived_world(layout: WorldLayout) -> World:
    world = awkward_world(layout)
    exhausted(catch_up(world.archive(run_id="first"), overlap=0))
    return world


def mixed_world() -> World:
    """Both topics archived in part as objects of their own, in part in segments."""
    world = archived_world("message")
    fill(world.cluster, seed=1)
    world.layout = "segment"
    exhausted(catch_up(world.archive(), overlap=0))
    return world


def small_world() -> World:
    """A copy, a collision, a hole and a message without a UUID; in part alone, in part in segments."""
    world = World("message")
    world.cluster.create_topic(BUSY)
    given = (("_id", uuid.UUID(int=7).bytes),)
    for layout in LAYOUTS:
        world.layout = layout
        for value in (b"one", b"one", b"other"):
            world.cluster.append(BUSY, value, headers=given, partition=0, timestamp_ms=NOW_MS)
        for number in range(3):
            world.cluster.append(BUSY, b"%d" % number + layout.encode(), headers=(), partition=0)
        held = world.cluster.begin()
        world.cluster.append(BUSY, b"kept in " + layout.encode(), partition=0, transaction=held)
        world.cluster.commit(held)
        exhausted(catch_up(world.archive(), overlap=0))
    return world


def rebuilt(
    world: World, work_dir: Path | None = None, faults: Faults | None = None, source: Source | None = None
) -> list[Finding]:
    wrap = (faults or Faults()).wrap
    catalog, store = wrap(world.catalog, "catalog"), wrap(world.store, "store")
    asked = None if source is None else wrap(source, "source")
    return list(rebuild(Rebuild(catalog, store, asked, work_dir=work_dir, run_id="rebuild", most_rows=5)))


def rows_of(catalog: Catalog) -> dict[str, list[Row]]:
    return {topic: list(catalog.rows(topic)) for topic in catalog.topics()}


def with_an_empty_catalog(world: World) -> World:
    return replace(world, catalog=MockCatalog())


def assert_equal(original: World, again: World) -> None:
    """Every column that documents can give is as it was, and nothing is claimed that was not known."""
    assert rows_of(again.catalog) == rows_of(original.catalog)
    for topic in original.catalog.topics():
        assert again.catalog.collisions(topic) == original.catalog.collisions(topic)
        before, now = original.catalog.coverage([topic]), again.catalog.coverage([topic])
        for partition_log, covered in now.items():
            assert not covered - before[partition_log], (
                f"{partition_log}: {covered} of {before[partition_log]}"
            )
        assert again.catalog.miscounts(topic) == []
        assert again.catalog.unledgered(topic) == []
    assert_ledger_is_sound(again.catalog.ledger())
    now_by_topic = {s.topic: s for s in again.catalog.summaries()}
    for summary in original.catalog.summaries():
        found = now_by_topic[summary.topic]
        assert (found.messages, found.size_bytes) == (summary.messages, summary.size_bytes)
        assert found.first_timestamp_ms == summary.first_timestamp_ms
        assert found.last_timestamp_ms == summary.last_timestamp_ms


def assert_goes_on(world: World) -> None:
    """Archiving goes on over a rebuilt catalog: nothing twice, nothing lost, and all that can be verified is so."""
    before = {row.uuid for rows in rows_of(world.catalog).values() for row in rows}
    listed = list(world.store.listing())
    exhausted(catch_up(world.archive(), overlap=0))
    assert {row.uuid for rows in rows_of(world.catalog).values() for row in rows} == before
    assert list(world.store.listing()) == listed, "an object was made again"
    fill(world.cluster, seed=7)
    exhausted(catch_up(world.archive(), overlap=0))
    archive = world.archive()
    assert_ledger_is_sound(archive.catalog.ledger())
    assert_no_object_twice(archive)
    wanted = Verification(archive.catalog, archive.store, grace_s=0, sleep=lambda _: None)
    found = [*objects(wanted), *documents(wanted), *ledger(wanted), *source(wanted, archive)]
    assert found == []
    assert not [e for e in archive.catalog.ledger() if e.outcome is Outcome.LOST]


@pytest.fixture(params=[*LAYOUTS, "mixed"])
def original(request: pytest.FixtureRequest) -> World:
    return mixed_world() if request.param == "mixed" else archived_world(request.param)


def test_an_empty_catalog_is_made_equal_in_all_that_documents_tell(original: World) -> None:
    again = with_an_empty_catalog(original)
    assert rebuilt(again) == []
    assert_equal(original, again)
    assert {g.cluster_id for some in again.catalog.generations([BUSY, QUIET]).values() for g in some} == {
        UNKNOWN_CLUSTER
    }
    before = (rows_of(again.catalog), again.catalog.ledger())
    assert rebuilt(again) == []
    assert (rows_of(again.catalog), again.catalog.ledger()) == before


def test_archiving_goes_on_over_a_rebuilt_catalog_without_loss_or_doubling(original: World) -> None:
    again = with_an_empty_catalog(original)
    rebuilt(again)
    assert_goes_on(again)


def test_what_retention_took_before_the_rebuild_is_not_called_lost_afterwards(original: World) -> None:
    again = with_an_empty_catalog(original)
    rebuilt(again)
    with original.cluster.change() as state:
        for topic in state.topics.values():
            for log in topic.logs:
                log.low = min(log.stable, 10)
    exhausted(catch_up(again.archive(), overlap=0))
    gone = [entry for entry in again.catalog.ledger() if entry.outcome is not Outcome.ARCHIVED]
    assert {entry.outcome for entry in gone} == {Outcome.SKIPPED}
    assert {e.reason for e in gone if e.slice.generation == 2} == {REBUILT}
    assert {e.reason for e in gone if e.slice.generation == 1} <= {UNTOLD}


def attempt(world: World, work_dir: Path | None, faults: Faults) -> None:
    with contextlib.suppress(CrashError, HopArchiveError):
        rebuilt(world, work_dir, faults, world.archive().source)


def calls_without_faults(original: World) -> int:
    faults = Faults()
    attempt(with_an_empty_catalog(original), None, faults)
    assert {name.partition(".")[0] for name in faults.calls} == {"catalog", "store", "source", "reader"}
    return len(faults.calls)


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", [crash, fail])
def test_whatever_single_call_fails_or_is_the_last_the_next_run_completes_the_catalog(
    tmp_path: Path, when: When, act: Callable[[str], None]
) -> None:
    original = small_world()
    for number in range(1, calls_without_faults(original) + 1):
        again = with_an_empty_catalog(original)
        work_dir = tmp_path / str(number) if number % 2 else None
        faults = Faults((Fault(number, when, act),))
        attempt(again, work_dir, faults)
        assert len(faults.calls) >= number, "the fault did not strike"
        assert rebuilt(again, work_dir, source=again.archive().source) == []
        assert_equal(original, again)
        assert len(again.catalog.generations([BUSY])[BUSY]) == 1


def test_random_pairs_of_faults_in_two_runs_leave_nothing_out_and_nothing_twice(tmp_path: Path) -> None:
    original = small_world()
    count = calls_without_faults(original)
    chance = random.Random(3)
    for number in range(PAIRS):
        again = with_an_empty_catalog(original)
        for _ in range(2):
            fault = Fault(chance.randint(1, count), chance.choice(list(When)), chance.choice([crash, fail]))
            attempt(again, tmp_path / str(number), Faults((fault,)))
        assert rebuilt(again, tmp_path / str(number)) == []
        assert_equal(original, again)


def test_faults_while_a_damaged_catalog_is_mended_leave_nothing_out_and_nothing_twice() -> None:
    original = small_world()
    before = rows_of(original.catalog)
    with original.catalog._state.read() as tables:
        whole = copy.deepcopy(tables)
    chance = random.Random(4)
    for number in range(PAIRS):
        damaged = MockCatalog()
        damaged._state._value = copy.deepcopy(whole)
        lose_rows_and_ledger_rows(damaged)
        again = replace(original, catalog=damaged)
        fault = Fault(1 + number, chance.choice(list(When)), chance.choice([crash, fail]))
        attempt(again, None, Faults((fault,)))
        assert rebuilt(again) == []
        assert rows_of(damaged) == before
        assert damaged.miscounts(BUSY) == []
        assert damaged.unledgered(BUSY) == []
        assert_ledger_is_sound(damaged.ledger())


def lose_rows(catalog: MockCatalog) -> None:
    with catalog._state.change() as tables:
        for own in list(tables.rows)[::3]:
            del tables.rows[own]


def lose_ledger_rows(catalog: MockCatalog) -> None:
    with catalog._state.change() as tables:
        for partition_log in tables.ledger:
            tables.ledger[partition_log] = tables.ledger[partition_log][1::2]


def lose_ledger_and_generations(catalog: MockCatalog) -> None:
    with catalog._state.change() as tables:
        tables.ledger.clear()
        tables.generations.clear()


def lose_rows_and_ledger_rows(catalog: MockCatalog) -> None:
    lose_rows(catalog)
    lose_ledger_rows(catalog)


@pytest.mark.parametrize(
    "damage", [lose_rows, lose_ledger_rows, lose_ledger_and_generations, lose_rows_and_ledger_rows]
)
def test_a_damaged_catalog_gets_back_what_it_lacks_and_keeps_what_it_has(
    original: World, damage: Callable[[MockCatalog], None]
) -> None:
    before = rows_of(original.catalog)
    copies = {topic: list(original.catalog.duplicates(topic)) for topic in (BUSY, QUIET)}
    damage(original.catalog)
    assert rebuilt(original) == []
    assert rows_of(original.catalog) == before
    assert {topic: list(original.catalog.duplicates(topic)) for topic in (BUSY, QUIET)} == copies
    assert_ledger_is_sound(original.catalog.ledger())
    for topic in (BUSY, QUIET):
        assert original.catalog.miscounts(topic) == []
        assert original.catalog.unledgered(topic) == []
    assert_goes_on(original)


def test_offsets_between_documents_that_stand_alone_are_not_taken_for_read() -> None:
    original = archived_world("message")
    again = with_an_empty_catalog(original)
    rebuilt(again)
    offsets = {
        at: OffsetSet.of(
            (row.offset, row.offset + 1)
            for row in again.catalog.rows(at.topic)
            if row[1:3] == at[1:] and row.offset is not None
        )
        for at in again.catalog.coverage()
    }
    archived = [e.slice for e in again.catalog.ledger() if e.outcome is Outcome.ARCHIVED]
    for at, found in offsets.items():
        assert OffsetSet.of((s.start, s.stop) for s in archived if s.partition_log == at) == found
    untold = [entry for entry in again.catalog.ledger() if entry.outcome is not Outcome.ARCHIVED]
    assert {(entry.outcome, entry.reason) for entry in untold} == {(Outcome.SKIPPED, UNTOLD)}


# What the source has now


def test_a_topic_that_holds_what_is_archived_is_recognised_and_read_on_where_the_store_ends(
    original: World,
) -> None:
    again = with_an_empty_catalog(original)
    rebuilt(again, source=again.archive().source)
    assert again.catalog.generations([BUSY, QUIET]).keys() == {BUSY, QUIET}
    for topic in (BUSY, QUIET):
        (now,) = again.catalog.generations([topic])[topic]
        (then,) = original.catalog.generations([topic])[topic]
        assert (now.cluster_id, now.topic_id) == (then.cluster_id, then.topic_id)
    exhausted(catch_up(again.archive(), overlap=0))
    assert again.catalog.coverage() == original.catalog.coverage()
    for topic in (BUSY, QUIET):
        if (
            original.layout == "message"
        ):  # a segment's name covers copies, too, and does not say which they are
            assert list(again.catalog.duplicates(topic)) == list(original.catalog.duplicates(topic))
        assert len(again.catalog.generations([topic])[topic]) == 1
    assert_goes_on(again)


def test_a_topic_made_anew_is_not_taken_for_the_archived_one(original: World) -> None:
    for topic, partitions in ((BUSY, 2), (QUIET, 1)):
        original.cluster.delete_topic(topic)
        original.cluster.create_topic(topic, partitions)
    for seed in (21, 22, 23):
        fill(original.cluster, seed=seed)
    again = with_an_empty_catalog(original)
    rebuilt(again, source=again.archive().source)
    for topic in (BUSY, QUIET):
        assert {g.cluster_id for g in again.catalog.generations([topic])[topic]} == {UNKNOWN_CLUSTER}
    before = sum(len(rows) for rows in rows_of(again.catalog).values())
    exhausted(catch_up(again.archive(), overlap=0))
    assert_archived(again.archive(), again.cluster, BUSY)
    assert sum(len(rows) for rows in rows_of(again.catalog).values()) > before + 100


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_passed_over_of_a_topic_made_anew_that_was_archived_before_the_catalog_was_rebuilt(
    layout: WorldLayout,
) -> None:
    """The rebuild finds what is of the topic of before, under the generation's number, or under none: the log has yet to come there."""
    original = archived_world(layout)
    for topic, partitions in ((BUSY, 2), (QUIET, 1)):
        original.cluster.delete_topic(topic)
        original.cluster.create_topic(topic, partitions)
        original.cluster.append(topic, b"the first of the topic of now")
    again = with_an_empty_catalog(original)
    exhausted(catch_up(again.archive(), overlap=0))
    rebuilt(again)
    for seed in (21, 22, 23):
        fill(again.cluster, seed=seed)
    exhausted(catch_up(again.archive(), overlap=0))
    for topic in (BUSY, QUIET):
        assert_archived(again.archive(), again.cluster, topic)


def test_a_rebuild_that_asks_the_source_later_takes_back_what_it_called_untold() -> None:
    original = archived_world("message")
    again = with_an_empty_catalog(original)
    rebuilt(again)
    assert UNTOLD in {entry.reason for entry in again.catalog.ledger()}
    rebuilt(again, source=again.archive().source)
    assert UNTOLD not in {entry.reason for entry in again.catalog.ledger()}
    exhausted(catch_up(again.archive(), overlap=0))
    assert again.catalog.coverage() == original.catalog.coverage()


def test_two_lives_of_a_topic_whose_offsets_collide_get_a_generation_each() -> None:
    world = archived_world("message")
    for topic, partitions in ((BUSY, 2), (QUIET, 1)):
        world.cluster.delete_topic(topic)
        world.cluster.create_topic(topic, partitions)
    time.sleep(
        0.01
    )  # objects of one millisecond would be told apart by their messages' times, which are alike
    fill(world.cluster, seed=5)
    exhausted(catch_up(world.archive(), overlap=0))
    again = with_an_empty_catalog(world)
    assert rebuilt(again) == []
    assert rows_of(again.catalog) == rows_of(world.catalog)
    assert {row.generation for rows in rows_of(again.catalog).values() for row in rows} == {1, 2}


# What is wrong in the store


def test_two_objects_of_one_message_make_one_row_and_are_told() -> None:
    world = archived_world("message")
    (row, *_) = world.catalog.rows(QUIET)
    (body,) = world.store.fetch([Extent(row.object_key)])
    time.sleep(0.01)
    world.store.create([NewObject(alternative_key(row.object_key, 1), body)])
    again = with_an_empty_catalog(world)
    (finding,) = rebuilt(again)
    assert (finding.kind, finding.uuid, finding.object_key) == (Kind.ORPHAN_OBJECT, row.uuid, row.object_key)
    assert [r.uuid for r in again.catalog.rows(QUIET)] == [r.uuid for r in world.catalog.rows(QUIET)]


def place_in(row: Row) -> tuple[str, int | None]:
    return row.object_key, row.frame


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_damaged_document_is_told_and_its_offset_is_not_taken_for_read(layout: WorldLayout) -> None:
    world = archived_world(layout)
    victim = list(world.catalog.rows(BUSY))[3]
    shelf = world.store._shelf
    body = bytearray(shelf.get(victim.object_key) or b"")
    if victim.frame is None:
        at = (victim.position or 0) + body[victim.position or 0 :].index(b"alert") + 1
    else:
        at = victim.frame + (victim.frame_size or 0) - 1
    body[at] ^= 1
    shelf.remove(victim.object_key)
    shelf.add(victim.object_key, bytes(body))
    again = with_an_empty_catalog(world)
    (finding,) = rebuilt(again, source=again.archive().source)
    assert (finding.kind, finding.object_key) == (Kind.CORRUPT_OBJECT, victim.object_key)
    assert victim.uuid not in {row.uuid for row in again.catalog.rows(BUSY)}
    rows = list(world.catalog.rows(BUSY))
    same = [row for row in rows if victim.frame is not None and place_in(row) == place_in(victim)] or [victim]
    assert len(list(again.catalog.rows(BUSY))) == len(rows) - len(same)
    assert victim.offset is not None
    assert victim.offset not in again.catalog.coverage()[PartitionLog(BUSY, 1, victim.partition or 0)]
    exhausted(catch_up(again.archive(), overlap=0))
    assert victim.uuid in {row.uuid for row in again.catalog.rows(BUSY)}, "Kafka still held it"


def test_a_segment_cut_short_gives_what_is_whole_of_it() -> None:
    world = archived_world("segment")
    victim = list(world.catalog.rows(BUSY))[3]
    shelf = world.store._shelf
    body = shelf.get(victim.object_key) or b""
    shelf.remove(victim.object_key)
    shelf.add(victim.object_key, body[: (victim.position or 0) + 10])
    again = with_an_empty_catalog(world)
    (finding,) = rebuilt(again)
    assert (finding.kind, finding.object_key) == (Kind.CORRUPT_OBJECT, victim.object_key)
    lost = {r.uuid for r in world.catalog.rows(BUSY)} - {r.uuid for r in again.catalog.rows(BUSY)}
    same = {r.uuid for r in world.catalog.rows(BUSY) if r.object_key == victim.object_key}
    assert victim.uuid in lost < same


def test_a_catalog_put_back_from_a_dump_catches_up_with_kafka_without_loss_or_doubling(
    original: World,
) -> None:
    """Objects are there whose rows are gone: the next run reads Kafka again, and finds the same objects."""
    dump = MockCatalog()
    with original.catalog._state.read() as tables:
        dump._state._value = copy.deepcopy(tables)
    fill(original.cluster, seed=3)
    exhausted(catch_up(original.archive(), overlap=0))
    restored = replace(original, catalog=dump)
    assert_goes_on_from_dump(original, restored)


def assert_goes_on_from_dump(original: World, restored: World) -> None:
    listed = list(original.store.listing())
    exhausted(catch_up(restored.archive(), overlap=0))
    assert rows_of(restored.catalog) == rows_of(original.catalog)
    assert restored.catalog.coverage() == original.catalog.coverage()
    assert list(original.store.listing()) == listed, "it was cut alike, so every object was there"
    assert_goes_on(restored)
