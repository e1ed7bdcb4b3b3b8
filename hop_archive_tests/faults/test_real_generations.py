"""The local stack's broker keeps nothing: restarted, its topics made anew are generations of their own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.protocol import Outcome
from hop_archive.comparing import Place, Sent
from hop_archive.errors import HopArchiveError
from hop_archive.following import catch_up
from hop_archive.local.stack import LocalStack
from hop_archive.planning import Limits
from hop_archive.slices import Lineage, OffsetSet
from hop_archive.surveying import OUTLIVED, survey
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.faults.real import (
    SEGMENTS,
    archiving_on_and_on,
    assert_all_archived,
    assert_stored,
    covered,
    plain,
    publish,
    restartable,
    wait_until,
)
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.local, pytest.mark.slow]

SMALL = Limits(batch_messages=50)
PARTITIONS = 2


@dataclass(frozen=True, slots=True)
class Life:
    """One life of some topics: what was sent in it."""

    topics: list[str]
    sent: dict[Place, Sent]

    @property
    def lineages(self) -> list[tuple[str, int]]:
        return [(topic, partition) for topic in self.topics for partition in range(PARTITIONS)]


def begin_life(archive: Archive, namespace: str, seed: int, count: int = 400) -> Life:
    topics = [f"{namespace}.message", f"{namespace}.{SEGMENTS}"]
    for topic in topics:
        archive.source.create_topic(topic, PARTITIONS)
    alerts = [a for topic in topics for a in plain(topic, count, seed=seed, partitions=PARTITIONS)]
    return Life(topics, publish(archive.source, alerts))


def assert_first_life_is_accounted_for(archive: Archive, life: Life) -> int:
    """All that was seen is archived and the same, or recorded as lost with the topic; how much was archived."""
    seen = archive.catalog.observed(life.topics)
    lost = {entry for entry in archive.catalog.ledger(life.topics) if entry.outcome is Outcome.LOST}
    assert {entry.reason for entry in lost} <= {OUTLIVED}
    for topic, partition in life.lineages:
        lineage = Lineage(topic, 1, partition)
        assert covered(archive, lineage) == OffsetSet.between(0, seen[lineage].stable)
        assert seen[lineage].stable == 200
    gone = {(e.slice.topic, e.slice.partition, o) for e in lost for o in range(e.slice.start, e.slice.stop)}
    kept = {
        (at, offset): was
        for (at, offset), was in life.sent.items()
        if (at.topic, at.partition, offset) not in gone
    }
    for topic in life.topics:
        assert_stored(archive, topic, 1, kept)
    return len(kept)


def test_a_broker_restarted_empty_in_mid_run_begins_generations_and_both_are_accounted_for(
    open_archive: OpenArchive, namespace: str, local_stack: LocalStack
) -> None:
    stack = restartable(local_stack, "kafka")
    archive = open_archive(limits=SMALL)
    first = begin_life(archive, namespace, seed=1)
    steps = catch_up(archive)
    next(steps)
    stack.kill("kafka")
    stack.start("kafka")
    second = begin_life(open_archive(), namespace, seed=2)
    with contextlib.suppress(HopArchiveError):
        exhausted(steps)
    exhausted(catch_up(archive))
    kept = assert_first_life_is_accounted_for(archive, first)
    assert 0 < kept < len(first.sent), "it was restarted too early or too late to matter"
    assert_all_archived(archive, second.topics, second.sent)
    assert {len(found) for found in archive.catalog.generations(second.topics).values()} == {2}


def test_a_run_on_and_on_goes_over_to_the_new_generation_by_itself(
    open_archive: OpenArchive, namespace: str, local_stack: LocalStack
) -> None:
    stack = restartable(local_stack, "kafka")
    archive, watching = open_archive(limits=SMALL), open_archive()
    first = begin_life(watching, namespace, seed=1)
    with archiving_on_and_on(archive, first.topics) as errors:
        wait_until(lambda: not survey(watching, first.topics).pending(), "the first life is archived")
        stack.kill("kafka")
        wait_until(lambda: errors, "the broker is missed")
        stack.start("kafka")
        second = begin_life(open_archive(), namespace, seed=2)
        wait_until(lambda: not survey(watching, first.topics).pending(), "the second life is archived")
    assert assert_first_life_is_accounted_for(watching, first) == len(first.sent)
    assert_all_archived(watching, second.topics, second.sent)
