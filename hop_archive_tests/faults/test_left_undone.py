"""Work that is left undone for the same reason again and again is a finding, and stops nothing else."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

import pytest

from hop_archive.errors import ConflictError, HopArchiveError, UnavailableError
from hop_archive.ingest.follow import archive_continuously, catch_up, follow_for
from hop_archive.ingest.left_undone import LeftUndone
from hop_archive.ingest.survey import look
from hop_archive.model.findings import FindingRecord, Kind
from hop_archive.model.slices import PartitionLog, Slice
from hop_archive_tests.invariants import assert_archived
from hop_archive_tests.worlds import (
    BUSY,
    QUIET,
    World,
    exhausted,
    fill,
    restless_world,
    stubborn_world,
    ticking,
)


def left(world: World, *, open_only: bool = True) -> list[FindingRecord]:
    return list(world.catalog.findings(kinds=[Kind.LEFT_UNDONE], open_only=open_only))


def rounds(world: World, number: int) -> None:
    """Archive continuously for so many looks around; each round of following is over at once."""
    archive = replace(world.archive(), monotonic=ticking(step=20.0))
    looks = iter(range(number))
    exhausted(archive_continuously(archive, lambda: next(looks, None) is None, lambda _: None))


# --- to the watermarks


def test_what_cannot_be_committed_is_a_finding_with_its_reason_and_the_others_are_archived() -> None:
    world, catalog = stubborn_world(QUIET)
    with pytest.raises(ConflictError, match="row with its number 17"):
        exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)
    (found,) = left(world)
    assert (found.finding.topic, found.finding.partition) == (QUIET, 0)
    assert catalog.reason in found.finding.detail
    assert "from offset 0 of partition 0 on" in found.finding.detail


def test_a_later_run_that_leaves_it_again_keeps_since_when_and_one_that_does_it_closes_it() -> None:
    world, catalog = stubborn_world(QUIET)
    for _ in range(2):
        with pytest.raises(ConflictError):
            exhausted(catch_up(world.archive()))
    (found,) = left(world)
    assert found.first_seen < found.last_seen
    catalog.refused = frozenset()
    exhausted(catch_up(world.archive()))
    assert not left(world)
    assert_archived(world.archive(), world.cluster, QUIET)


def test_what_is_refused_in_one_try_is_no_finding() -> None:
    world, catalog = stubborn_world(QUIET)
    catalog.times = 6
    exhausted(catch_up(world.archive()))
    assert catalog.times == 0
    assert not left(world, open_only=False)
    assert_archived(world.archive(), world.cluster, QUIET)


@pytest.mark.parametrize("times", [1, 2])
def test_a_topic_that_changes_while_it_is_planned_stops_no_other_and_is_archived(times: int) -> None:
    world, _ = restless_world(times)
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)
    assert_archived(world.archive(), world.cluster, QUIET)
    assert not list(world.catalog.findings(open_only=False))


def test_a_topic_that_changes_again_and_again_is_left_out_by_name_until_it_stays() -> None:
    world, catalog = restless_world(1_000)
    with pytest.raises(UnavailableError, match=r"All else is archived\. Topic alerts\.quiet changed again"):
        exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, BUSY)
    rounds(world, 20)
    for _ in range(2):
        look(world.archive())
        (found,) = world.catalog.findings()
        assert (found.finding.kind, found.finding.topic) == (Kind.NOT_READABLE, QUIET)
    fill(world.cluster, seed=1)
    rounds(world, 60)
    assert_archived(world.archive(), world.cluster, BUSY)
    catalog.times = 0
    exhausted(catch_up(world.archive()))
    assert_archived(world.archive(), world.cluster, QUIET)
    assert not list(world.catalog.findings())


def test_what_was_left_is_told_no_more_once_plans_begin_later_though_more_waits_each_time() -> None:
    world = World()
    undone = LeftUndone(world.archive())
    for _ in range(3):
        undone.plan([Slice(BUSY, 1, 0, 10, 100)], {BUSY})
    assert [found.finding.topic for found in left(world)] == [BUSY]
    undone.plan([Slice(BUSY, 1, 0, 100, 150)], {BUSY})
    assert not left(world)


# --- on and on


def test_a_run_that_goes_on_and_on_notes_it_too_and_archives_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    world, catalog = stubborn_world(QUIET)
    with caplog.at_level(logging.WARNING):
        rounds(world, 60)
    assert [found.finding.topic for found in left(world)] == [QUIET]
    assert f"Left undone again: {QUIET}, from offset 0 of partition 0 on: {catalog.reason}" in caplog.text
    assert caplog.text.count("Left undone again") == 1, "what is told is not told again"
    fill(world.cluster, seed=1)
    rounds(world, 60)
    assert_archived(world.archive(), world.cluster, BUSY)
    catalog.refused = frozenset()
    rounds(world, 60)
    assert not left(world)
    assert_archived(world.archive(), world.cluster, QUIET)


def test_who_follows_for_a_time_says_at_the_end_what_was_left() -> None:
    world, _ = stubborn_world(QUIET)
    archive = world.archive()
    with pytest.raises(
        ConflictError, match=r"Work was left undone again and again: alerts\.quiet, from offset 0"
    ):
        exhausted(follow_for(archive, [BUSY, QUIET], 3.0, lambda _: None))
    assert left(world)


def test_who_follows_for_a_time_says_nothing_of_what_was_done_in_the_end() -> None:
    world, catalog = stubborn_world(QUIET)

    def stop() -> bool:
        """Mend it once it was told, and stop once it is done: before there is another plan."""
        if left(world):
            catalog.refused = frozenset()
        return not catalog.refused and bool(catalog.coverage([QUIET]).get(PartitionLog(QUIET, 1, 0)))

    exhausted(follow_for(world.archive(), [BUSY, QUIET], 60.0, lambda _: None, stop))
    assert not left(world)
    assert left(world, open_only=False), "it had been left"
    assert_archived(world.archive(), world.cluster, QUIET)


# --- by plans


def tries(
    world: World, *starts: int | None, error: HopArchiveError | None = None, step: float = 0.0
) -> LeftUndone:
    """What is thought of plans that begin at these offsets, or have nothing to do."""
    undone = LeftUndone(replace(world.archive(), monotonic=ticking(step=step)))
    for start in starts:
        slices: Sequence[Slice] = [] if start is None else [Slice("t", 1, 0, start, 100)]
        undone.plan(slices, pending={s.topic for s in slices})
        if error:
            undone.failed(error)
    return undone


@pytest.mark.parametrize(
    ("starts", "is_left"),
    [
        ((5,), False),
        ((5, 5), False),
        ((5, 5, 5), True),
        ((5, 5, 5, 5), True),
        ((5, 6, 7), False),
        ((5, 5, 5, 6), False),
        ((5, 5, None, 5, 5), False),
        ((5, 5, 5, None), False),
    ],
)
def test_left_is_what_three_plans_begin_with(starts: tuple[int | None, ...], is_left: bool) -> None:
    world = World()
    assert bool(tries(world, *starts).findings) == is_left
    if starts[-1] in (5, None):
        assert bool(left(world)) == is_left


def test_a_server_that_is_away_for_less_than_a_minute_makes_no_finding_and_one_for_longer_does() -> None:
    outage = UnavailableError("The store does not answer.")
    assert not tries(World(), 5, 5, 5, 5, 5, error=outage, step=10.0).findings
    (finding,) = tries(World(), *[5] * 8, error=outage, step=10.0).findings
    assert finding.detail == "from offset 5 of partition 0 on: The store does not answer."


def test_the_first_plan_of_a_new_process_closes_nothing_that_is_still_to_be_done() -> None:
    world = World()
    tries(world, 5, 5, 5)
    tries(world, 5)
    assert left(world)
    tries(world, None)
    assert not left(world)
