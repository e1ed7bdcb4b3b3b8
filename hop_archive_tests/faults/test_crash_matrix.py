"""Any call may fail or be the last: after a restart everything is accounted for once and reads back the same.

Whichever way it is archived: until caught up, in the two halves that Dagster runs as steps, or on and on.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cache, partial
from typing import TypeAlias, TypeVar

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError, UnavailableError
from hop_archive.ingest.follow import archive_continuously, catch_up, follow_for
from hop_archive.ingest.plan import units
from hop_archive.ingest.survey import plan_work
from hop_archive.ingest.write import commit_batches, store_slices
from hop_archive.model.limits import Limits
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice
from hop_archive_tests.worlds import (
    BUSY,
    QUIET,
    SMALL,
    World,
    WorldLayout,
    awkward_world,
    exhausted,
    fill,
    ticking,
)

Way: TypeAlias = Callable[[World, Faults], None]
Result = TypeVar("Result")

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
PAIRS = 150
UNIT_MESSAGES = 10
QUIET_ROUNDS = 12
LARGE = replace(SMALL, batch_messages=200, batch_bytes=16_000, poll_messages=200)
"""Limits so large that what several partitions hold is stored together, in several segments."""
SAMPLE = 30
"""How many calls are struck, evenly spread, where not every one is."""


def caught_up(world: World, faults: Faults) -> None:
    """As ``hop-archive run --until-caught-up`` does it, one thing after another."""
    exhausted(catch_up(world.archive(faults), overlap=0))


def in_halves(world: World, faults: Faults) -> None:
    """As Dagster's steps do it: each half tried again by itself; a run tried again has the same id."""
    archive = world.archive(faults, run_id="the run")
    for unit in units(plan_work(archive).plan.slices, UNIT_MESSAGES):
        batches = tried_again(partial(store_slices, archive, list(unit)))
        tried_again(partial(commit_batches, archive, batches))


def on_and_on(world: World, faults: Faults) -> None:
    """As ``hop-archive run`` does it: outages survived, until for a while nothing arrives."""
    until_quiet(archive_continuously(hasty(world, faults), lambda: False, lambda _: None))


def followed(world: World, faults: Faults) -> None:
    """As a run of Dagster's that stays does it: an outage ends it."""
    until_quiet(follow_for(hasty(world, faults), [BUSY, QUIET], 1_000.0, lambda _: None))


WAYS: tuple[Way, ...] = (caught_up, in_halves, on_and_on, followed)


def hasty(world: World, faults: Faults) -> Archive:
    """An archive whose clock is so fast that what waits for more to come does so for a few polls."""
    return replace(world.archive(faults), monotonic=ticking(step=0.1))


def tried_again(step: Callable[[], Result]) -> Result:
    """What a step brings at the first or the second attempt."""
    try:
        return step()
    except UnavailableError:
        return step()


def until_quiet(rounds: Iterable[object]) -> None:
    """Take what comes until nothing came for longer than the last messages are waited with."""
    idle = 0
    for dones in rounds:
        idle = 0 if dones else idle + 1
        if idle == QUIET_ROUNDS:
            return


def attempt(world: World, faults: Faults, way: Way = caught_up) -> None:
    """One process: it ends well, with an error of ours, or dead."""
    with contextlib.suppress(CrashError, HopArchiveError):
        way(world, faults)


def finish(world: World, way: Way = caught_up) -> None:
    """The next process, with nothing in its way; then judge."""
    way(world, Faults())
    archive = world.archive()
    for topic in (BUSY, QUIET):
        assert_archived(archive, world.cluster, topic)
    assert_no_object_twice(archive)


@cache
def without_faults(layout: WorldLayout, way: Way, limits: Limits = SMALL) -> Faults:
    """The calls of a process that nothing befalls."""
    faults = Faults()
    way(awkward_world(layout, limits), faults)
    return faults


