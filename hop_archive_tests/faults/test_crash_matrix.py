"""Any call may fail or be the last: after a restart everything is accounted for once and reads back the same."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest

from hop_archive.errors import HopArchiveError
from hop_archive.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.following import catch_up
from hop_archive.topics import Layout
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice
from hop_archive_tests.worlds import BUSY, QUIET, World, awkward_world, exhausted, fill

LAYOUTS: tuple[Layout, ...] = ("message", "segment")
PAIRS = 150


def attempt(world: World, faults: Faults, overlap: int) -> None:
    """One process: it ends well, with an error of ours, or dead."""
    with contextlib.suppress(CrashError, HopArchiveError):
        exhausted(catch_up(world.archive(faults), overlap=overlap))


def finish(world: World) -> None:
    """The next process, with nothing in its way; then judge."""
    exhausted(catch_up(world.archive(), overlap=0))
    archive = world.archive()
    for topic in (BUSY, QUIET):
        assert_archived(archive, world.cluster, topic)
    assert_no_object_twice(archive)


def calls_without_faults(layout: Layout) -> list[str]:
    faults = Faults()
    attempt(awkward_world(layout), faults, overlap=0)
    return faults.calls


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_run_without_faults_archives_everything_and_a_second_one_does_nothing(layout: Layout) -> None:
    world = awkward_world(layout)
    finish(world)
    before = (list(world.store.listing()), world.catalog.ledger())
    finish(world)
    assert (list(world.store.listing()), world.catalog.ledger()) == before
    summary = {s.topic: s for s in world.catalog.summaries()}[BUSY]
    assert summary.duplicates == 3
    assert summary.absent == 9 + 2 + 2  # aborted messages, two markers, two compacted away
    assert len(world.catalog.collisions(BUSY)) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", [crash, fail])
def test_whatever_single_call_fails_or_is_the_last_the_next_run_completes_the_work(
    layout: Layout, when: When, act: Callable[[str], None]
) -> None:
    calls = calls_without_faults(layout)
    assert {name.partition(".")[0] for name in calls} == {"source", "catalog", "store", "reader"}
    for number in range(1, len(calls) + 1):
        world = awkward_world(layout)
        faults = Faults((Fault(number, when, act),))
        attempt(world, faults, overlap=0)
        assert len(faults.calls) >= number, "the fault did not strike"
        finish(world)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_pairs_of_faults_in_two_runs_or_one_leave_nothing_lost_or_doubled(layout: Layout) -> None:
    count = len(calls_without_faults(layout))
    chance = random.Random(3)
    for _ in range(PAIRS):
        world = awkward_world(layout)
        first, second = (
            Fault(chance.randint(1, count), chance.choice(list(When)), chance.choice([crash, fail]))
            for _ in range(2)
        )
        if chance.random() < 0.5:
            attempt(world, Faults((first, second)), overlap=0)
        else:
            attempt(world, Faults((first,)), overlap=0)
            fill(world.cluster, seed=1)
            attempt(world, Faults((second,)), overlap=0)
        finish(world)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_faults_while_reading_and_writing_overlap_leave_nothing_lost_or_doubled(layout: Layout) -> None:
    count = len(calls_without_faults(layout))
    chance = random.Random(5)
    for _ in range(PAIRS):
        world = awkward_world(layout)
        fault = Fault(chance.randint(1, count), chance.choice(list(When)), chance.choice([crash, fail]))
        attempt(world, Faults((fault,)), overlap=chance.choice([1, 2]))
        finish(world)
