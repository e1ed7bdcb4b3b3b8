"""Deduplicating, pruning and suppressing may die at any call: the next run completes it, and nothing else was touched."""

from __future__ import annotations

import datetime
import uuid

import pytest

from hop_archive.catalog.records import Outcome
from hop_archive.devkit.faults import Fault, Faults, When, crash
from hop_archive.model.annotations import Annotations
from hop_archive.model.document import decode
from hop_archive.upkeep.remove.duplicates import deduplicate
from hop_archive.upkeep.remove.prune import Policy, prune
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive_tests.invariants import fetched
from hop_archive_tests.removals import (
    Backed,
    archive_all,
    assert_nowhere,
    assert_whole,
    attempt,
    copied,
    crash_at_each_call,
    crash_in_pairs,
    doubled_world,
    small_world,
)
from hop_archive_tests.worlds import BUSY, NOW_MS, QUIET, WorldLayout

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
SECRET = b"what must not be"


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_deduplicating_dies_the_next_run_completes_it(layout: WorldLayout) -> None:
    base = doubled_world(layout)
    kept = {row.uuid for row in base.rows() if row.uuid.int > 100}

    def deed(world: Backed, faults: Faults) -> None:
        deduplicate(world.removing(faults))

    def judge(world: Backed) -> None:
        assert_whole(world)
        assert {row.uuid for row in world.rows()} == kept
        assert len(list(world.catalog.duplicates(BUSY))) == 3
        assert world.coverage() == base.coverage()

    calls = crash_at_each_call(base, deed, judge)
    crash_in_pairs(base, deed, judge, calls)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_pruning_dies_the_next_run_completes_it(layout: WorldLayout) -> None:
    base = archive_all(small_world(layout))
    policy = Policy((BUSY,), datetime.timedelta(days=30))
    now = datetime.datetime.fromtimestamp((NOW_MS + 5) / 1000, datetime.UTC) + policy.older_than

    def deed(world: Backed, faults: Faults) -> None:
        removing = world.removing(faults)
        prune(type(removing)(removing.catalog, removing.store, removing.backup, now=lambda: now), policy)

    def judge(world: Backed) -> None:
        assert_whole(world)
        assert [row.timestamp_ms - NOW_MS for row in world.catalog.rows(BUSY)] == [6, 8, 5, 7, 9]
        assert {e.outcome for e in world.catalog.ledger([QUIET])} == {Outcome.ARCHIVED}
        assert world.coverage() == base.coverage()

    calls = crash_at_each_call(base, deed, judge)
    crash_in_pairs(base, deed, judge, calls)


def secret_world(layout: WorldLayout) -> tuple[Backed, uuid.UUID]:
    """A message with content that has to go, and two duplicates of it."""
    world = small_world(layout)
    own = uuid.UUID(int=77)
    headers = (("_id", own.bytes), ("title", SECRET), ("_sender", SECRET))
    for partition in (0, 1, 1):
        world.cluster.append(BUSY, SECRET, key=SECRET, headers=headers, partition=partition)
    return archive_all(world), own


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_suppressing_dies_the_same_command_completes_it(layout: WorldLayout) -> None:
    base, own = secret_world(layout)
    before = {row.uuid: row for row in base.rows()}

    def deed(world: Backed, faults: Faults) -> None:
        suppress(world.removing(faults), [own], "a court said so", grace_s=-1)

    def judge(world: Backed) -> None:
        assert_whole(world)
        assert_nowhere(world, SECRET)
        row = world.catalog.find(own)
        assert row is not None
        assert row.annotations == Annotations(media_type=before[own].annotations.media_type)
        document = decode(fetched(world.store, row))
        assert document.suppressed == "a court said so"
        assert document.digest == before[own].digest == row.digest
        assert world.catalog.suppressed([own]) == {own}
        assert {row.uuid for row in world.rows()} == before.keys()
        assert world.coverage() == base.coverage()

    calls = crash_at_each_call(base, deed, judge)
    crash_in_pairs(base, deed, judge, calls)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_wherever_suppressing_dies_every_object_that_it_made_is_named_or_a_pending_delete(
    layout: WorldLayout,
) -> None:
    """So that it goes, also where the next run needs another one in its place, or never comes."""
    base, own = secret_world(layout)
    before = {info.key for info in base.store.listing()}

    def deed(world: Backed, faults: Faults) -> None:
        suppress(world.removing(faults), [own], "a court said so", grace_s=-1)

    calm = Faults()
    deed(copied(base), calm)
    for number in range(1, len(calm.calls) + 1):
        for when in When:
            world = copied(base)
            attempt(world, deed, Faults((Fault(number, when, crash),)))
            named = {row.object_key for row in world.rows()}
            for store in (world.store, world.backup):
                made = {info.key for info in store.listing()} - before
                assert made - named <= world.catalog.pending_keys(store.bucket, made), (
                    calm.calls[number - 1],
                    when,
                )
