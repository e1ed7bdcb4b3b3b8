"""Snapshots of a source: what is taken, and that a good one is never replaced by less."""

from __future__ import annotations

import datetime
import itertools
import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from typing import Any

import pytest

from hop_archive.archive import Archive
from hop_archive.catalog.records import SnapshotKind
from hop_archive.errors import ForbiddenError, UnavailableError
from hop_archive.ingest import cluster_state as snapshotting
from hop_archive.ingest.cluster_state import HourlySnapshots, take_snapshot
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Answers, Setting, TopicInfo
from hop_archive_tests.worlds import World

ALERTS, QUIET = "alerts", "quiet"


@pytest.fixture
def world() -> World:
    made = World()
    made.cluster.create_topic(ALERTS, 2, {"retention.ms": "1000"})
    made.cluster.create_topic(QUIET)
    made.cluster.create_topic("heartbeat")
    return made


def archive_of(world: World, source: MockSource | None = None) -> Archive:
    hours = itertools.count(len(world.catalog.snapshots("topic")) and _latest(world) + 1)
    start = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)
    opened = replace(world.archive(), topics=TopicPolicy(veto=("heartbeat",)))
    opened = replace(opened, now=lambda: start + datetime.timedelta(hours=next(hours)))
    return replace(opened, source=source) if source else opened


def _latest(world: World) -> int:
    return max(one.taken_at for one in world.catalog.snapshots("topic")).hour


def commit(world: World, group: str, offsets: Mapping[tuple[str, int], int]) -> None:
    MockSource(cluster=world.cluster).set_group_offsets(
        group, {TopicPartition(*at): Committed(offset) for at, offset in offsets.items()}
    )


def forget(world: World, group: str, topic: str) -> None:
    """What a broker does to a group's offsets when a topic is deleted, or nobody read it for a week."""
    with world.cluster.change() as state:
        kept = {at: offset for at, offset in state.progress[group].items() if at.topic != topic}
        state.progress[group] = kept


def content(world: World, kind: SnapshotKind, name: str) -> dict[str, Any]:
    (one,) = world.catalog.snapshots(kind, [name])
    return dict(one.content)


def names(world: World, kind: SnapshotKind) -> list[str]:
    return [one.name for one in world.catalog.snapshots(kind)]


def test_archived_topics_are_taken_with_their_own_settings_alone(world: World) -> None:
    taken = take_snapshot(archive_of(world))
    assert names(world, "topic") == [ALERTS, QUIET]
    found = content(world, "topic", ALERTS)
    assert found["topic_id"] == world.archive().source.topics([ALERTS])[ALERTS].topic_id
    assert {key: found[key] for key in found.keys() - {"topic_id"}} == {
        "partitions": 2,
        "settings": {"retention.ms": "1000"},
        "settings_known": True,
    }
    assert (taken.topics, taken.groups, taken.changed, taken.hidden) == (2, 0, (), ())


def test_groups_are_taken_that_read_an_archived_topic_with_their_offsets_of_such_topics(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4, (ALERTS, 1): 0, ("heartbeat", 0): 9})
    commit(world, "other", {("heartbeat", 0): 9})
    world.cluster.join_group("has committed nothing")
    assert take_snapshot(archive_of(world)).groups == 1
    assert names(world, "group") == ["reader"]
    found = content(world, "group", "reader")
    assert found["offsets"] == [[ALERTS, 0, 4], [ALERTS, 1, 0]]
    assert found["topic_ids"] == {ALERTS: content(world, "topic", ALERTS)["topic_id"]}


def test_a_later_snapshot_says_what_changed(world: World) -> None:
    take_snapshot(archive_of(world))
    world.archive().source.change_settings(QUIET, {"retention.ms": "5"})
    world.cluster.create_topic("new")
    assert take_snapshot(archive_of(world)).changed == (QUIET,)
    assert content(world, "topic", QUIET)["settings"] == {"retention.ms": "5"}
    assert take_snapshot(archive_of(world)).changed == ()


def test_what_is_gone_keeps_its_last_snapshot(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4})
    take_snapshot(archive_of(world))
    before = (content(world, "topic", ALERTS), content(world, "group", "reader"))
    world.cluster.restart_empty()
    taken = take_snapshot(archive_of(world))
    assert (taken.topics, taken.groups) == (0, 0)
    assert (content(world, "topic", ALERTS), content(world, "group", "reader")) == before


