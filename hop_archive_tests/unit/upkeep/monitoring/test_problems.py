"""What one look at the archive finds wrong."""

from __future__ import annotations

import datetime
from dataclasses import replace
from functools import partial

from hop_archive.devkit.faults import Fault, Faults, When, fail
from hop_archive.ingest.follow import catch_up
from hop_archive.model.findings import Finding, Kind
from hop_archive.upkeep.monitoring.problems import DATABASE, FINDING, LAG, LOST, SOURCE, Bounds, Memory, look
from hop_archive.upkeep.monitoring.telling import Rules, Told
from hop_archive_tests.worlds import BUSY, World, awkward_world, exhausted

NOW = datetime.datetime(2026, 11, 29, tzinfo=datetime.UTC)


def keys(world: World, memory: Memory = Memory(), bounds: Bounds = Bounds()) -> list[str]:  # noqa: B008
    return [problem.key for problem in look(world.archive(), bounds, memory)[0].problems]


def test_an_archive_that_is_caught_up_has_no_problem() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    assert keys(world) == []


def test_too_many_messages_that_wait_are_a_problem_and_so_is_one_that_waits_too_long() -> None:
    world = awkward_world()
    assert f"{LAG} {BUSY}" in keys(world, bounds=Bounds(most_messages=10))
    assert keys(world) == []
    at = replace(world.archive(), now=lambda: NOW)
    _, memory = look(at, Bounds(), Memory())
    later = replace(at, now=lambda: NOW + datetime.timedelta(minutes=16))
    seen, memory = look(later, Bounds(), memory)
    assert {p.sort for p in seen.problems} == {LAG}
    exhausted(catch_up(world.archive()))
    assert look(later, Bounds(), memory)[0].problems == ()


def test_a_transaction_that_hangs_is_told_once_it_has_held_back_for_too_long_and_others_are_not() -> None:
    world = World()
    world.cluster.create_topic("t", partitions=2)
    hung = world.cluster.begin()
    world.cluster.append("t", b"hangs", transaction=hung)
    memory = Memory()
    for minute in range(20):
        moment = NOW + datetime.timedelta(minutes=minute)
        at = replace(world.archive(), now=partial(max, moment, moment))
        quick = world.cluster.begin()
        world.cluster.append("t", b"behind it")
        world.cluster.append("t", b"goes on", partition=1, transaction=quick)
        exhausted(catch_up(world.archive()))
        seen, memory = look(at, Bounds(), memory)
        world.cluster.commit(quick)
        told = [problem.what for problem in seen.problems]
        assert bool(told) == (minute > 15), (minute, told)
    assert "offsets are held back by open transactions, the first for 19 minutes" in told[0]
    assert "wait" not in told[0]
    world.cluster.abort(hung)
    exhausted(catch_up(world.archive()))
    assert look(at, Bounds(), memory)[0].problems == ()


def test_what_retention_took_is_told_and_what_was_gone_before_the_archive_began_is_not() -> None:
    world = World()
    world.cluster.create_topic("t", partitions=1)
    for n in range(10):
        world.cluster.append("t", b"%d" % n)
    world.cluster.delete_records("t", 0, 3)
    exhausted(catch_up(world.archive()))
    assert keys(world) == []
    for n in range(10):
        world.cluster.append("t", b"%d" % n)
    look(world.archive(), Bounds(), Memory())
    world.cluster.delete_records("t", 0, 15)
    exhausted(catch_up(world.archive()))
    seen, memory = look(world.archive(), Bounds(), Memory())
    assert [(p.key, p.amount) for p in seen.problems] == [(f"{LOST} t", 5)]
    assert look(world.archive(), Bounds(), memory)[0].problems == seen.problems  # as remembered


def test_open_findings_are_told_by_topic_and_kind_but_not_what_is_only_too_much() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    found = [
        Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="a"),
        Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key="b"),
        Finding(Kind.ORPHAN_OBJECT, BUSY, "too much", object_key="c"),
    ]
    world.catalog.note_findings(found, NOW)
    assert keys(world) == [f"{FINDING} {BUSY} missing_object"]


def test_a_database_or_a_source_that_does_not_answer_is_a_problem_and_nothing_else_is_over() -> None:
    world = awkward_world()
    fault = Fault(1, When.BEFORE, fail)
    for wrapped, sort in (("catalog", DATABASE), ("source", SOURCE)):
        archive = world.archive()
        broken = Faults((fault,)).wrap(getattr(archive, wrapped), wrapped)
        seen, _ = look(replace(archive, **{wrapped: broken}), Bounds(), Memory())
        assert [p.sort for p in seen.problems] == [sort]
        assert LAG not in seen.sorts
        assert (LOST in seen.sorts) == (sort == SOURCE)
        assert seen.problems[0].patience_s == Bounds().patience_s


def test_a_finding_is_told_again_when_there_are_twice_as_many() -> None:
    world = awkward_world()
    exhausted(catch_up(world.archive()))
    told = Told()
    amounts = []
    for number in range(1, 9):
        world.catalog.note_findings([Finding(Kind.MISSING_OBJECT, BUSY, "gone", object_key=f"{number}")], NOW)
        seen, _ = look(world.archive(), Bounds(), Memory())
        before = len(told.news)
        told = told.after(seen, ["box"], float(number), Rules())
        amounts += [number] * (len(told.news) - before)
    assert amounts == [1, 2, 4, 8]
