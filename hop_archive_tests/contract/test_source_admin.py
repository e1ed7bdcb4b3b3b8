"""The contract of a source where it tells and changes what a cluster keeps beside messages: settings, groups, records."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from hop_archive.errors import (
    ConfigurationError,
    ConflictError,
    ForbiddenError,
    MissingSettingError,
    UnavailableError,
    UnsupportedError,
)
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Setting, Source
from hop_archive_tests.contract.source_fixtures import (
    Broker,
    MockBroker,
    Sent,
    TansuBroker,
    needs,
    new_name,
    read_partition,
    until,
)

pytest_plugins = ("hop_archive_tests.contract.source_plugin",)

WEEK_MS = 7 * 24 * 60 * 60 * 1000


def own(source: Source, topic: str) -> dict[str, str]:
    return {name: s.value for name, s in source.settings([topic])[topic].items() if s.own}


def low(source: Source, at: TopicPartition) -> int:
    return source.watermarks([at])[at].low


def new_group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


# Settings


def test_a_topics_own_settings_are_told_from_defaults_and_missing_topics_are_left_out(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic(config={"max.message.bytes": "123456"})
    found = source.settings([topic, f"{topic}.missing", ""])
    assert found.keys() == {topic}
    assert found[topic]["max.message.bytes"] == Setting("123456", own=True)
    assert "cleanup.policy" not in own(source, topic)
    if not isinstance(broker, TansuBroker):  # it tells no defaults
        assert found[topic]["cleanup.policy"] == Setting("delete", own=False)
    assert source.settings([]) == {}


def test_a_changed_setting_is_told_and_a_removed_one_is_no_longer_the_topics_own(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic(config={"max.message.bytes": "123456"})
    before = own(source, topic)
    source.change_settings(
        topic, {"retention.ms": "1000000", "max.message.bytes": None, "segment.bytes": None}
    )
    changed = {**before, "retention.ms": "1000000"}
    del changed["max.message.bytes"]
    assert own(source, topic) == changed
    source.change_settings(topic, {})
    assert own(source, topic) == changed


@pytest.mark.parametrize(
    ("name", "value"), [("retention.ms", "long"), ("retntion.ms", "1"), ("cleanup.policy", "x")]
)
def test_a_setting_that_is_refused_changes_none(
    broker: Broker, source: Source, name: str, value: str
) -> None:
    needs(broker, "checking settings")
    topic = broker.create_topic()
    before = source.settings([topic])
    with pytest.raises(ConfigurationError, match=name) as caught:
        source.change_settings(topic, {"max.message.bytes": "1000", name: value})
    assert type(caught.value) is ConfigurationError
    assert source.settings([topic]) == before


def test_settings_of_a_topic_that_is_not_there_are_missing(broker: Broker, source: Source) -> None:
    name = new_name()
    with pytest.raises(MissingSettingError, match=name):
        source.change_settings(name, {"retention.ms": "1"})
    assert source.settings([name]) == {}


def test_a_topic_with_retention_takes_old_messages_or_refuses_them_by_its_settings(
    broker: Broker, source: Source
) -> None:
    needs(broker, "checking settings")
    topic = broker.create_topic()
    old = Sent(topic, timestamp_ms=1)
    assert is_taken(source, old)
    source.change_settings(topic, {"message.timestamp.before.max.ms": str(WEEK_MS)})
    until(lambda: not is_taken(source, old), "old messages are refused")
    source.publish([Sent(topic)])
    source.change_settings(topic, {"message.timestamp.before.max.ms": None})
    until(lambda: is_taken(source, old), "old messages are taken again")


def is_taken(source: Source, message: Sent) -> bool:
    try:
        return bool(source.publish([message]))
    except ConfigurationError:
        return False


# Deleting records


def test_records_below_an_offset_are_deleted_and_the_others_stay(broker: Broker, source: Source) -> None:
    needs(broker, "delete records")
    topic = broker.create_topic(2)
    source.publish([Sent(topic, str(n).encode()) for n in range(5)] + [Sent(topic, partition=1)])
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    assert source.delete_records({one: 3, other: 1}) == {one: 3, other: 1}
    assert [m.value for m in read_partition(source, topic, 5, start=3)] == [b"3", b"4"]
    assert source.delete_records({one: 3}) == {one: 3}
    assert source.delete_records({one: 1, other: 0}) == {one: 3, other: 1}
    assert source.delete_records({}) == {}


def test_a_broker_that_deletes_no_records_is_not_believed_to_have_done_so(
    broker: Broker, source: Source
) -> None:
    if not isinstance(broker, TansuBroker):
        pytest.skip(f"{broker.name} deletes records")
    topic = broker.create_topic()
    source.publish([Sent(topic)] * 3)
    at = TopicPartition(topic, 0)
    with pytest.raises(UnsupportedError, match="still holds them from 0 on"):
        source.delete_records({at: 2})
    assert source.delete_records({at: 0}) == {at: 0}
    assert len(read_partition(source, topic, 3)) == 3


@pytest.mark.parametrize("offset", [4, -1])
def test_an_offset_that_is_not_there_deletes_nothing(broker: Broker, source: Source, offset: int) -> None:
    topic = broker.create_topic(2)
    source.publish([Sent(topic)] * 3 + [Sent(topic, partition=1)])
    one, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    with pytest.raises(ConfigurationError, match=str(offset)):
        source.delete_records({one: offset, other: 1})
    assert (low(source, one), low(source, other)) == (0, 0)


def test_records_of_a_partition_that_is_not_there_are_missing_and_nothing_is_deleted(
    broker: Broker, source: Source
) -> None:
    topic = broker.create_topic()
    source.publish([Sent(topic)])
    at = TopicPartition(topic, 0)
    for absent in (TopicPartition(topic, 7), TopicPartition(new_name(), 0)):
        with pytest.raises(MissingSettingError, match=absent.topic):
            source.delete_records({at: 1, absent: 0})
    assert low(source, at) == 0


# Groups


def test_offsets_set_for_a_group_are_read_back_and_others_of_it_stay(broker: Broker, source: Source) -> None:
    topic, group = broker.create_topic(3), new_group()
    source.publish([Sent(topic)] * 5)
    zero, one, two = (TopicPartition(topic, number) for number in range(3))
    assert group not in source.groups()
    source.set_group_offsets(group, {zero: Committed(4), one: Committed(0)})
    assert source.groups()[group] == {zero: Committed(4), one: Committed(0)}
    source.set_group_offsets(group, {zero: Committed(2), two: Committed(9)})
    source.set_group_offsets(group, {})
    assert source.groups()[group] == {zero: Committed(2), one: Committed(0), two: Committed(9)}


def test_what_a_group_writes_beside_its_offsets_is_read_back_until_it_commits_without(
    broker: Broker, source: Source
) -> None:
    needs(broker, "metadata of commits")
    topic, group = broker.create_topic(2), new_group()
    zero, one = (TopicPartition(topic, number) for number in range(2))
    source.set_group_offsets(group, {zero: Committed(4, "AZ… 7"), one: Committed(2, "x" * 4_000)})
    assert source.groups()[group] == {zero: Committed(4, "AZ… 7"), one: Committed(2, "x" * 4_000)}
    source.set_group_offsets(group, {zero: Committed(5)})
    assert source.groups()[group] == {zero: Committed(5), one: Committed(2, "x" * 4_000)}


def test_all_groups_are_told(broker: Broker, source: Source) -> None:
    topic = broker.create_topic()
    at, names = TopicPartition(topic, 0), [new_group() for _ in range(5)]
    for number, name in enumerate(names):
        source.set_group_offsets(name, {at: Committed(number)})
    found = source.groups()
    assert [found[name] for name in names] == [{at: Committed(number)} for number in range(5)]


def test_groups_that_are_named_are_told_and_no_other(broker: Broker, source: Source) -> None:
    at, (one, other, none) = TopicPartition(broker.create_topic(), 0), (new_group() for _ in range(3))
    for number, name in enumerate((one, other)):
        source.set_group_offsets(name, {at: Committed(number)})
    found = source.groups([other, none])
    assert {name: offsets for name, offsets in found.items() if offsets} == {other: {at: Committed(1)}}
    assert source.groups([]) == {}


def test_a_group_with_members_keeps_its_offsets_until_they_are_gone(broker: Broker, source: Source) -> None:
    needs(broker, "members of groups")
    topic, group = broker.create_topic(), new_group()
    at = TopicPartition(topic, 0)
    source.set_group_offsets(group, {at: Committed(3)})
    with broker.member(group, topic):
        with pytest.raises(ConflictError, match="group"):
            source.set_group_offsets(group, {at: Committed(1)})
        assert source.groups()[group] == {at: Committed(3)}
    source.set_group_offsets(group, {at: Committed(1)})
    assert source.groups()[group] == {at: Committed(1)}


def test_offsets_of_a_partition_that_is_not_there_are_missing_and_none_is_set(
    broker: Broker, source: Source
) -> None:
    topic, group = broker.create_topic(), new_group()
    at = TopicPartition(topic, 0)
    for absent in (TopicPartition(topic, 9), TopicPartition(new_name(), 0)):
        with pytest.raises(MissingSettingError, match=absent.topic):
            source.set_group_offsets(group, {at: Committed(1), absent: Committed(1)})
    with pytest.raises(ConfigurationError, match="-1"):
        source.set_group_offsets(group, {at: Committed(-1)})
    assert group not in source.groups()


# Refusals

AT = TopicPartition("topic", 0)
CHANGES: dict[str, Callable[[Source], object]] = {
    "change_settings": lambda source: source.change_settings("topic", {"retention.ms": "1"}),
    "delete_records": lambda source: source.delete_records({AT: 1}),
    "set_group_offsets": lambda source: source.set_group_offsets("group", {AT: Committed(1)}),
}
LOOKS: dict[str, Callable[[Source], object]] = {
    "settings": lambda source: source.settings(["topic"]),
    "groups": lambda source: source.groups(),
}


@pytest.mark.parametrize("call", CHANGES)
def test_an_unwritable_source_refuses_to_change_anything_before_it_connects(call: str) -> None:
    stopped = MockCluster()
    stopped.stop()
    for source in (
        KafkaSource("nowhere", bootstrap_servers="127.0.0.1:9"),
        MockSource(cluster=stopped, writable=False),
    ):
        with pytest.raises(ForbiddenError, match="not writable"):
            CHANGES[call](source)


@pytest.mark.parametrize("call", CHANGES | LOOKS)
def test_a_cluster_that_does_not_answer_is_unavailable_to_each_call(call: str) -> None:
    stopped = MockCluster()
    stopped.stop()
    nowhere = KafkaSource("nowhere", bootstrap_servers="127.0.0.1:9", writable=True, timeout_s=0.3)
    for source in (nowhere, MockSource(cluster=stopped)):
        with pytest.raises(UnavailableError):
            (CHANGES | LOOKS)[call](source)
    nowhere.close()


# The mock


def test_retention_of_the_mock_drops_the_old_beginning_of_each_partition() -> None:
    now = 10_000_000
    cluster = MockCluster(clock=lambda: now)
    cluster.create_topic("brief", 2, {"retention.ms": "1000"})
    cluster.create_topic("lasting")
    cluster.create_topic("compacted", 1, {"retention.ms": "1000", "cleanup.policy": "compact"})
    for time_ms in (1, now - 1001, now - 1000, 5):
        cluster.append("brief", b"", timestamp_ms=time_ms)
    for topic, number in (("brief", 1), ("lasting", 0), ("compacted", 0)):
        cluster.append(topic, b"", timestamp_ms=1, partition=number)
    cluster.apply_retention()
    places = [("brief", 0), ("brief", 1), ("lasting", 0), ("compacted", 0)]
    marks = MockSource(cluster=cluster).watermarks([TopicPartition(*place) for place in places])
    assert [(m.low, m.high) for m in marks.values()] == [(2, 4), (1, 1), (0, 1), (0, 1)]


def test_the_mock_keeps_what_has_no_time_and_what_an_open_transaction_holds() -> None:
    cluster = MockCluster(clock=lambda: 10_000_000)
    cluster.create_topic("brief", 2, {"retention.ms": "1000"})
    cluster.append("brief", b"", timestamp_ms=-1)
    cluster.append("brief", b"", timestamp_ms=1, partition=1)
    cluster.append("brief", b"", timestamp_ms=1, partition=1, transaction=cluster.begin())
    cluster.apply_retention()
    source = MockSource(cluster=cluster)
    assert low(source, TopicPartition("brief", 0)) == 0
    assert low(source, TopicPartition("brief", 1)) == 1


def test_the_mock_refuses_times_as_far_from_its_own_as_settings_say() -> None:
    cluster = MockCluster(clock=lambda: 10_000_000)
    limits = {"message.timestamp.before.max.ms": "1000", "message.timestamp.after.max.ms": "10"}
    cluster.create_topic("topic", 1, limits)
    cluster.create_topic("stamped", 1, {**limits, "message.timestamp.type": "LogAppendTime"})
    source = MockSource(cluster=cluster)
    for time_ms in (9_998_999, 10_000_011):
        with pytest.raises(ConfigurationError, match="further from the present"):
            source.publish([Sent("topic", timestamp_ms=time_ms)])
    source.publish([Sent("topic", timestamp_ms=t) for t in (9_999_000, 10_000_010, -1, None)])
    source.publish([Sent("stamped", timestamp_ms=1)])


def test_a_group_of_the_mock_in_a_directory_is_there_for_the_next_process(tmp_path: Path) -> None:
    at = TopicPartition(MockBroker(tmp_path).create_topic(), 0)
    MockBroker(tmp_path).source().set_group_offsets("group", {at: Committed(7)})
    assert MockBroker(tmp_path).source().groups() == {"group": {at: Committed(7)}}
