"""Cleaning up tests may die at any call: the next run completes it, and nothing else was touched."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import Outcome
from hop_archive.devkit.faults import Faults
from hop_archive.ingest.follow import catch_up
from hop_archive.model.query import Query
from hop_archive.model.topics import TopicPolicy
from hop_archive.upkeep.remove.clean_tests import clean_marked, clean_topics
from hop_archive_tests.removals import (
    Backed,
    archive_all,
    assert_whole,
    crash_at_each_call,
    crash_in_pairs,
    small_world,
)
from hop_archive_tests.worlds import BUSY, QUIET, WorldLayout, exhausted

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
MARK = ("_test", b"true")


def archive_of(world: Backed, faults: Faults | None = None) -> Archive:
    return replace(world.archive(faults), topics=TopicPolicy(test_topics=(QUIET,)))


def clean(world: Backed, faults: Faults) -> None:
    clean_topics(archive_of(world, faults), world.removing(faults), [QUIET], delete_records=False)


def world_of_tests(layout: WorldLayout) -> Backed:
    """Half of a test topic is archived, and half is not read yet."""
    world = archive_all(small_world(layout))
    for number in range(3):
        world.cluster.append(QUIET, b"test %d" % number)
    return world


def assert_clean(world: Backed) -> None:
    assert_whole(world)
    assert list(world.catalog.rows(QUIET)) == []
    assert {e.outcome for e in world.catalog.ledger([QUIET])} == {Outcome.SKIPPED}
    exhausted(catch_up(world.archive(), overlap=0))
    assert list(world.catalog.rows(QUIET)) == [], "what was cleaned up was archived again"
    assert len(list(world.catalog.rows(BUSY))) == 10


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_cleaning_of_a_test_topic_dies_the_next_run_completes_it(layout: WorldLayout) -> None:
    base = world_of_tests(layout)
    calls = crash_at_each_call(base, clean, assert_clean)
    crash_in_pairs(base, clean, assert_clean, calls)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_cleaning_of_marked_messages_dies_the_next_run_completes_it(layout: WorldLayout) -> None:
    base = small_world(layout)
    for partition in (0, 0, 1):
        base.cluster.append(BUSY, b"a test", headers=(("_id", bytes(16)), MARK), partition=partition)
    archive_all(base)
    before = {row.uuid for row in base.rows()}
    assert len(list(base.catalog.duplicates(BUSY))) == 2

    def deed(world: Backed, faults: Faults) -> None:
        clean_marked(world.removing(faults), Query())

    def judge(world: Backed) -> None:
        assert_whole(world)
        assert len(before - {row.uuid for row in world.rows()}) == 1
        assert list(world.catalog.duplicates(BUSY)) == []
        assert world.coverage() == base.coverage()

    calls = crash_at_each_call(base, deed, judge)
    crash_in_pairs(base, deed, judge, calls)
