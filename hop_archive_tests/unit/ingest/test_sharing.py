"""Several processes with one backlog: each takes its share, and whatever becomes of the claims, each message is archived once."""

from __future__ import annotations

import datetime
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.catalog.records import Share
from hop_archive.errors import ForbiddenError
from hop_archive.ingest.follow import archive_continuously, catch_up
from hop_archive.ingest.sharing import LEASE_S, Sharing
from hop_archive.ingest.survey import survey
from hop_archive.ingest.write import Done
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice
from hop_archive_tests.worlds import BUSY, World, exhausted

PARTITIONS, EACH = 8, 60


def busy_world(catalog: MockCatalog | None = None) -> World:
    world = World("segment", catalog=catalog or MockCatalog())
    world.cluster.create_topic(BUSY, PARTITIONS)
    for number in range(PARTITIONS * EACH):
        world.cluster.append(BUSY, b"%d" % number, partition=number % PARTITIONS)
    return world


def assert_sound(world: World) -> None:
    assert_archived(world.archive(), world.cluster, BUSY)
    assert_no_object_twice(world.archive())


def wait_until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def partitions_of(dones: list[Done]) -> set[int]:
    return {batch.slice.partition for done in dones for batch in done.batches}


class Clock:
    """A clock on the wall and one that never goes back, which go on while somebody sleeps."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def sleep(self, seconds: float) -> None:
        self.now_s += seconds

    def wall(self) -> datetime.datetime:
        return datetime.datetime.fromtimestamp(1_700_000_000 + self.now_s, datetime.UTC)

    def archive(self, world: World, run_id: str) -> Archive:
        return replace(world.archive(run_id=run_id), monotonic=lambda: self.now_s)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def clocked(clock: Clock) -> World:
    return busy_world(MockCatalog(clock=clock.wall))


def claimed_by_another(world: World, lease_s: float) -> None:
    logs = survey(world.archive()).knowledge
    exhausted(itertools.islice(catch_up(world.archive(run_id="another")), 1))  # its generation has begun
    assert world.catalog.claim_logs("another#1", logs, lease_s).mine == logs.keys()


def test_one_that_comes_later_gets_its_half_and_neither_is_refused_anything() -> None:
    world = busy_world()
    one, two = (world.archive(run_id=name) for name in ("one", "two"))
    sharing, other = Sharing(one, time.sleep, lease_s=5.0), Sharing(two, lambda _: time.sleep(0.005))
    first = catch_up(one, sharing=sharing)
    own = [next(first)]
    others: list[Done] = []
    thread = threading.Thread(target=lambda: others.extend(catch_up(two, sharing=other)))
    thread.start()
    wait_until(sharing.is_asked_to_give)
    own += first
    sharing.close()
    thread.join(30)
    other.close()
    assert not [done.note for done in own + others if done.note]
    assert len(partitions_of(others)) == PARTITIONS // 2
    assert {entry.run_id for entry in world.catalog.ledger([BUSY])} == {"one", "two"}
    assert (sharing.others, other.others) == ({"two"}, {"one"})
    assert_sound(world)


def test_what_one_that_died_had_taken_on_is_done_by_the_other_when_the_lease_is_over(
    clocked: World, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    claimed_by_another(clocked, LEASE_S)
    archive = clock.archive(clocked, "mine")
    sharing = Sharing(archive, clock.sleep)
    exhausted(catch_up(archive, sharing=sharing))
    sharing.close()
    assert LEASE_S - 1 <= clock.now_s <= LEASE_S + 1
    assert sum("Shared with another: all that is left" in text for text in caplog.messages) == 1
    assert_sound(clocked)


def test_one_that_holds_everything_and_does_not_get_on_keeps_nobody_waiting_for_ever(
    clocked: World, clock: Clock
) -> None:
    claimed_by_another(clocked, 1e6)
    archive = clock.archive(clocked, "mine")
    exhausted(catch_up(archive, sharing=Sharing(archive, clock.sleep)))
    assert 60 <= clock.now_s <= 70
    assert_sound(clocked)


def test_of_claims_that_were_stolen_each_message_is_archived_once() -> None:
    world = busy_world()
    robbed, thief = (world.archive(run_id=name) for name in ("robbed", "thief"))
    sharing, other = Sharing(robbed, time.sleep), Sharing(thief, time.sleep)
    first = catch_up(robbed, sharing=sharing)
    next(first)
    world.catalog.drop_claims(sharing._holder)
    exhausted(itertools.islice(catch_up(thief, sharing=other), 5))
    other.close()
    dones = list(first)
    sharing.close()
    assert any("already archived by thief" in done.note for done in dones)
    assert_sound(world)


def test_a_catalog_in_which_no_claim_may_be_written_works_as_well() -> None:
    class Forbidding(MockCatalog):
        def claim_logs(self, *_: object) -> Share:
            raise ForbiddenError("the role has no right to table claims")

    world = busy_world(Forbidding())
    sharing = Sharing(world.archive(), time.sleep)
    exhausted(catch_up(world.archive(), sharing=sharing))
    sharing.close()
    assert_sound(world)


def test_nothing_is_called_left_undone_that_others_do(clocked: World, clock: Clock) -> None:
    """A plan that is broken off again and again, because others are to have some, begins where it began before."""
    archive = clock.archive(clocked, "mine")

    class Asked(Sharing):
        times = 6

        def is_asked_to_give(self) -> bool:
            self.times -= 1
            return self.times >= 0

    exhausted(catch_up(archive, sharing=Asked(archive, clock.sleep)))
    assert not list(clocked.catalog.findings(open_only=False))
    assert_sound(clocked)


def test_one_that_follows_leaves_others_theirs_and_takes_them_over_when_they_end(
    clocked: World, clock: Clock
) -> None:
    claimed_by_another(clocked, 3600)
    archive = clock.archive(clocked, "mine")
    before = clocked.catalog.coverage([BUSY])
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        clock.sleep(seconds)
        waited.append(seconds)
        if len(waited) == 20:
            assert clocked.catalog.coverage([BUSY]) == before
            clocked.catalog.drop_claims("another#1")

    def is_done() -> bool:
        return sum(covered.size for covered in clocked.catalog.coverage([BUSY]).values()) == PARTITIONS * EACH

    sharing = Sharing(archive, sleep)
    rounds: Iterator[list[Done]] = archive_continuously(archive, is_done, sleep, sharing=sharing)
    exhausted(rounds)
    sharing.close()
    assert 20 <= len(waited) <= 25
    assert_sound(clocked)


def test_one_that_follows_and_has_no_share_waits_between_its_plans_for_as_long_as_others_go_on(
    clocked: World, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    claimed_by_another(clocked, 10_000.0)
    archive = clock.archive(clocked, "mine")
    sharing = Sharing(archive, clock.sleep)
    following = archive_continuously(archive, lambda: clock.now_s > 300, clock.sleep, sharing=sharing)
    rounds = sum(1 for _ in itertools.islice(following, 1_000))
    sharing.close()
    assert 300 < clock.now_s < 310
    assert rounds <= 300 / 5 + 1
    assert not [text for text in caplog.messages if "tried here" in text], "it is not: who follows has no end"
