"""Whatever call of a restore fails or is the last: the same command goes on, and each message is there once, in order."""

from __future__ import annotations

import contextlib
import pickle
import random
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from hop_archive.catalog.mock.catalog import MockCatalog
from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.recover.restore import items
from hop_archive.recover.restore import write as writing
from hop_archive.recover.restore.request import Request
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.store.mock import MockStore
from hop_archive_tests.restores import archived_world, empty_cluster, held, restoration, run, stored
from hop_archive_tests.worlds import BUSY, QUIET, World, WorldLayout

REQUEST = Request(template="{topic}.again")
PAIRS = 60


@pytest.fixture(autouse=True)
def _small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that some dozens of messages make many calls."""
    monkeypatch.setattr(writing, "PORTION_MESSAGES", 12)
    monkeypatch.setattr(items, "PAGE", 17)


once_archived = cache(archived_world)


def another_world(layout: WorldLayout = "message") -> World:
    """An archived world with a catalog and a store of its own: a restore changes them, and not where the messages came from."""
    world, catalog, store = once_archived(layout), MockCatalog(), MockStore()
    catalog._state._value = pickle.loads(pickle.dumps(world.catalog._state._value))
    store._shelf._objects = dict(world.store._shelf._objects)  # type: ignore[union-attr] # in memory it has these
    return replace(world, catalog=catalog, store=store)


def attempt(world: World, cluster: MockCluster, folder: Path, faults: Faults, request: Request) -> None:
    with contextlib.suppress(CrashError, HopArchiveError):
        run(restoration(world, cluster, request, faults), folder)


def finish(world: World, cluster: MockCluster, folder: Path, request: Request) -> None:
    outcome = run(restoration(world, cluster, request), folder)
    assert (outcome.complete, outcome.differences, outcome.left_out) == (True, 0, 0)
    archive = world.archive()
    for topic in (BUSY, QUIET):
        assert held(cluster, f"{topic}.again") == stored(archive, topic)


def calls_without_faults(world: World, folder: Path, request: Request) -> list[str]:
    faults = Faults()
    run(restoration(world, empty_cluster(), request, faults), folder)
    return faults.calls


@pytest.mark.parametrize("when", When)
@pytest.mark.parametrize("act", [crash, fail])
def test_whatever_single_call_fails_or_is_the_last_the_same_command_completes_the_restore(
    when: When, act: Callable[[str], None], tmp_path: Path
) -> None:
    calls = calls_without_faults(another_world("segment"), tmp_path / "calls", REQUEST)
    assert {name.partition(".")[0] for name in calls} == {"catalog", "store", "target", "reader"}
    for number in range(1, len(calls) + 1):
        world, cluster = another_world("segment"), empty_cluster()
        attempt(world, cluster, tmp_path / f"{number}", Faults((Fault(number, when, act),)), REQUEST)
        finish(world, cluster, tmp_path / f"{number} again", REQUEST)


@pytest.mark.parametrize(
    "request_", [REQUEST, Request(template="{topic}.again", skip_damaged=True)], ids=["by rows", "by content"]
)
def test_random_pairs_of_faults_leave_nothing_lost_doubled_or_out_of_order(
    request_: Request, tmp_path: Path
) -> None:
    count = len(calls_without_faults(another_world(), tmp_path / "calls", request_))
    chance = random.Random(11)
    for number in range(PAIRS):
        world, cluster = another_world(), empty_cluster()
        first, second = (
            Fault(chance.randint(1, count), chance.choice(list(When)), chance.choice([crash, fail]))
            for _ in range(2)
        )
        if chance.random() < 0.5:
            attempt(world, cluster, tmp_path / f"{number}", Faults((first, second)), request_)
        else:
            attempt(world, cluster, tmp_path / f"{number}", Faults((first,)), request_)
            attempt(world, cluster, tmp_path / f"{number} b", Faults((second,)), request_)
        finish(world, cluster, tmp_path / f"{number} c", request_)
