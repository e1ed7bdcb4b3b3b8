"""Several writers at once, zombies and left-overs: nothing is doubled, nothing is overwritten."""

from __future__ import annotations

import datetime
import random
import threading
import uuid
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import wait
from dataclasses import replace

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch, Outcome, Removal
from hop_archive.errors import UnavailableError
from hop_archive.ingest import write
from hop_archive.ingest.follow import catch_up
from hop_archive.ingest.read import Reading, read_slices
from hop_archive.ingest.survey import OVERTAKEN, plan_work
from hop_archive.ingest.write import (
    Done,
    _Writer,
    archive_slices,
    commit_batches,
    prepare,
    proven_epochs,
    store_groups,
    store_slices,
    write_group,
)
from hop_archive.model.identity import Identity
from hop_archive.model.keys import object_key, segment_key
from hop_archive.model.slices import Slice
from hop_archive.store.protocol import NewObject
from hop_archive_tests.cli_helpers import DEADLINE_S
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice, fetched
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, World, WorldLayout, awkward_world, exhausted, fill

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")


def assert_all_sound(world: World) -> None:
    archive = world.archive()
    for topic in (BUSY, QUIET):
        assert_archived(archive, world.cluster, topic)
    assert_no_object_twice(archive)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("overlap", [0, 1])
def test_two_writers_taking_turns_at_random_archive_everything_once(
    layout: WorldLayout, overlap: int
) -> None:
    chance = random.Random(7)
    for _ in range(40):
        world = awkward_world(layout)
        writers = [catch_up(world.archive(run_id=name), overlap=overlap) for name in ("one", "two")]
        while writers:
            writer = chance.choice(writers)
            if next(writer, None) is None:
                writers.remove(writer)
        assert_all_sound(world)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_threads_given_the_same_backlog_archive_everything_once(layout: WorldLayout) -> None:
    world = awkward_world(layout)
    for seed in range(1, 10):
        fill(world.cluster, seed)
    errors: list[BaseException] = []

    def work(name: str) -> None:
        try:
            exhausted(catch_up(world.archive(run_id=name)))
        except BaseException as error:  # noqa: BLE001 - whatever it is, the test has to tell
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two", "three")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not errors
    assert_all_sound(world)


def test_who_comes_second_is_told_who_was_first() -> None:
    world = awkward_world()
    slices = plan_work(world.archive()).plan.slices
    exhausted(archive_slices(world.archive(run_id="first"), slices))
    notes = {done.note for done in archive_slices(world.archive(run_id="second"), slices)}
    assert notes
    assert all("already archived by first" in note for note in notes)


def test_a_commit_whose_answer_was_lost_counts_as_this_runs_own_when_it_is_tried_again() -> None:
    world = awkward_world()
    archive = world.archive(run_id="one")
    batches = store_slices(archive, plan_work(archive).plan.slices)
    commit_batches(archive, batches)
    again = commit_batches(archive, batches)
    assert [done.batches for done in again] == [(batch,) for batch in batches]
    assert_all_sound(world)


def test_it_counts_as_its_own_also_when_it_was_merged_with_others_of_this_run_and_as_nobody_elses() -> None:
    world = awkward_world()
    archive = world.archive(run_id="one")
    batches = store_slices(archive, plan_work(archive).plan.slices)
    commit_batches(archive, batches)
    for at, covered in archive.catalog.coverage().items():
        stop = covered.ranges[-1].stop
        archive.catalog.commit(Batch(Slice(*at, stop, stop + 10), run_id="one"))
    tomorrow = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    assert archive.catalog.merge_ledger(tomorrow) > 0
    again = commit_batches(archive, batches)
    assert [done.batches for done in again] == [(batch,) for batch in batches]
    rival = commit_batches(world.archive(run_id="two"), [replace(batch, run_id="two") for batch in batches])
    assert {done.taken for done in rival} == {True}