def numbers(layout: WorldLayout, way: Way) -> list[int]:
    """Which calls to strike: every one with the first layout, a sample of them with the other."""
    count = len(without_faults(layout, way).calls)
    step = 1 if layout == LAYOUTS[0] and way in (caught_up, in_halves) else max(1, count // SAMPLE)
    return list(range(1, count + 1, step))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_a_run_without_faults_archives_everything_and_a_second_one_does_nothing(
    layout: WorldLayout, way: Way
) -> None:
    world = awkward_world(layout)
    finish(world, way)
    before = (list(world.store.listing()), world.catalog.ledger())
    finish(world, way)
    assert (list(world.store.listing()), world.catalog.ledger()) == before
    summary = {s.topic: s for s in world.catalog.summaries()}[BUSY]
    assert summary.duplicates == 3
    assert summary.absent == 9 + 2 + 2  # aborted messages, two markers, two compacted away
    assert len(world.catalog.collisions(BUSY)) == 1


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", [crash, fail])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_single_call_fails_or_is_the_last_the_next_run_completes_the_work(
    layout: WorldLayout, when: When, act: Callable[[str], None], way: Way
) -> None:
    calls = without_faults(layout, way).calls
    assert {name.partition(".")[0] for name in calls} == {"source", "catalog", "store", "reader"}
    for number in numbers(layout, way):
        world = awkward_world(layout)
        faults = Faults((Fault(number, when, act),))
        attempt(world, faults, way)
        assert len(faults.calls) >= number, "the fault did not strike"
        finish(world, way)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", [crash, fail])
@pytest.mark.parametrize("way", WAYS)
def test_whatever_part_of_some_objects_is_written_the_next_run_completes_the_work(
    layout: WorldLayout, act: Callable[[str], None], way: Way
) -> None:
    counted = without_faults(layout, way, LARGE)
    creations = [n for n, call in enumerate(counted.calls, start=1) if call == "store.create"]
    sizes = [(number, counted.sizes[number - 1]) for number in creations]
    parts = [(number, k) for number, size in sizes for k in range(1, size, max(1, size // 8))]
    assert parts, "no call creates several objects"
    for number, items in parts[:: max(1, len(parts) // SAMPLE)]:
        world = awkward_world(layout, LARGE)
        attempt(world, Faults((Fault(number, When.AFTER, act, items),)), way)
        finish(world, way)


def some_fault(chance: random.Random, counted: Faults) -> Fault:
    """A fault anywhere; at a call that is given many things, perhaps in the middle of them."""
    number = chance.randint(1, len(counted.calls))
    size = counted.sizes[number - 1] if counted.calls[number - 1] == "store.create" else 0
    items = chance.choice([None, chance.randint(0, size)]) if size else None
    return Fault(number, chance.choice(list(When)), chance.choice([crash, fail]), items)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("way", WAYS)
def test_random_pairs_of_faults_in_two_runs_or_one_leave_nothing_lost_or_doubled(
    layout: WorldLayout, way: Way
) -> None:
    counted = without_faults(layout, way)
    chance = random.Random(3)
    for _ in range(PAIRS if way is caught_up else SAMPLE):
        world = awkward_world(layout)
        first, second = some_fault(chance, counted), some_fault(chance, counted)
        if chance.random() < 0.5:
            attempt(world, Faults((first, second)), way)
        else:
            attempt(world, Faults((first,)), way)
            fill(world.cluster, seed=1)
            attempt(world, Faults((second,)), way)
        finish(world, way)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_faults_while_reading_and_writing_overlap_leave_nothing_lost_or_doubled(layout: WorldLayout) -> None:
    counted = without_faults(layout, caught_up)
    chance = random.Random(5)
    for _ in range(PAIRS):
        world = awkward_world(layout)
        faults = Faults((some_fault(chance, counted),))
        with contextlib.suppress(CrashError, HopArchiveError):
            exhausted(catch_up(world.archive(faults), overlap=chance.choice([1, 2])))
        finish(world)