def test_a_group_keeps_its_place_in_a_topic_that_was_deleted_but_not_an_older_one_where_it_reads_on(
    world: World,
) -> None:
    commit(world, "reader", {(ALERTS, 0): 4, (ALERTS, 1): 5, (QUIET, 0): 1})
    take_snapshot(archive_of(world))
    old_id = content(world, "topic", QUIET)["topic_id"]
    world.cluster.recreate_topic(QUIET)
    forget(world, "reader", QUIET)
    forget(world, "reader", ALERTS)
    commit(world, "reader", {(ALERTS, 0): 8})
    take_snapshot(archive_of(world))
    found = content(world, "group", "reader")
    assert found["offsets"] == [[ALERTS, 0, 8], [QUIET, 0, 1]]
    assert found["topic_ids"][QUIET] == old_id  # of which life the place is


def test_a_topic_made_anew_keeps_what_its_life_before_was_like_and_no_more_than_that(world: World) -> None:
    take_snapshot(archive_of(world))
    first = content(world, "topic", ALERTS)
    for partitions in (1, 3):
        world.cluster.delete_topic(ALERTS)
        world.cluster.create_topic(ALERTS, partitions)
        take_snapshot(archive_of(world))
        take_snapshot(archive_of(world))  # the same life again
        found = content(world, "topic", ALERTS)
        assert (found["partitions"], found["settings"]) == (partitions, {})
        former = found["former"]
        assert {key: former[key] for key in first} == first
        assert former["taken_at"].startswith("2026-11-24T")
        assert "former" not in former
        first = {key: value for key, value in found.items() if key != "former"}


class Guarded(MockSource):
    """A cluster whose credentials may look at little."""

    hidden: Collection[str] = ()
    tells_rights = True
    hides_groups = False

    def access(self, topics: Collection[str]) -> Mapping[str, frozenset[str] | None]:
        may = {
            name: frozenset({"read", "describe"} | ({"describe_configs"} - set(self._not(name))))
            for name in topics
        }
        return {name: rights if self.tells_rights else None for name, rights in may.items()}

    def settings(self, topics: Collection[str]) -> Mapping[str, Mapping[str, Setting]]:
        if set(topics) & set(self.hidden):
            raise ForbiddenError("no DESCRIBE_CONFIGS")
        return super().settings(topics)

    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        if self.hides_groups:
            raise ForbiddenError("no DESCRIBE on groups")
        return super().groups(names)

    def _not(self, name: str) -> list[str]:
        return ["describe_configs"] if name in self.hidden else []


def test_settings_that_may_not_be_looked_at_are_said_and_partitions_are_known_all_the_same(
    world: World,
) -> None:
    source = Guarded(cluster=world.cluster)
    source.hidden = [ALERTS]
    taken = take_snapshot(archive_of(world, source))
    assert taken.hidden == (ALERTS,)
    found = content(world, "topic", ALERTS)
    assert (found["partitions"], found["settings"], found["settings_known"]) == (2, {}, False)
    assert content(world, "topic", QUIET)["settings_known"]


@pytest.mark.parametrize("tells_rights", [True, False])
def test_settings_that_may_no_longer_be_looked_at_stay_as_last_known(
    world: World, tells_rights: bool
) -> None:
    take_snapshot(archive_of(world))
    source = Guarded(cluster=world.cluster)
    source.hidden, source.tells_rights = [ALERTS, QUIET], tells_rights
    assert take_snapshot(archive_of(world, source)).hidden == (ALERTS, QUIET)
    found = content(world, "topic", ALERTS)
    assert (found["settings"], found["settings_known"]) == ({"retention.ms": "1000"}, True)


def test_groups_that_may_not_be_looked_at_are_said_and_keep_their_last(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4})
    take_snapshot(archive_of(world))
    source = Guarded(cluster=world.cluster)
    source.hides_groups = True
    taken = take_snapshot(archive_of(world, source))
    assert (taken.topics, taken.groups) == (2, 0)
    assert "no DESCRIBE on groups" in taken.no_groups
    assert content(world, "group", "reader")["offsets"] == [[ALERTS, 0, 4]]