def test_what_a_run_has_called_lost_does_not_count_as_archived_by_it() -> None:
    world = awkward_world()
    archive = world.archive(run_id="one")
    batch, *_ = store_slices(archive, plan_work(archive).plan.slices)
    archive.catalog.commit(Batch(batch.slice, Outcome.LOST, OVERTAKEN, run_id="one"))
    (done,) = commit_batches(archive, [batch])
    assert (done.taken, done.archived) == (True, 0)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_zombie_that_wakes_up_with_prepared_batches_does_no_harm(layout: WorldLayout) -> None:
    world = awkward_world(layout)
    zombie = world.archive(run_id="zombie")
    slices = plan_work(zombie).plan.slices
    prepared = prepare(zombie, read(zombie, slices))
    exhausted(catch_up(world.archive(run_id="successor")))
    before = {info.key: info for info in world.store.listing()}
    dones = write_group(zombie, prepared)
    assert not any(done.batches for done in dones)
    assert {info.key: info for info in world.store.listing() if info.key in before} == before
    assert_all_sound(world)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_other_bytes_under_a_key_are_left_alone_and_the_next_free_name_is_taken(layout: WorldLayout) -> None:
    world = World(layout)
    world.cluster.create_topic(QUIET)
    own = uuid.UUID(int=77)
    world.cluster.append(QUIET, b"alert", headers=(("_id", own.bytes),), timestamp_ms=NOW_MS)
    key = (
        object_key(QUIET, NOW_MS, own)
        if layout == "message"
        else segment_key(QUIET, 1, 0, 0, 1, compressed=layout == "zstd")
    )
    stem, dot, ending = key.partition(".bson")
    alternative = f"{stem}.1{dot}{ending}"
    world.store.create([NewObject(key, b"a crashed attempt"), NewObject(alternative, b"another one")])
    exhausted(catch_up(world.archive()))
    (row,) = world.catalog.rows(QUIET)
    assert row.object_key == f"{stem}.2{dot}{ending}"
    assert b"alert" in fetched(world.store, row)
    sizes = {info.key: info.size_bytes for info in world.store.listing()}
    assert (sizes[key], sizes[alternative]) == (len(b"a crashed attempt"), len(b"another one"))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("overlap", [0, 1])
def test_a_uuid_taken_by_other_content_after_the_decision_is_decided_anew(
    layout: WorldLayout, overlap: int
) -> None:
    """The copies of a message rest on what becomes of the first: they too are decided anew."""
    world = world_with_a_contested_uuid(layout)
    archive = world.archive()
    slices = plan_work(archive, [QUIET]).plan.slices
    create, known = archive.store.create, archive.catalog.known
    asked, next_is_decided = [0], threading.Event()

    def create_after_rival(objects: list[NewObject]) -> object:
        if asked[0] <= 2:
            assert not overlap or next_is_decided.wait(30)
            exhausted(catch_up(world.archive(), ["other"], overlap=0))
        return create(objects)

    def count(identities: list[Identity]) -> object:
        found = known(identities)
        asked[0] += 1
        if asked[0] == 2:
            next_is_decided.set()
        return found

    archive.store.create = create_after_rival  # type: ignore[method-assign, assignment]
    archive.catalog.known = count  # type: ignore[method-assign, assignment]
    exhausted(archive_slices(archive, slices, overlap))
    for topic in (QUIET, "other"):
        assert_archived(world.archive(), world.cluster, topic)
    (summary,) = world.catalog.summaries([QUIET])
    assert summary.duplicates == 9
    assert len(world.catalog.collisions(QUIET)) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
