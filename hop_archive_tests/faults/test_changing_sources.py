"""The source changes at any moment: topics made anew, brokers emptied, retention that overtakes."""

from __future__ import annotations

import contextlib
import datetime
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Batch, Outcome
from hop_archive.devkit.faults import Fault, Faults, When
from hop_archive.errors import (
    ConflictError,
    ForbiddenError,
    HopArchiveError,
    SliceTakenError,
    UnavailableError,
)
from hop_archive.ingest.follow import Obstacle, archive_continuously, catch_up, follow_for
from hop_archive.ingest.survey import ADOPTED, BEFORE_FIRST_SIGHT, OUTLIVED, OVERTAKEN, look, plan_work
from hop_archive.ingest.write import UNREADABLE, archive_slices, store_slices
from hop_archive.model.findings import Kind
from hop_archive.model.slices import OffsetSet, PartitionLog, Slice
from hop_archive.recover.rebuild.rebuild import Rebuild, rebuild
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.store.protocol import Created, NewObject
from hop_archive_tests.invariants import assert_archived, assert_ledger_is_sound
from hop_archive_tests.worlds import (
    BUSY,
    QUIET,
    World,
    adopted_row,
    at_call,
    awkward_world,
    exhausted,
    fill,
    ticking,
)


def calls() -> int:
    faults = Faults()
    exhausted(catch_up(awkward_world().archive(faults), overlap=0))
    return len(faults.calls)


def disturbed_at(number: int, when: When, disturb: Callable[[World], None], overlap: int = 0) -> World:
    """A world that is disturbed at the n-th call of a run, and archived to the end by later runs."""
    world = awkward_world()
    faults = Faults((Fault(number, when, lambda _: disturb(world)),))
    with contextlib.suppress(HopArchiveError):
        exhausted(catch_up(world.archive(faults), overlap=overlap))
    exhausted(catch_up(world.archive(), overlap=0))
    return world


def make_anew(world: World) -> None:
    world.cluster.recreate_topic(BUSY)
    fill(world.cluster, seed=9)


def restart_empty(world: World) -> None:
    world.cluster.restart_empty()
    world.cluster.create_topic(BUSY, 2)
    world.cluster.create_topic(QUIET)
    fill(world.cluster, seed=9)


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("disturb", [make_anew, restart_empty])
def test_a_topic_made_anew_at_any_moment_is_a_generation_of_its_own_and_both_are_complete(
    when: When, disturb: Callable[[World], None]
) -> None:
    for number in range(1, calls() + 1):
        world = disturbed_at(number, when, disturb)
        assert_archived(world.archive(), world.cluster, BUSY)
        first, *others = world.catalog.generations([BUSY])[BUSY]
        seen = world.catalog.observed([BUSY])
        for partition in (0, 1) if others else ():
            partition_log = PartitionLog(BUSY, first.number, partition)
            covered = world.catalog.coverage([BUSY])[partition_log]
            assert covered == OffsetSet.between(0, seen[partition_log].stable), (
                f"{partition_log} at call {number}"
            )


@pytest.mark.parametrize("when", When)
def test_retention_that_overtakes_at_any_moment_is_recorded_once_and_the_rest_is_archived(when: When) -> None:
    def overtake(world: World) -> None:
        world.cluster.delete_records(BUSY, 0, 15)

    lost_somewhere = 0
    for number in range(1, calls() + 1):
        world = disturbed_at(number, when, overlap=number % 2, disturb=overtake)
        assert_archived(world.archive(), world.cluster, BUSY)
        lost = [e for e in world.catalog.ledger([BUSY]) if e.outcome is Outcome.LOST]
        assert all(e.slice.stop <= 15 and e.reason in (OVERTAKEN, BEFORE_FIRST_SIGHT) for e in lost)
        lost_somewhere += bool(lost)
        before = world.catalog.ledger()
        exhausted(catch_up(world.archive()))
        assert world.catalog.ledger() == before
    assert lost_somewhere > calls() // 4