def test_a_topic_that_may_not_be_described_any_more_is_said_and_keeps_its_last(world: World) -> None:
    take_snapshot(archive_of(world))
    world.catalog.begin_generation(ALERTS, 1, "cluster", "id", "first seen")
    before = content(world, "topic", ALERTS)
    for topic in (ALERTS, "heartbeat"):
        world.cluster.deny(topic, "describe")
    taken = take_snapshot(archive_of(world))
    assert (taken.topics, list(taken.untold)) == (1, [ALERTS])
    assert "do not allow to describe" in taken.untold[ALERTS]
    assert content(world, "topic", ALERTS) == before
    world.cluster.allow(ALERTS)
    assert take_snapshot(archive_of(world)).untold == {}


def test_a_topic_that_was_named_and_may_not_be_described_is_said(world: World) -> None:
    world.cluster.deny("heartbeat", "describe")
    assert list(take_snapshot(archive_of(world), ["heartbeat"]).untold) == ["heartbeat"]


class Failing(MockSource):
    """A cluster that does not tell of a topic: from the first, or once it was asked for its groups."""

    fails = True

    def topics(self, names: Collection[str] | None = None) -> Answers[str, TopicInfo]:
        found = super().topics(names)
        if not self.fails or ALERTS not in found:
            return found
        why = UnavailableError("the broker of alerts does not answer")
        return Answers({name: info for name, info in found.items() if name != ALERTS}, {ALERTS: why})

    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        self.fails = True
        return super().groups(names)


@pytest.mark.parametrize("late", [False, True])
def test_a_topic_that_is_not_told_is_said_and_its_groups_keep_their_place_in_it(
    world: World, *, late: bool
) -> None:
    commit(world, "reader", {(ALERTS, 0): 4, (QUIET, 0): 1})
    take_snapshot(archive_of(world))
    commit(world, "reader", {(QUIET, 0): 2})
    source = Failing(cluster=world.cluster)
    source.fails = not late
    taken = take_snapshot(archive_of(world, source))
    assert (taken.topics, taken.untold) == (1, {ALERTS: "the broker of alerts does not answer"})
    assert content(world, "group", "reader")["offsets"] == [[ALERTS, 0, 4], [QUIET, 0, 2]]


class Changing(MockSource):
    """A cluster on which a topic is made anew while it is looked at."""

    def groups(
        self, names: Collection[str] | None = None
    ) -> Mapping[str, Mapping[TopicPartition, Committed]]:
        found = super().groups(names)
        self.cluster.recreate_topic(ALERTS)
        return found


def test_a_topic_that_is_made_anew_meanwhile_is_left_for_the_next_time(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4, (QUIET, 0): 1})
    taken = take_snapshot(archive_of(world, Changing(cluster=world.cluster)))
    assert (taken.topics, list(taken.untold)) == (1, [ALERTS])
    assert "made anew" in taken.untold[ALERTS]
    assert names(world, "topic") == [QUIET]
    assert content(world, "group", "reader")["offsets"] == [[QUIET, 0, 1]]
    take_snapshot(archive_of(world))
    assert names(world, "topic") == [ALERTS, QUIET]


def test_a_cluster_that_does_not_answer_changes_nothing(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4})
    take_snapshot(archive_of(world))
    before = world.catalog.snapshots("topic")
    world.cluster.stop()
    with pytest.raises(UnavailableError):
        take_snapshot(archive_of(world))
    assert world.catalog.snapshots("topic") == before


def test_more_groups_than_are_taken_at_once_are_all_taken(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotting, "GROUPS_AT_ONCE", 3)
    for number in range(7):
        commit(world, f"group-{number}", {(ALERTS, 0): number})
    assert take_snapshot(archive_of(world)).groups == 7
    assert len(names(world, "group")) == 7


def taken_at(world: World) -> set[datetime.datetime]:
    return {one.taken_at for one in world.catalog.snapshots("topic")}


def test_who_archives_takes_one_when_the_last_is_an_hour_old_whoever_took_that(world: World) -> None:
    first = archive_of(world)
    with HourlySnapshots(first):
        pass
    (at,) = taken_at(world)
    for minutes, again in ((59, False), (61, True)):
        later = at + datetime.timedelta(minutes=minutes)
        with HourlySnapshots(replace(first, now=lambda moment=later: moment)):  # type: ignore[misc]  # bound now
            pass
        assert (taken_at(world) == {later}) is again


