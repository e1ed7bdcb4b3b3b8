"""Compacting may die at any call, alone or beside others: no document is lost, doubled or out of sight, and the next run goes on."""

from __future__ import annotations

import uuid

import pytest

from hop_archive.devkit.faults import Fault, Faults, When, crash
from hop_archive.ingest.follow import catch_up
from hop_archive.model.document import decode
from hop_archive.read.check import extent_of
from hop_archive.upkeep.compact import plan
from hop_archive.upkeep.compact.compact import compact
from hop_archive.upkeep.remove.suppress import suppress
from hop_archive_tests.compactions import after_grace, compact_all, trickled_world, wanted
from hop_archive_tests.invariants import fetched
from hop_archive_tests.removals import (
    Backed,
    assert_nowhere,
    assert_whole,
    attempt,
    copied,
    crash_at_each_call,
    crash_in_pairs,
)
from hop_archive_tests.worlds import BUSY, QUIET, WorldLayout, at_call, exhausted

LAYOUTS: tuple[WorldLayout, ...] = ("message", "segment", "zstd")
LOGS = {(BUSY, 0), (QUIET, 0)}
"""Those in which there is something to compact; of the third log there are too few objects."""
LEAST_OBJECTS = 6
"""For so few a segment is made, here: one more than the third log has."""


@pytest.fixture(params=LAYOUTS, scope="module")
def base(request: pytest.FixtureRequest) -> Backed:
    return trickled_world(request.param, each=LEAST_OBJECTS - 1)