def test_what_was_gone_before_the_first_look_is_told_from_what_retention_took_later() -> None:
    world = awkward_world()
    world.cluster.delete_records(BUSY, 0, 5)
    exhausted(catch_up(world.archive()))
    fill(world.cluster, seed=2)
    with world.cluster.read() as state:
        end = state.topics[BUSY].logs[0].stable
    world.cluster.delete_records(BUSY, 0, end - 3)
    exhausted(catch_up(world.archive()))
    lost = [e for e in world.catalog.ledger([BUSY]) if e.outcome is Outcome.LOST]
    assert [e.reason for e in lost] == [BEFORE_FIRST_SIGHT, OVERTAKEN]
    assert lost[0].slice.start == 0
    assert lost[0].slice.stop == 5
    assert lost[1].slice.stop == end - 3
    assert_archived(world.archive(), world.cluster, BUSY)


def test_offsets_below_the_first_of_an_adopted_topic_are_not_called_lost() -> None:
    world = awkward_world()
    world.catalog.adopt([adopted_row(BUSY)])
    world.cluster.delete_records(BUSY, 0, 5)
    world.cluster.delete_records(QUIET, 0, 1)
    exhausted(catch_up(world.archive()))
    outcomes = {(e.slice.topic, e.outcome): e.reason for e in world.catalog.ledger()}
    assert outcomes[BUSY, Outcome.SKIPPED] == ADOPTED
    assert (BUSY, Outcome.LOST) not in outcomes
    assert outcomes[QUIET, Outcome.LOST] == BEFORE_FIRST_SIGHT


def test_what_a_deleted_topic_was_seen_to_hold_is_recorded_as_lost_with_it() -> None:
    world = awkward_world()
    archive = world.archive()
    steps = catch_up(archive, overlap=0)
    next(steps)
    world.cluster.recreate_topic(BUSY)
    exhausted(catch_up(world.archive()))
    lost = [e for e in world.catalog.ledger([BUSY]) if e.reason == OUTLIVED]
    assert lost
    assert_ledger_is_sound(world.catalog.ledger([BUSY]))


def test_when_every_commit_is_refused_catching_up_ends_with_an_error_that_says_so() -> None:
    archive = awkward_world().archive()

    def refuse(*batches: Batch) -> None:
        raise SliceTakenError(f"{batches[0].slice} is taken")

    archive.catalog.commit = refuse  # type: ignore[method-assign]
    with pytest.raises(ConflictError, match="committed nothing"):
        exhausted(catch_up(archive, overlap=0))


def test_a_topic_that_is_made_anew_while_it_is_followed_is_archived_in_both_lives() -> None:
    world = awkward_world()
    stop_after = [80]

    def stop() -> bool:
        stop_after[0] -= 1
        if stop_after[0] == 60:
            make_anew(world)
        return stop_after[0] <= 0

    exhausted(archive_continuously(world.archive(), stop, lambda _: None))
    assert len(world.catalog.generations([BUSY])[BUSY]) == 2
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)


@pytest.mark.parametrize("overlap", [0, 1])
def test_a_message_that_cannot_be_represented_is_skipped_with_its_reason_and_the_rest_is_archived(
    overlap: int,
) -> None:
    world = awkward_world()
    for _ in range(2):
        world.cluster.append(QUIET, b"bad", headers=(("\udcff", b""),))
        world.cluster.append(QUIET, b"good")
    exhausted(catch_up(world.archive(), overlap=overlap))
    skipped = [e for e in world.catalog.ledger([QUIET]) if e.outcome is Outcome.SKIPPED]
    assert [len(e.slice) for e in skipped] == [1, 1]
    assert all(e.reason == f"{UNREADABLE}: a header name is not UTF-8" for e in skipped)
    (covered,) = world.catalog.coverage([QUIET]).values()
    with world.cluster.read() as state:
        assert covered == OffsetSet.between(0, state.topics[QUIET].logs[0].stable)
    assert_ledger_is_sound(world.catalog.ledger())
    assert world.catalog.summaries([QUIET])[0].skipped == 2


def test_following_steps_over_a_message_that_cannot_be_represented() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    world.cluster.append(QUIET, b"bad", headers=(("\udcff", b""),))
    world.cluster.append(QUIET, b"good")
    rounds = iter(range(400))
    exhausted(archive_continuously(world.archive(), lambda: next(rounds, None) is None, lambda _: None))
    assert world.catalog.summaries([QUIET])[0].skipped == 1
    assert [row.offset for row in world.catalog.rows(QUIET)][-1] == [
        e.slice.stop for e in world.catalog.ledger([QUIET])
    ][-1] - 1