def test_one_who_goes_on_takes_the_next_after_an_hour_and_not_before(world: World) -> None:
    clock = itertools.count()  # minutes since it began
    asked: list[int] = []
    start = datetime.datetime(2026, 11, 24, tzinfo=datetime.UTC)

    def minute() -> int:
        return asked[-1] if asked else 0

    archive = replace(
        world.archive(),
        now=lambda: start + datetime.timedelta(minutes=minute()),
        monotonic=lambda: minute() * 60.0,
    )
    taken: list[datetime.datetime] = []
    with HourlySnapshots(archive) as snapshots:
        for _ in range(150):
            asked.append(next(clock))
            snapshots.take_if_due()
            snapshots.wait()
            taken += taken_at(world) - set(taken)
    assert taken == [start + datetime.timedelta(minutes=n) for n in (0, 60, 120)]


def test_one_that_fails_is_told_and_ends_nothing_and_is_tried_again(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    seconds = [0.0]
    world.cluster.stop()
    with HourlySnapshots(replace(world.archive(), monotonic=lambda: seconds[0])) as snapshots:
        snapshots.wait()
        assert "No snapshot of the source's topics and consumer groups was taken" in caplog.text
        world.cluster.start()
        snapshots.take_if_due()
        snapshots.wait()
        assert taken_at(world) == set()
        seconds[0] = 301.0
        snapshots.take_if_due()
    assert names(world, "topic") == ["alerts", "heartbeat", "quiet"]


class Odd:
    """A part of an archive, one of whose calls does something else first."""

    def __init__(self, part: Any, method: str, act: Callable[[], object]) -> None:
        self._part, self._method, self._act = part, method, act
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._part, name)
        if not callable(found):
            return found

        def call(*args: Any, **options: Any) -> Any:
            self.asked.append(name)
            if name == self._method:
                self._act()
            return found(*args, **options)

        return call


class ForeignPanic(BaseException):  # a library in Rust calls it so
    pass


@pytest.mark.parametrize("error", [KeyError("offset"), ForeignPanic("poisoned lock")])
def test_one_that_fails_of_what_nobody_thought_of_is_told_with_its_trace_and_ends_nothing(
    world: World, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    def fail() -> None:
        raise error

    archive = archive_of(world)
    with HourlySnapshots(replace(archive, source=Odd(archive.source, "settings", fail))):
        pass
    (told,) = [r for r in caplog.records if "No snapshot of the source's topics" in r.message]
    assert "This is a bug" in told.message
    assert told.exc_info
    assert told.exc_info[1] is error


def test_at_the_end_one_that_hangs_is_given_up_and_asks_nothing_more_when_its_call_ends(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshotting, "_END_S", 0.1)
    monkeypatch.setattr(snapshotting, "_CALL_S", 0.1)
    begun, ended = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        ended.wait()

    archive = archive_of(world)
    source = Odd(archive.source, "settings", hang)
    with HourlySnapshots(replace(archive, source=source)):
        assert begun.wait(60)
    (thread,) = [t for t in threading.enumerate() if t.name == "hourly-snapshot"]
    assert "is given up at the end of the run" in caplog.text
    ended.set()
    thread.join(60)
    assert not thread.is_alive()
    assert source.asked[-1] == "settings"
    assert not taken_at(world)
    assert "No snapshot" not in caplog.text


def test_topics_that_are_named_are_taken_whether_the_policy_wants_them_or_not(world: World) -> None:
    with HourlySnapshots(archive_of(world), ["heartbeat"]):
        pass
    assert names(world, "topic") == [ALERTS, "heartbeat", QUIET]


def test_a_snapshot_of_before_metadata_were_kept_is_read_and_says_that_it_has_none(world: World) -> None:
    commit(world, "reader", {(ALERTS, 0): 4})
    take_snapshot(archive_of(world))
    (one,) = world.catalog.snapshots("group")
    old = {key: value for key, value in one.content.items() if key != "metadata"}
    at = one.taken_at + datetime.timedelta(minutes=1)
    world.catalog.keep_snapshots(one.cluster_id, [replace(one, content=old, taken_at=at)])
    assert world.catalog.snapshots("group")[0].commits == {TopicPartition(ALERTS, 0): Committed(4)}
    take_snapshot(archive_of(world))
    assert content(world, "group", "reader")["metadata"] == []
