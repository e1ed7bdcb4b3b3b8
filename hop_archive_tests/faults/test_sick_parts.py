"""One sick part of the source stops nothing but itself, and is named: in findings, and by every way to look or archive."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import cast

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.faults import Faults
from hop_archive.errors import CorruptError, ForbiddenError, HopArchiveError, UnavailableError
from hop_archive.ingest.follow import archive_continuously, catch_up
from hop_archive.ingest.survey import look, plan_work
from hop_archive.ingest.write import commit_batches, store_slices
from hop_archive.model.findings import Kind
from hop_archive.model.message import Message, TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.slices import PartitionLog
from hop_archive.read.topic_facts import TopicState, report_topics, status
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockReader, MockSource
from hop_archive.source.protocol import Answers, TopicInfo
from hop_archive.upkeep.repair.plan import Upstream
from hop_archive.upkeep.verify.source import source
from hop_archive.upkeep.verify.verification import NOT_LOOKED_AT, Verification
from hop_archive_tests.worlds import World, exhausted

HEALTHY, SICK = "healthy", "sick"
_numbers = itertools.count()


@pytest.fixture
def world() -> World:
    """Two topics of two partitions each, with three messages in each partition."""
    made = World()
    for topic in (HEALTHY, SICK):
        made.cluster.create_topic(topic, 2)
        publish(made.cluster, topic)
    return made


def publish(cluster: MockCluster, topic: str) -> None:
    for partition in (0, 0, 0, 1, 1, 1):
        cluster.append(topic, b"%d" % next(_numbers), partition=partition)


def archived(world: World) -> dict[str, int]:
    return {one.topic: one.messages for one in world.catalog.summaries() if one.messages}


def in_the_way(world: World) -> list[tuple[Kind, str, int | None]]:
    return [(f.finding.kind, f.finding.topic, f.finding.partition) for f in world.catalog.findings()]


def refused_slices(world: World) -> list[tuple[str, int, int, int]]:
    found = world.catalog.findings(kinds=[Kind.NOT_READABLE])
    slices = sorted(f.finding.slice for f in found if f.finding.slice)
    return [(s.topic, s.partition, s.start, s.stop) for s in slices]


def rounds(archive: Archive, number: int) -> Iterator[None]:
    """Archive on and on, until ``number`` times there was a look around."""
    steps = archive_continuously(archive, stop=lambda: False, sleep=lambda _: None)
    for _ in range(number):
        next(steps)
        yield


def test_a_partition_without_a_leader_stops_no_other_and_is_told(world: World) -> None:
    world.cluster.lose_leader(SICK, 1)
    with pytest.raises(UnavailableError, match=r"All else is archived\. .*sick\[1\] has no leader"):
        exhausted(catch_up(world.archive()))
    assert archived(world) == {HEALTHY: 6, SICK: 3}
    assert in_the_way(world) == [(Kind.NO_LEADER, SICK, 1)]
    assert not any(one.lost for one in world.catalog.summaries())


def test_what_has_a_leader_again_is_archived_and_told_of_no_more(world: World) -> None:
    world.cluster.lose_leader(SICK, 1)
    with pytest.raises(UnavailableError):
        exhausted(catch_up(world.archive()))
    world.cluster.elect_leader(SICK, 1)
    exhausted(catch_up(world.archive()))
    assert archived(world) == {HEALTHY: 6, SICK: 6}
    assert in_the_way(world) == []


def test_a_look_asks_for_the_cluster_and_its_leaders_at_once(world: World) -> None:
    faults = Faults()
    look(world.archive(faults))
    calls = [call.split()[0] for call in faults.calls]
    assert calls.count("source.watermarks") == 1
    assert "source.cluster_id" not in calls


def test_since_when_is_kept_while_it_lasts(world: World) -> None:
    world.cluster.lose_leader(SICK)
    look(world.archive())
    (first,) = world.catalog.findings()
    look(world.archive())
    (again,) = world.catalog.findings()
    assert (again.number, again.first_seen) == (first.number, first.first_seen)


@pytest.mark.parametrize("operation", ["read", "describe"])
def test_a_topic_that_may_not_be_read_stops_no_other_and_is_told(world: World, operation: str) -> None:
    exhausted(catch_up(world.archive()))
    publish(world.cluster, HEALTHY)
    world.cluster.deny(SICK, operation)
    with pytest.raises(ForbiddenError, match=r"All else is archived\. .*sick"):
        exhausted(catch_up(world.archive()))
    assert archived(world) == {HEALTHY: 12, SICK: 6}
    assert in_the_way(world) == [(Kind.NOT_READABLE, SICK, None)]
    world.cluster.allow(SICK)
    exhausted(catch_up(world.archive()))
    assert in_the_way(world) == []


def test_a_topic_that_may_not_be_read_is_not_planned(world: World) -> None:
    world.cluster.deny(SICK)
    assert {planned.topic for planned in plan_work(world.archive()).plan.slices} == {HEALTHY}


def test_a_right_that_is_taken_away_while_following_ends_that_topic_alone(world: World) -> None:
    archive = world.archive()
    following = rounds(archive, 10_000)
    while archived(world) != {HEALTHY: 6, SICK: 6}:
        next(following)
    world.cluster.deny(SICK)
    for topic in (HEALTHY, SICK):
        publish(world.cluster, topic)
    while archived(world) != {HEALTHY: 12, SICK: 6}:
        next(following)
    while in_the_way(world) != [(Kind.NOT_READABLE, SICK, None)]:
        next(following)
    world.cluster.allow(SICK)
    while archived(world) != {HEALTHY: 12, SICK: 12} or in_the_way(world):
        next(following)


class Untelling(MockSource):
    """A cluster that does not tell rights, as brokers without KIP-430: only reading shows what is refused."""

    def topics(self, names: object = None) -> Answers[str, TopicInfo]:
        found = super().topics(cast("list[str] | None", names))
        return Answers({name: replace(info, readable=None) for name, info in found.items()}, found.untold)


def test_where_rights_are_not_told_reading_shows_them_and_the_finding_stays_until_all_is_read(
    world: World,
) -> None:
    archive = replace(world.archive(), source=Untelling(cluster=world.cluster))
    world.cluster.deny(SICK)
    with pytest.raises(ForbiddenError, match="All else is archived"):
        exhausted(catch_up(archive))
    assert archived(world) == {HEALTHY: 6}
    look(archive)
    assert refused_slices(world) == [(SICK, 0, 0, 1), (SICK, 1, 0, 1)]
    world.cluster.allow(SICK)
    publish(world.cluster, SICK)
    exhausted(catch_up(archive))
    assert archived(world) == {HEALTHY: 6, SICK: 12}
    publish(world.cluster, SICK)  # that more waits says nothing of what was in the way
    look(archive)
    assert in_the_way(world) == []


class Damaged(MockSource):
    """A cluster one of whose messages, at offset 1 of a partition, is damaged; it tells rights."""

    def reader(self, starts: Mapping[TopicPartition, int]) -> MockReader:
        return DamagedReader(self, starts)


class DamagedReader(MockReader):
    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        place = TopicPartition(SICK, 0)
        if self._next.get(place) == 1 and place in self._queue:
            self.release([place])
            raise CorruptError("bad CRC", topic=SICK, partition=0, offset=1)
        return super().poll(1, timeout_s)


def test_a_damaged_message_stays_told_until_it_is_passed_whatever_surveys_see(world: World) -> None:
    archive = replace(world.archive(), source=Damaged(cluster=world.cluster))
    for _ in range(2):
        with pytest.raises(CorruptError, match="bad CRC"):
            exhausted(catch_up(archive))
        look(archive)
        assert refused_slices(world) == [(SICK, 0, 1, 2)]
    (found,) = world.catalog.findings(open_only=False)
    exhausted(catch_up(world.archive()))
    assert archived(world) == {HEALTHY: 6, SICK: 6}
    look(world.archive())
    assert (in_the_way(world), found.finding.kind) == ([], Kind.NOT_READABLE)


def test_it_is_not_asked_for_again_at_once(world: World) -> None:
    archive = replace(world.archive(), source=Untelling(cluster=world.cluster))
    world.cluster.deny(SICK)
    pauses: list[float] = []
    steps = archive_continuously(archive, stop=lambda: len(pauses) >= 3, sleep=pauses.append)
    exhausted(steps)
    assert archived(world) == {HEALTHY: 6}
    assert min(pauses) >= 1.0


def test_the_two_halves_of_a_run_leave_out_what_is_refused(world: World) -> None:
    archive = replace(world.archive(), source=Untelling(cluster=world.cluster))
    slices = plan_work(archive).plan.slices
    world.cluster.deny(SICK)
    commit_batches(archive, store_slices(archive, slices))
    assert archived(world) == {HEALTHY: 6}
    assert refused_slices(world) == [(SICK, 0, 0, 1), (SICK, 1, 0, 1)]


def test_a_topic_that_cannot_be_described_at_commit_time_leaves_the_others_committed(world: World) -> None:
    archive = world.archive()
    batches = store_slices(archive, plan_work(archive).plan.slices)
    world.cluster.deny(SICK, "describe")
    done = commit_batches(archive, sorted(batches, key=lambda batch: batch.slice.topic))
    assert archived(world) == {HEALTHY: 6}
    assert "cannot be told" in done[-1].note


def test_a_topic_whose_name_is_none_of_kafkas_stops_no_other_and_is_told(world: World) -> None:
    for name in (".", "../x"):
        world.cluster.create_topic(name)
        world.cluster.append(name, b"x")
    with pytest.raises(ForbiddenError, match="which is no name for a topic of Kafka"):
        exhausted(catch_up(world.archive()))
    assert archived(world) == {HEALTHY: 6, SICK: 6}
    assert in_the_way(world) == [(Kind.NOT_READABLE, ".", None), (Kind.NOT_READABLE, "../x", None)]


def test_status_and_topics_do_not_say_of_what_cannot_be_seen_that_it_is_archived_or_gone(
    world: World,
) -> None:
    exhausted(catch_up(world.archive()))
    world.cluster.lose_leader(HEALTHY)
    world.cluster.deny(SICK, "describe")
    found = status(world.archive())
    assert [(o.kind, o.topic, o.partition) for o in found.obstacles] == [
        (Kind.NOT_READABLE, SICK, None),
        (Kind.NO_LEADER, HEALTHY, 0),
    ]
    assert {one.topic: (one.lag, one.state) for one in found.topics} == {
        HEALTHY: (None, TopicState.ARCHIVED),
        SICK: (None, TopicState.ARCHIVED),
    }
    told = report_topics(world.archive()).topics
    assert {one.topic: (one.lag, one.state) for one in told} == {
        HEALTHY: (None, TopicState.ARCHIVED),
        SICK: (None, TopicState.ARCHIVED),
    }


def test_verifying_against_the_source_finds_what_it_cannot_look_at(world: World) -> None:
    exhausted(catch_up(world.archive()))
    world.cluster.lose_leader(SICK)
    wanted = Verification(world.catalog, world.store, Query())
    assert [one.kind for one in source(wanted, world.archive())] == [Kind.NO_LEADER]
    assert wanted.checked.counts[NOT_LOOKED_AT] == 1


class Undescribing(MockSource):
    """A cluster that lists a topic, and does not describe it."""

    def topics(self, names: object = None) -> Answers[str, TopicInfo]:
        found = super().topics(cast("list[str] | None", names))
        why = UnavailableError(f"the broker does not describe {SICK}", topic=SICK)
        told = {name: info for name, info in found.items() if name != SICK}
        return Answers(told, {SICK: why} if SICK in found else {})


def test_verifying_a_topic_that_was_never_archived_and_cannot_be_described_says_why(world: World) -> None:
    wanted = Verification(world.catalog, world.store, Query((SICK,)))
    found = list(source(wanted, replace(world.archive(), source=Undescribing(cluster=world.cluster))))
    assert [(one.kind, one.topic, one.detail) for one in found] == [
        (Kind.NOT_READABLE, SICK, f"the broker does not describe {SICK}")
    ]


def test_repair_does_not_take_what_cannot_be_seen_for_gone(world: World) -> None:
    exhausted(catch_up(world.archive()))
    world.cluster.lose_leader(SICK)
    (place,) = PartitionLog(SICK, 1, 0).slices(world.catalog.coverage([SICK])[PartitionLog(SICK, 1, 0)])
    with pytest.raises(UnavailableError, match="no leader"):
        Upstream(world.archive()).held(place)


def test_an_answer_that_was_not_told_is_never_taken_for_one_that_is_not_there() -> None:
    reason: HopArchiveError = UnavailableError("why")
    at = TopicPartition("t", 0)
    answers = Answers[TopicPartition, int]({}, {at: reason})
    for ask in (lambda: at in answers, lambda: answers.get(at), lambda: answers[at], answers.whole):
        with pytest.raises(UnavailableError, match="why"):
            ask()
    assert list(answers) == []