def test_group_offsets_tell_from_outside_how_far_the_archive_is() -> None:
    world = awkward_world()
    archive = world.archive()
    noted: dict[object, int] = {}
    archive.source.note_progress = noted.update  # type: ignore[method-assign, assignment]
    exhausted(catch_up(archive))
    with world.cluster.read() as state:
        ends = {(t, n): log.stable for t, topic in state.topics.items() for n, log in enumerate(topic.logs)}
    assert {tuple(at): offset for at, offset in noted.items()} == ends  # type: ignore[arg-type]


def test_what_a_topic_held_at_the_last_look_is_recorded_as_lost_when_it_is_made_anew() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    fill(world.cluster, seed=4)
    pending = look(world.archive()).pending()[BUSY]
    world.cluster.recreate_topic(BUSY)
    exhausted(catch_up(world.archive()))
    lost = [e for e in world.catalog.ledger([BUSY]) if e.reason == OUTLIVED]
    assert sum(len(e.slice) for e in lost) == pending > 0


def test_a_look_at_a_topic_that_is_new_records_nothing() -> None:
    world = awkward_world()
    look(world.archive())
    assert not world.catalog.observed([BUSY])
    assert not world.catalog.generations([BUSY])


def refuse(call: str) -> None:
    raise ForbiddenError(f"told to refuse {call}.")


def test_following_waits_out_what_is_refused_once_it_has_worked() -> None:
    world = awkward_world()
    reported: list[Obstacle] = []
    rounds = iter(range(400))
    faults = Faults(tuple(Fault(call, When.BEFORE, refuse) for call in range(45, 65)))
    exhausted(
        archive_continuously(
            world.archive(faults), lambda: next(rounds, None) is None, lambda _: None, None, reported.append
        )
    )
    assert len(reported) == 20
    assert all(isinstance(error, ForbiddenError) for error in reported)
    assert_archived(world.archive(), world.cluster, BUSY)


def test_what_is_refused_from_the_start_ends_following_at_once() -> None:
    faults = Faults((Fault(1, When.BEFORE, refuse),))
    with pytest.raises(ForbiddenError, match="told to refuse"):
        exhausted(archive_continuously(awkward_world().archive(faults), lambda: False, lambda _: None))


def lost_of(world: World, topic: str) -> OffsetSet:
    entries = [e for e in world.catalog.ledger([topic]) if e.outcome is Outcome.LOST and e.reason == OUTLIVED]
    return OffsetSet.of((e.slice.start, e.slice.stop) for e in entries)


def a_minute_later(archive: Archive) -> Archive:
    then = archive.now() + datetime.timedelta(seconds=61)
    return replace(archive, now=lambda: then)


@pytest.mark.parametrize("again", [look, plan_work])
def test_what_a_topic_held_that_was_deleted_for_good_is_told_at_once_and_lost_a_minute_after(
    again: Callable[[Archive], object],
) -> None:
    world = awkward_world()
    next(catch_up(world.archive(), overlap=0))
    world.cluster.delete_topic(QUIET)
    for _ in range(2):
        again(world.archive())
        assert not lost_of(world, QUIET)
        (finding,) = world.catalog.findings([QUIET], [Kind.NOT_SHOWN])
        assert "not show topic" in finding.finding.detail
    again(a_minute_later(world.archive()))
    partition_log = PartitionLog(QUIET, 1, 0)
    assert lost_of(world, QUIET)
    assert (
        world.catalog.coverage([QUIET])[partition_log].stop
        == world.catalog.observed([QUIET])[partition_log].stable
    )
    before = world.catalog.ledger([QUIET])
    again(a_minute_later(world.archive()))
    assert world.catalog.ledger([QUIET]) == before
    assert not list(world.catalog.findings([QUIET], [Kind.NOT_SHOWN]))