def test_copies_read_once_the_first_is_decided_anew_are_copies_of_what_was_committed(
    layout: WorldLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was expected under the UUID that a rival took, and is archived under another one by the time they are read."""
    world = world_with_a_contested_uuid(layout)
    archive = world.archive()
    slices = plan_work(archive, [QUIET]).plan.slices
    create = archive.store.create
    looked_for = threading.Event()

    class LookedForTooEarly(_Writer):
        """A group is written after it was looked for, and before the next one is decided."""

        def submit(self, readings: Sequence[Reading]) -> None:
            wait([future for _, future in self._pending])
            super().submit(readings)

        def finished(self, most_left: int) -> Iterator[Done]:
            yield from super().finished(most_left)
            looked_for.set()

    def create_after_rival(objects: list[NewObject]) -> object:
        assert looked_for.wait(DEADLINE_S)
        exhausted(catch_up(world.archive(), ["other"], overlap=0))
        return create(objects)

    def groups() -> Iterator[list[Reading]]:
        epochs = proven_epochs(archive, {s.partition_log for s in slices})
        with archive.source.reader({}) as reader:
            for reading in read_slices(reader, slices, archive.limits, archive.monotonic, epochs=epochs):
                yield [reading]

    archive.store.create = create_after_rival  # type: ignore[method-assign, assignment]
    monkeypatch.setattr(write, "_Writer", LookedForTooEarly)
    exhausted(store_groups(archive, groups()))
    for topic in (QUIET, "other"):
        assert_archived(world.archive(), world.cluster, topic)
    (summary,) = world.catalog.summaries([QUIET])
    assert summary.duplicates == 9


def test_a_copy_of_what_was_taken_away_is_archived_where_other_content_came_under_its_uuid_meanwhile() -> (
    None
):
    """Between the decision that it is a copy and its commit."""
    world = World()
    own = uuid.UUID(int=5)
    for topic in (QUIET, "other"):
        world.cluster.create_topic(topic)
    world.cluster.append(QUIET, b"mine", headers=(("_id", own.bytes),))
    exhausted(catch_up(world.archive(), overlap=0))
    world.cluster.append(QUIET, b"mine", headers=(("_id", own.bytes),))
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    assert [copy.uuid for batch in batches for copy in batch.duplicates] == [own]
    world.catalog.remove_messages([own], "skipped", Removal("clean-tests", "a test"))
    world.cluster.append("other", b"other content", headers=(("_id", own.bytes),))
    exhausted(catch_up(world.archive(), ["other"], overlap=0))
    assert [done.disputed for done in commit_batches(archive, batches)] == [True]
    exhausted(catch_up(world.archive(), overlap=0))
    (row,) = world.catalog.rows(QUIET)
    assert b"mine" in fetched(world.store, row)
    assert (row.offset, row.uuid != own) == (1, True)


def world_with_a_contested_uuid(layout: WorldLayout) -> World:
    """Two topics use one UUID for different content; in one of them every third message is a copy."""
    world = World(layout)
    contested = (("_id", uuid.UUID(int=5).bytes),)
    for topic in (QUIET, "other"):
        world.cluster.create_topic(topic)
    world.cluster.append("other", b"other content", headers=contested)
    for number in range(30):
        mine = number % 3 == 0
        world.cluster.append(QUIET, b"mine" if mine else b"%d" % number, headers=contested if mine else ())
    return world


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_two_halves_run_as_steps_archive_a_plan_in_one_go(layout: WorldLayout) -> None:
    world = awkward_world(layout)
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    dones = commit_batches(archive, batches)
    assert not any(done.disputed for done in dones)
    assert_all_sound(world)


def test_what_follows_a_refused_batch_is_left_for_the_next_plan() -> None:
    world = awkward_world()
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    commit_batches(world.archive(run_id="rival"), [batches[1]])
    dones = commit_batches(archive, batches)
    assert [done.disputed for done in dones] == [False, True]
    exhausted(catch_up(world.archive()))
    assert_all_sound(world)


def readings_of(world: World, topic: str) -> list[Reading]:
    archive = world.archive()
    return read(archive, plan_work(archive, [topic]).plan.slices)


def read(archive: Archive, slices: Collection[Slice]) -> list[Reading]:
    epochs = proven_epochs(archive, {s.partition_log for s in slices})
    with archive.source.reader({}) as reader:
        return list(read_slices(reader, slices, archive.limits, archive.monotonic, epochs=epochs))


def test_what_was_read_is_not_recorded_once_the_topic_is_another_generation() -> None:
    world = awkward_world()
    readings = readings_of(world, BUSY)
    world.cluster.recreate_topic(BUSY)
    archive = world.archive()
    dones = write_group(archive, prepare(archive, readings))
    assert all("made anew" in done.note and not done.batches for done in dones)
    assert not world.catalog.ledger([BUSY])


def test_a_reader_that_jumped_over_offsets_that_retention_took_does_not_make_them_absent() -> None:
    world = awkward_world()
    (reading,) = [r for r in readings_of(world, BUSY) if r.slice.partition == 1 and r.slice.start == 0]
    jumped = replace(reading, messages=reading.messages[3:])
    world.cluster.delete_records(BUSY, 1, 2)
    archive = world.archive()
    (done,) = write_group(archive, prepare(archive, [jumped]))
    lost, archived = done.batches
    assert (lost.slice.start, lost.slice.stop, lost.outcome, lost.reason) == (0, 2, Outcome.LOST, OVERTAKEN)
    assert (archived.slice.start, archived.absent) == (2, 1)


def test_duplicates_in_neighbouring_batches_are_seen_before_their_originals_are_committed() -> None:
    """Else the objects of the later batch would be written for nothing, and its commit refused."""
    world = World("segment")
    world.cluster.create_topic(QUIET)
    for number in range(40):
        world.cluster.append(QUIET, b"%d" % (number % 10), timestamp_ms=NOW_MS)
    archive = world.archive()
    dones = commit_batches(archive, store_slices(archive, plan_work(archive).plan.slices))
    assert not any(done.disputed for done in dones)
    assert len(list(world.store.listing())) == 2
    assert_archived(archive, world.cluster, QUIET)


def test_after_a_group_that_failed_nothing_is_written_that_the_caller_is_never_told_of() -> None:
    world = World()
    world.cluster.create_topic(QUIET)
    for number in range(20):
        world.cluster.append(QUIET, b"%d" % number)
    first, second, *_ = readings_of(world, QUIET)
    archive = world.archive()
    commit, refused = archive.catalog.commit, [UnavailableError("the database went away")]

    def commit_but_the_first(*batches: Batch) -> None:
        if refused:
            raise refused.pop()
        commit(*batches)

    archive.catalog.commit = commit_but_the_first  # type: ignore[method-assign]
    with _Writer(archive) as writer:
        writer.submit([first])
        writer.submit([second])
        wait([future for _, future in writer._pending])
        with pytest.raises(UnavailableError):
            exhausted(writer.finished(0))
    assert world.catalog.ledger([QUIET]) == []
    stored = {info.key for info in world.store.listing()}
    assert len(stored) == len(first.messages)