@pytest.fixture(autouse=True)
def _small_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are few calls, each of which is the last one once, and few documents to look at after it."""
    monkeypatch.setattr(plan, "LEAST_OBJECTS", LEAST_OBJECTS)


def assert_all_are_read(world: Backed, base: Backed) -> None:
    """Whoever read the rows before anything was done, and whoever reads them now, gets the same documents."""
    then = {row.uuid: row for row in base.rows()}
    now = {row.uuid: row for row in world.rows()}
    assert now.keys() == then.keys()
    for store in (world.store, world.backup):
        old = store.fetch(extent_of(row) for row in then.values())
        new = store.fetch(extent_of(now[message_uuid]) for message_uuid in then)
        assert [*new] == [*old]


def assert_compacted(world: Backed) -> None:
    named = {(row.topic, row.partition, row.object_key) for row in world.rows()}
    named = {name for name in named if name[:2] in LOGS}
    assert len(named) == len(LOGS), "each log is one segment"


def test_wherever_compacting_dies_nobody_misses_a_document_and_the_next_run_goes_on(base: Backed) -> None:
    def deed(world: Backed, faults: Faults) -> None:
        try:
            exhausted(compact(world.removing(faults), wanted(world)))
        finally:
            assert_all_are_read(world, base)

    def judge(world: Backed) -> None:
        assert_compacted(world)
        assert_all_are_read(world, base)
        assert world.coverage() == base.coverage()
        after_grace(world)
        assert_whole(world)

    calls = crash_at_each_call(base, deed, judge)
    crash_in_pairs(base, deed, judge, calls)


def test_wherever_compacting_dies_every_object_that_it_made_is_named_or_a_pending_delete(
    base: Backed,
) -> None:
    before = {info.key for info in base.store.listing()}

    def deed(world: Backed, faults: Faults) -> None:
        exhausted(compact(world.removing(faults), wanted(world)))

    calm = Faults()
    deed(copied(base), calm)
    for number in range(1, len(calm.calls) + 1):
        for when in When:
            world = copied(base)
            attempt(world, deed, Faults((Fault(number, when, crash),)))
            named = {row.object_key for row in world.rows()}
            for store in (world.store, world.backup):
                made = {info.key for info in store.listing()} - before
                assert made - named <= world.catalog.pending_keys(store.bucket, made)


def _calls_of_a_calm_run(base: Backed) -> list[str]:
    calm = Faults()
    compact_all(copied(base), calm)
    return [call.split(" ")[0] for call in calm.calls]


def test_content_that_is_suppressed_between_any_two_calls_of_compacting_lives_nowhere(base: Backed) -> None:
    """Whichever of the two was first: no old object that waits for readers has it, nor the new segment."""
    victim = next(base.catalog.rows(BUSY))
    secret = decode(fetched(base.store, victim)).message.value
    assert secret is not None
    for number in range(1, len(_calls_of_a_calm_run(base)) + 1):
        for when in When:
            world = copied(base)

            def rival(_: str, world: Backed = world) -> None:
                suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1)

            attempt(
                world,
                lambda world, faults: exhausted(compact(world.removing(faults), wanted(world))),
                Faults((Fault(number, when, rival),)),
            )
            assert_nowhere(world, secret)
            compact_all(world)
            assert_nowhere(world, secret)
            after_grace(world)
            assert_whole(world)
            assert world.catalog.suppressed([victim.uuid]) == {victim.uuid}
            row = world.catalog.find(victim.uuid)
            assert row is not None
            assert decode(fetched(world.store, row)).suppressed == "a court said so"


def test_what_died_compactings_left_of_suppressed_content_goes_with_the_suppression(base: Backed) -> None:
    victim = next(base.catalog.rows(BUSY))
    secret = decode(fetched(base.store, victim)).message.value
    assert secret is not None
    for number in range(1, len(_calls_of_a_calm_run(base)) + 1):
        world = copied(base)
        attempt(
            world,
            lambda world, faults: exhausted(compact(world.removing(faults), wanted(world))),
            Faults((Fault(number, When.AFTER, crash),)),
        )
        suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1)
        assert_nowhere(world, secret)


def test_an_archiver_that_commits_between_any_two_calls_of_compacting_disturbs_nothing(base: Backed) -> None:
    for number in range(1, len(_calls_of_a_calm_run(base)) + 1):
        world = copied(base)
        own = uuid.UUID(int=number << 64)

        def rival(_: str, world: Backed = world, own: uuid.UUID = own) -> None:
            world.cluster.append(BUSY, b"new", headers=(("_id", own.bytes),), partition=0)
            exhausted(catch_up(world.archive(), overlap=0))

        compact_all(world, Faults((Fault(number, When.BEFORE, rival),)))
        assert world.catalog.find(own) is not None
        assert {row.uuid for row in base.rows()} < {row.uuid for row in world.rows()}
        for row in world.rows():
            fetched(world.store, row)
        assert [m for topic in (BUSY, QUIET) for m in world.catalog.miscounts(topic)] == []


def test_of_two_that_compact_at_once_neither_undoes_what_the_other_did(base: Backed) -> None:
    for number in range(1, len(_calls_of_a_calm_run(base)) + 1):
        world = copied(base)

        def rival(_: str, world: Backed = world) -> None:
            compact_all(world)

        compact_all(world, Faults((Fault(number, When.BEFORE, rival),)))
        compact_all(world)
        assert_compacted(world)
        assert_all_are_read(world, base)
        after_grace(world)
        assert_whole(world)


def test_a_reader_in_a_loop_never_misses_a_document_while_others_compact(base: Backed) -> None:
    """At each call of a compaction: of rows that were read then, and before the call, all documents are there."""
    world = copied(base)
    seen: list[int] = []
    before = world.rows()

    def look(_: str) -> None:
        nonlocal before
        now = world.rows()
        assert len([*world.store.fetch(extent_of(row) for row in (*before, *now))]) == len(before) + len(now)
        before = now
        seen.append(len(now))

    compact_all(world, Faults(tuple(Fault(n, when, look) for n in range(1, 500) for when in When)))
    assert len(seen) > 30
    assert set(seen) == {len(base.rows())}


def test_what_is_archived_while_a_segment_is_made_is_not_kept_from_being_compacted_later(
    base: Backed,
) -> None:
    world = copied(base)

    def more() -> None:
        for number in range(12):
            world.cluster.append(QUIET, b"more %d" % number)
            exhausted(catch_up(world.archive(), overlap=0))

    compact_all(world, at_call("store.fetch", more))
    compact_all(world)
    segments = {row.object_key for row in world.catalog.rows(QUIET)}
    assert len(segments) == 1


def test_who_suppresses_while_a_segment_is_made_is_told_that_it_may_have_the_content(base: Backed) -> None:
    """Of what was read before, and is not written yet, nothing is to be seen; where its maker dies then, it is there after."""
    victim = next(base.catalog.rows(BUSY))
    calls = _calls_of_a_calm_run(base)
    world, told = copied(base), list[str]()

    def rival(_: str) -> None:
        told.extend(suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1).young)

    first_made = next(number for number, call in enumerate(calls, 1) if call == "store.create")
    faults = Faults((Fault(first_made, When.BEFORE, rival), Fault(first_made + 1, When.AFTER, crash)))
    attempt(world, lambda world, faults: exhausted(compact(world.removing(faults), wanted(world))), faults)
    assert told == ["segments/{}/{}/{}/".format(*victim.slice.partition_log)] if victim.slice else False
    calm = suppress(world.removing(), [victim.uuid], "a court said so", grace_s=-1)
    assert calm.young == ()