def test_a_topic_that_is_not_shown_for_a_moment_is_no_deleted_one_whatever_clocks_say() -> None:
    world = awkward_world()
    next(catch_up(world.archive(), overlap=0))
    with world.cluster.change() as state:
        hidden = state.topics.pop(BUSY)
    look(a_minute_later(world.archive()))
    look(world.archive())  # the clock is back
    assert not lost_of(world, BUSY)
    with world.cluster.change() as state:
        state.topics[BUSY] = hidden
    look(world.archive())
    assert not list(world.catalog.findings([BUSY], [Kind.NOT_SHOWN]))
    with world.cluster.change() as state:
        del state.topics[BUSY]
    look(a_minute_later(world.archive()))
    with world.cluster.change() as state:
        state.topics[BUSY] = hidden
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)
    assert len(world.catalog.generations([BUSY])[BUSY]) == 1
    assert not lost_of(world, BUSY)


def test_a_topic_that_was_archived_whole_leaves_nothing_to_be_lost_with_it() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    before = world.catalog.ledger()
    world.cluster.delete_topic(QUIET)
    look(world.archive())
    exhausted(catch_up(world.archive()))
    assert world.catalog.ledger() == before


def test_a_topic_made_anew_and_still_empty_is_enough_for_the_old_ones_rest_to_be_lost() -> None:
    world = awkward_world()
    next(catch_up(world.archive(), overlap=0))
    world.cluster.recreate_topic(QUIET)
    look(world.archive())
    assert lost_of(world, QUIET)


def test_a_topic_that_is_there_again_as_it_was_is_archived_whole_though_its_rest_was_lost() -> None:
    world = awkward_world()
    next(catch_up(world.archive(), overlap=0))
    with world.cluster.change() as state:
        hidden = state.topics.pop(BUSY)
    look(world.archive())
    look(a_minute_later(world.archive()))
    assert lost_of(world, BUSY)
    with world.cluster.change() as state:
        state.topics[BUSY] = hidden
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)
    assert len(world.catalog.generations([BUSY])[BUSY]) == 2
    exhausted(catch_up(world.archive()))
    assert len(world.catalog.generations([BUSY])[BUSY]) == 2


@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("again", [look, plan_work])
def test_what_a_topic_holds_that_is_made_anew_while_it_is_looked_at_is_not_the_old_ones(
    again: Callable[[Archive], object], *, is_known: bool
) -> None:
    world = awkward_world()
    if is_known:
        exhausted(catch_up(world.archive()))

    def make_anew() -> None:
        world.cluster.recreate_topic(QUIET)
        for number in range(30):
            world.cluster.append(QUIET, b"anew %d" % number)

    again(world.archive(at_call("source.watermarks", make_anew)))
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, QUIET)
    assert not lost_of(world, QUIET)
    assert not list(world.catalog.findings([QUIET], open_only=False))


def test_a_look_at_a_topic_from_before_it_was_made_anew_begins_no_generation_after_the_new_ones() -> None:
    for number in range(1, 25):  # a generation is begun by one of the first calls
        world = awkward_world()

        def meanwhile(_: str, world: World = world) -> None:
            world.cluster.recreate_topic(QUIET)
            world.cluster.append(QUIET, b"anew")
            exhausted(catch_up(world.archive(run_id="rival"), overlap=0))

        faults = Faults((Fault(number, When.BEFORE, meanwhile),))
        hasty = replace(world.archive(faults), monotonic=ticking(step=0.1))  # given up after fewer polls
        with contextlib.suppress(HopArchiveError):
            exhausted(catch_up(hasty, overlap=0))
        with world.cluster.read() as state:
            topic_id = state.topics[QUIET].topic_id
        assert world.catalog.generations([QUIET])[QUIET][-1].topic_id == topic_id, faults.calls[number - 1]


def planned_and_made_anew() -> tuple[World, Archive, Sequence[Slice]]:
    world = World()
    world.cluster.create_topic(BUSY)
    world.cluster.append(BUSY, b"old")
    archive = world.archive()
    slices = plan_work(archive).plan.slices
    world.cluster.recreate_topic(BUSY)
    world.cluster.append(BUSY, b"new")
    return world, archive, slices


@pytest.mark.parametrize("store", [lambda *args: [*archive_slices(*args)], store_slices])
def test_of_a_topic_that_was_made_anew_before_it_was_read_no_object_is_left(
    store: Callable[[Archive, Sequence[Slice]], object],
) -> None:
    world, archive, slices = planned_and_made_anew()
    store(archive, slices)
    assert not [*world.store.listing()]
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)


