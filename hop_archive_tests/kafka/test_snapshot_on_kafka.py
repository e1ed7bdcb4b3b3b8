"""Snapshots of Apache Kafka itself, and what it refuses where the local broker takes all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from confluent_kafka.admin import AdminClient

from hop_archive.errors import ConfigurationError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.model.message import Committed, TopicPartition
from hop_archive.model.topics import TopicPolicy
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.contract.source_fixtures import Sent, until
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.worlds import World

pytestmark = [pytest.mark.kafka]


@pytest.fixture
def source(broker: ApacheKafka) -> Iterator[KafkaSource]:
    opened = KafkaSource("apache", bootstrap_servers=broker.bootstrap_servers, writable=True)
    yield opened
    opened.close()


def test_what_a_deleted_topic_was_like_and_where_its_readers_stood_is_still_known(
    broker: ApacheKafka, source: KafkaSource, namespace: str
) -> None:
    kept, deleted, group = f"{namespace}.kept", f"{namespace}.deleted", f"{namespace}-reader"
    for topic in (kept, deleted):
        source.create_topic(topic, 3, {"retention.ms": "-1", "max.message.bytes": "5000"})
    offsets = {TopicPartition(kept, 0): 7, TopicPartition(deleted, 2): 9}
    source.set_group_offsets(group, {at: Committed(offset) for at, offset in offsets.items()})
    world = World()
    archive = replace(world.archive(), source=source, topics=TopicPolicy((f"{namespace}.*",)))
    taken = take_snapshot(archive)
    assert (taken.topics, taken.groups, taken.hidden, taken.no_groups) == (2, 1, (), "")
    before = world.catalog.snapshots("topic", [deleted])
    client = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    client.delete_topics([deleted])[deleted].result(20)
    until(
        lambda: source.groups()[group].keys() == {TopicPartition(kept, 0)},
        "Kafka forgets the group's place in it",
    )
    take_snapshot(archive)
    assert world.catalog.snapshots("topic", [deleted]) == before
    assert before[0].content["settings"] == {"retention.ms": "-1", "max.message.bytes": "5000"}
    assert before[0].content["partitions"] == 3
    assert world.catalog.snapshots("group", [group])[0].offsets == offsets


def test_records_of_a_compacted_topic_cannot_be_deleted(source: KafkaSource, namespace: str) -> None:
    topic = f"{namespace}.compacted"
    source.create_topic(topic, 1, {"cleanup.policy": "compact"})
    source.publish([Sent(topic, key=b"a")] * 3)
    with pytest.raises(ConfigurationError, match="POLICY_VIOLATION"):
        source.delete_records({TopicPartition(topic, 0): 2})
    source.change_settings(topic, {"cleanup.policy": "compact,delete"})
    assert source.delete_records({TopicPartition(topic, 0): 2}) == {TopicPartition(topic, 0): 2}


def test_records_deleted_stay_deleted_and_what_groups_and_topics_were_told_stays_over_a_restart(
    broker: ApacheKafka, source: KafkaSource, namespace: str
) -> None:
    if not broker.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not restart")
    topic, group = f"{namespace}.lasting", f"{namespace}-group"
    at = TopicPartition(topic, 0)
    source.create_topic(topic)
    source.publish([Sent(topic)] * 5)
    source.change_settings(topic, {"retention.ms": "-1"})
    source.delete_records({at: 3})
    source.set_group_offsets(group, {at: Committed(4)})
    broker.restart()
    assert source.watermarks([at])[at].low == 3
    assert source.settings([topic])[topic]["retention.ms"] == ("-1", True)
    # A broker that has just started does not tell of groups before it has read their coordinator's log.
    until(lambda: group in source.groups(), "the group is told of")
    assert source.groups()[group] == {at: Committed(4)}
