"""A snapshot may be broken off anywhere: each thing is as last known or as new, and the next one completes it."""

from __future__ import annotations

import contextlib
import itertools
import random
from collections.abc import Callable
from typing import Any

import pytest

from hop_archive.catalog.records import SnapshotKind
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.ingest import cluster_state as snapshotting
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive_tests.worlds import BUSY, QUIET, World

KINDS: tuple[SnapshotKind, ...] = ("topic", "group")
PAIRS = 60
Contents = dict[tuple[str, str], Any]


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshotting, "GROUPS_AT_ONCE", 2)


def world_at_first() -> World:
    """A world of which there is a snapshot; the same each time, ids included."""
    numbers = itertools.count()
    world = World(cluster=MockCluster(make_id=lambda: f"id-{next(numbers)}"))
    world.cluster.create_topic(BUSY, 2)
    world.cluster.create_topic(QUIET)
    for number in range(5):
        _commit(world, f"group-{number}", {TopicPartition(BUSY, 0): number, TopicPartition(QUIET, 0): 1})
    take_snapshot(world.archive())
    return world


def world_changed() -> World:
    """The same world, in which something of every kind has changed since."""
    world = world_at_first()
    world.cluster.delete_topic(QUIET)
    world.cluster.create_topic("new", 3)
    MockSource(cluster=world.cluster).change_settings(BUSY, {"retention.ms": "7"})
    for number in range(5):
        with world.cluster.change() as state:
            state.progress[f"group-{number}"] = {TopicPartition(BUSY, 1): Committed(10 + number)}
    return world


def _commit(world: World, group: str, offsets: dict[TopicPartition, int]) -> None:
    MockSource(cluster=world.cluster).set_group_offsets(
        group, {at: Committed(offset) for at, offset in offsets.items()}
    )


def kept(world: World) -> Contents:
    return {(kind, one.name): one.content for kind in KINDS for one in world.catalog.snapshots(kind)}


def attempt(world: World, faults: Faults) -> None:
    with contextlib.suppress(CrashError, HopArchiveError):
        take_snapshot(world.archive(faults))


def before_and_after() -> tuple[Contents, Contents, list[str]]:
    """What is kept before and after a snapshot without faults, and its calls."""
    world, faults = world_changed(), Faults()
    before = kept(world)
    attempt(world, faults)
    after = kept(world)
    assert [key for key in after if before.get(key) != after[key]] == [
        ("topic", BUSY),
        ("topic", "new"),
        *(("group", f"group-{number}") for number in range(5)),
    ]
    return before, after, faults.calls


def judge(world: World, before: Contents, after: Contents) -> None:
    """Nothing is lost, or less than it was; and the next snapshot is whole."""
    now = kept(world)
    assert now.keys() >= before.keys()
    for key, content in now.items():
        assert content in (before.get(key), after[key])
    take_snapshot(world.archive())
    assert kept(world) == after


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", [crash, fail])
def test_whatever_single_call_fails_or_is_the_last_nothing_good_is_lost(
    when: When, act: Callable[[str], None]
) -> None:
    before, after, calls = before_and_after()
    assert calls.count("catalog.keep_snapshots") == 4
    for number in range(1, len(calls) + 1):
        world, faults = world_changed(), Faults((Fault(number, when, act),))
        attempt(world, faults)
        assert len(faults.calls) >= number, "the fault did not strike"
        judge(world, before, after)


def test_random_pairs_of_faults_in_two_snapshots_lose_nothing_good() -> None:
    before, after, calls = before_and_after()
    chance = random.Random(7)
    for _ in range(PAIRS):
        world = world_changed()
        for _ in range(2):
            number, when = chance.randint(1, len(calls)), chance.choice(list(When))
            attempt(world, Faults((Fault(number, when, chance.choice([crash, fail])),)))
        judge(world, before, after)