def test_of_a_topic_that_was_made_anew_before_it_was_followed_no_object_is_left() -> None:
    world = World()
    world.cluster.create_topic(BUSY)
    exhausted(catch_up(world.archive()))

    def make_anew() -> None:
        world.cluster.recreate_topic(BUSY)
        world.cluster.append(BUSY, b"new")

    steps = follow_for(world.archive(at_call("reader.add", make_anew)), [BUSY], 60.0, lambda _: None)
    next(dones for dones in steps if dones)
    assert not [*world.store.listing()]
    exhausted(steps)
    assert_archived(world.archive(), world.cluster, BUSY)


def test_what_a_rebuild_finds_of_a_topic_is_not_taken_for_what_was_lost_with_the_one_before() -> None:
    """A run reads the new one under the plan of the old one, and another run says that the old one's offsets are lost."""
    world, archive, slices = planned_and_made_anew()
    assert not [done.batches for done in archive_slices(archive, slices) if done.batches]
    plan_work(world.archive())
    exhausted(rebuild(Rebuild(world.catalog, world.store, MockSource(cluster=world.cluster))))
    (entry,) = world.catalog.ledger([BUSY])
    assert (entry.slice.generation, entry.outcome, entry.reason) == (1, Outcome.LOST, OUTLIVED)


def test_what_is_followed_of_a_topic_that_was_made_anew_since_it_was_planned_is_not_lost() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))

    def make_anew() -> None:
        world.cluster.recreate_topic(QUIET)
        for number in range(30):
            world.cluster.append(QUIET, b"anew %d" % number)

    faults = at_call("source.reader", make_anew)
    rounds = follow_for(world.archive(faults), [QUIET], 5.0, lambda _: None)
    for _ in itertools.islice(rounds, 10_000):
        pass
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, QUIET)
    assert not lost_of(world, QUIET)


def test_what_stands_on_another_cluster_is_not_called_deleted_on_this_one() -> None:
    world = awkward_world()
    next(catch_up(world.archive(), overlap=0))
    before = world.catalog.ledger()
    world.cluster = MockCluster(sleep=lambda _: None)
    look(world.archive())
    plan_work(world.archive())
    assert world.catalog.ledger() == before


@pytest.mark.parametrize("is_stored", [True, False])
def test_what_was_followed_and_not_committed_is_lost_with_its_topic(is_stored: bool) -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    end = world.catalog.observed([QUIET])[PartitionLog(QUIET, 1, 0)].stable
    archive, create = world.archive(), world.store.create
    rounds = follow_for(archive, [QUIET], 1_000.0, lambda _: None)
    next(rounds)

    def strike(objects: Sequence[NewObject]) -> Sequence[Created]:
        world.cluster.delete_topic(QUIET)
        if not is_stored:
            raise UnavailableError("the store is away")
        return create(objects)

    archive.store.create = strike  # type: ignore[method-assign]
    for number in range(5):
        world.cluster.append(QUIET, b"seen %d" % number)
    with contextlib.suppress(HopArchiveError):
        for _ in itertools.takewhile(
            lambda _: QUIET in archive.source.topics(), itertools.islice(rounds, 5_000)
        ):
            pass
    look(world.archive())
    look(a_minute_later(world.archive()))
    assert lost_of(world, QUIET) == OffsetSet.between(end, end + 5)


def test_a_log_that_lost_an_end_of_which_nothing_was_archived_is_told() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    end = world.catalog.observed([QUIET])[PartitionLog(QUIET, 1, 0)].stable
    for number in range(5):
        world.cluster.append(QUIET, b"seen %d" % number)
    look(world.archive())
    world.cluster.lose_end(QUIET, 0, end + 2)
    exhausted(catch_up(world.archive()))
    (finding,) = world.catalog.findings([QUIET], [Kind.LOG_TRUNCATED])
    assert finding.finding.slice == Slice(QUIET, 1, 0, end + 2, end + 5)
    assert_archived(world.archive(), world.cluster, QUIET)
    assert len(world.catalog.generations([QUIET])[QUIET]) == 1
