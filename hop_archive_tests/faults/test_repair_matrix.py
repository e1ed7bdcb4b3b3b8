"""Any call of a repair may fail or be the last, and two may be at it at once: the next completes it, nothing is lost."""

from __future__ import annotations

import contextlib
import itertools
import random
import threading
from collections.abc import Callable

import pytest

from hop_archive.devkit.faults import CrashError, Fault, Faults, When, crash, fail
from hop_archive.errors import HopArchiveError
from hop_archive.ingest.follow import catch_up
from hop_archive.upkeep.repair.plan import QUARANTINE
from hop_archive_tests.damaging import Ruin, ruin
from hop_archive_tests.invariants import assert_archived, assert_no_object_twice
from hop_archive_tests.worlds import BUSY, QUIET, WorldLayout, exhausted, fill

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
PAIRS = 30
WRITES = ("create", "delete", "correct_rows", "put_back", "account", "recount", "resolve", "reader")


def ruined(layout: WorldLayout) -> Ruin:
    """One of each kind of damage, found and noted."""
    broken = ruin(layout)
    rows = [row for row in broken.rows(BUSY) if row.partition == 0]
    other = [row for row in broken.rows(BUSY) if row.partition == 1]
    first, second, third, *_ = {row.object_key: row for row in rows}.values()
    broken.drop(first.object_key)
    broken.flip(second)
    broken.truncate(third)
    broken.alter(other[0], timestamp_ms=5)
    broken.drop_row(other[1])
    broken.drop_ledger_row(other[-1])
    broken.drop(broken.rows(QUIET)[0].object_key)
    broken.verify()
    return broken


def attempt(broken: Ruin, faults: Faults) -> None:
    with contextlib.suppress(CrashError, HopArchiveError):
        broken.repair(faults)


def finish(broken: Ruin, kept: dict[str, bytes]) -> None:
    broken.repair()
    broken.replicate()
    broken.verify()  # damaged objects that a crash kept from being put aside are orphans now
    broken.repair()
    assert broken.verify() == []
    assert list(broken.world.catalog.findings()) == []
    archive = broken.archive()
    for topic in (BUSY, QUIET):
        assert_archived(archive, broken.world.cluster, topic)
    assert_no_object_twice(archive)
    now = objects(broken)
    aside = {body for key, body in now.items() if key.startswith(QUARANTINE)}
    assert all(now.get(key) == body or body in aside for key, body in kept.items()), "bytes were lost"


def objects(broken: Ruin) -> dict[str, bytes]:
    return {info.key: broken.body(info.key) for info in broken.world.store.listing()}


def calls_without_faults(layout: WorldLayout) -> list[str]:
    faults = Faults()
    attempt(ruined(layout), faults)
    return faults.calls


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("when", "act"), [*itertools.product(When, [crash, fail])])
def test_whatever_single_call_fails_or_is_the_last_the_next_repair_completes_it(
    layout: WorldLayout, when: When, act: Callable[[str], None]
) -> None:
    calls = calls_without_faults(layout)
    numbers = [n for n, name in enumerate(calls, start=1) if name.partition(".")[2].startswith(WRITES)]
    rest = [n for n in range(1, len(calls) + 1) if n not in numbers]
    assert len(numbers) > 10
    for number in [
        *numbers,
        *rest[:: max(1, len(rest) // 10)],
    ]:  # what only reads has no effect to be half done
        broken = ruined(layout)
        kept = objects(broken)
        faults = Faults((Fault(number, when, act),))
        attempt(broken, faults)
        assert len(faults.calls) >= number, "the fault did not strike"
        finish(broken, kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_random_pairs_of_faults_in_two_repairs_leave_nothing_lost_or_doubled(layout: WorldLayout) -> None:
    count = len(calls_without_faults(layout))
    chance = random.Random(7)
    for _ in range(PAIRS):
        broken = ruined(layout)
        kept = objects(broken)
        for _ in range(2):
            fault = Fault(chance.randint(1, count), chance.choice(list(When)), chance.choice([crash, fail]))
            attempt(broken, Faults((fault,)))
        finish(broken, kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_repairs_at_once_do_no_harm(layout: WorldLayout) -> None:
    for _ in range(4):
        broken = ruined(layout)
        kept = objects(broken)
        errors: list[BaseException] = []

        def mend(broken: Ruin = broken, errors: list[BaseException] = errors) -> None:
            try:
                broken.repair()
            except BaseException as error:  # noqa: BLE001 - told below
                errors.append(error)

        threads = [threading.Thread(target=mend) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert errors == []
        finish(broken, kept)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_archiving_and_repair_at_once_do_no_harm(layout: WorldLayout) -> None:
    for _ in range(4):
        broken = ruined(layout)
        kept = objects(broken)
        fill(broken.world.cluster, seed=1)
        archiver = threading.Thread(target=exhausted, args=(catch_up(broken.archive()),))
        archiver.start()
        broken.repair()
        archiver.join()
        exhausted(catch_up(broken.archive()))
        broken.replicate()
        broken.verify()
        finish(broken, kept)
