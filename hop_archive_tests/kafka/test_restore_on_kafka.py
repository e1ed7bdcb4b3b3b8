"""Restoring on Apache Kafka itself: settings, groups, old timestamps, append times, and a broker that dies on the way."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from hop_archive.archive import Archive
from hop_archive.devkit.samples import Sample
from hop_archive.errors import ConfigurationError
from hop_archive.ingest.cluster_state import take_snapshot
from hop_archive.ingest.follow import catch_up
from hop_archive.model.message import Committed, Message, TopicPartition
from hop_archive.model.query import Query
from hop_archive.model.topics import TopicPolicy
from hop_archive.recover.restore.control import Control
from hop_archive.recover.restore.prepare import Restoration, prepare
from hop_archive.recover.restore.request import Request
from hop_archive.recover.restore.run import RestoreResult, restore
from hop_archive.source.kafka.source import KafkaSource
from hop_archive_tests.cli_helpers import wait_for
from hop_archive_tests.conftest import OpenArchive
from hop_archive_tests.contract.source_fixtures import read_partition
from hop_archive_tests.faults.real import documents, plain, publish
from hop_archive_tests.kafka.broker import ApacheKafka
from hop_archive_tests.kafka.test_broker import Cluster
from hop_archive_tests.restores import Content, content
from hop_archive_tests.worlds import exhausted

pytestmark = [pytest.mark.kafka, pytest.mark.local]

DAY_MS = 86_400_000


@pytest.fixture
def archive(open_archive: OpenArchive, broker: ApacheKafka) -> Iterator[Archive]:
    source = KafkaSource("apache", bootstrap_servers=broker.bootstrap_servers, writable=True)
    with closing(source):
        yield replace(open_archive("segment"), source=source)


def run(archive: Archive, request: Request, folder: Path, **more: object) -> RestoreResult:
    own = Restoration(archive.catalog, archive.store, archive.source, request)
    return restore(own, Control(), folder, **more)  # type: ignore[arg-type]  # as given


def old_alerts(topic: str, count: int, days: int, partitions: int = 1) -> list[Sample]:
    then_ms = int(time.time() * 1000) - days * DAY_MS
    return [
        replace(alert, timestamp_ms=then_ms + n)
        for n, alert in enumerate(plain(topic, count, partitions=partitions))
    ]


def archived(archive: Archive, topic: str) -> list[Content]:
    return [content(message) for _, message in documents(archive, topic)]


def standing(archive: Archive, topic: str, partition: int = 0) -> list[Message]:
    at = TopicPartition(topic, partition)
    marks = archive.source.watermarks([at])[at]
    found: list[Message] = read_partition(archive.source, topic, marks.stable, marks.low)
    return found


def test_transactions_and_holes_come_back_as_the_messages_that_they_left(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(broker.bootstrap_servers)
    topic = cluster.new_topic(namespace)
    producer = cluster.producer(**{"transactional.id": namespace})
    producer.init_transactions()
    for number in range(6):
        producer.begin_transaction()
        for part in range(5):
            producer.produce(topic, b"%d.%d" % (number, part), headers=[("a", None), ("a", b"")])
        if number % 2:
            producer.abort_transaction()
        else:
            producer.commit_transaction()
    exhausted(catch_up(archive))
    request = Request(query=Query(topics=(topic,)), template="{topic}.again")
    outcome = run(archive, request, tmp_path)
    assert (outcome.report["messages"], outcome.differences) == (15, 0)
    found = standing(archive, f"{topic}.again")
    assert [content(message) for message in found] == archived(archive, topic)
    assert [message.offset for message in found] == list(range(15))


def test_what_the_target_would_refuse_or_delete_is_told_and_mended_for_the_time_of_the_restore(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(broker.bootstrap_servers)
    topic = cluster.new_topic(namespace, retention_ms=-1, max_message_bytes=4_000_000)
    alerts = [*old_alerts(topic, 20, 300), Sample(topic, b"k", b"x" * 2_000_000, (), None, 0, "large")]
    publish(archive.source, alerts)
    exhausted(catch_up(archive))
    target = cluster.new_topic(
        f"{namespace}.again",
        retention_ms=DAY_MS,
        message_timestamp_before_max_ms=DAY_MS,
        max_message_bytes=900_000,
    )
    request = Request(query=Query(topics=(topic,)), template="{topic}.again")
    with pytest.raises(ConfigurationError) as caught:
        run(archive, request, tmp_path / "a")
    for name in ("retention.ms", "message.timestamp.before.max.ms", "max.message.bytes"):
        assert name in str(caught.value)
    before = archive.source.settings([target])[target]
    asked = replace(request, set_topic_config=True)
    outcome = run(archive, asked, tmp_path / "b")
    assert (outcome.report["messages"], outcome.differences) == (21, 0)
    assert archive.source.settings([target])[target] == before


def test_append_times_of_a_target_are_told_and_everything_else_is_kept(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(broker.bootstrap_servers)
    topic = cluster.new_topic(namespace, retention_ms=-1)
    publish(archive.source, old_alerts(topic, 10, 30))
    exhausted(catch_up(archive))
    target = cluster.new_topic(f"{namespace}.again", message_timestamp_type="LogAppendTime")
    request = Request(query=Query(topics=(topic,)), template="{topic}.again")
    own = Restoration(archive.catalog, archive.store, archive.source, request)
    assert any("append times" in note for note in prepare(own).notes)
    outcome = run(archive, request, tmp_path)
    assert outcome.report["topics"][target]["append_times"] == 10
    found = [content(m)[:3] for m in standing(archive, target)]
    assert found == [one[:3] for one in archived(archive, topic)]


def test_groups_go_on_in_the_restored_topic_where_they_were(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    topic = namespace
    archive.source.create_topic(topic, 2, {"max.message.bytes": "2000000"})
    publish(archive.source, plain(topic, 40, partitions=2))
    exhausted(catch_up(archive))
    at = {TopicPartition(topic, 0): Committed(7, "seven"), TopicPartition(topic, 1): Committed(20)}
    archive.source.set_group_offsets(f"{namespace}.readers", at)
    take_snapshot(archive)
    archive.source.delete_records({TopicPartition(topic, 0): 5})
    request = Request(query=Query(topics=(topic,)), template="{topic}.again")
    outcome = run(archive, request, tmp_path, move_groups=(f"{namespace}.readers",))
    again = f"{topic}.again"
    wanted = {TopicPartition(again, 0): Committed(7, "seven"), TopicPartition(again, 1): Committed(20)}
    found = archive.source.groups()[f"{namespace}.readers"]
    assert {place: offset for place, offset in found.items() if place.topic == again} == wanted
    assert outcome.report["topics"][again]["groups"][0]["group"] == f"{namespace}.readers"
    assert archive.source.settings([again])[again]["max.message.bytes"] == ("2000000", True)


def test_a_whole_cluster_comes_back_with_empty_topics_and_partitions_and_groups_in_them(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(broker.bootstrap_servers)
    empty, aborted, wide = (f"{namespace}.{name}" for name in ("empty", "aborted", "wide"))
    archive.source.create_topic(empty, 3, {"retention.ms": "86400001", "cleanup.policy": "compact"})
    archive.source.create_topic(aborted, 2)
    archive.source.create_topic(wide, 6)
    producer = cluster.producer(**{"transactional.id": namespace})
    producer.init_transactions()
    producer.begin_transaction()
    producer.produce(aborted, b"never", partition=1)
    producer.abort_transaction()
    publish(archive.source, plain(wide, 4))
    streams = "AgAAAZrF0Kh4"  # what Kafka Streams keeps there: its time, in base64
    places = {
        TopicPartition(empty, 2): Committed(0, streams),
        TopicPartition(aborted, 1): Committed(2),
        TopicPartition(wide, 0): Committed(3, streams),
        TopicPartition(wide, 5): Committed(0),
    }
    archive.source.set_group_offsets(f"{namespace}.readers", places)
    mine = replace(archive, topics=TopicPolicy(topics=(f"{namespace}.*",)))
    exhausted(catch_up(mine))
    names = {one: f"{one}.again" for one in (empty, aborted, wide)}
    request = Request(template="{topic}.again")
    before = prepare(Restoration(archive.catalog, archive.store, archive.source, request))
    assert {one.source: one.partitions for one in before.plan.targets} == {empty: 3, aborted: 2, wide: 6}
    assert "No snapshot tells the settings" in before.unrestored[0]
    take_snapshot(mine)
    outcome = run(archive, request, tmp_path, move_groups=(f"{namespace}.readers",))
    assert (outcome.report["messages"], outcome.differences, outcome.unrestored) == (4, 0, [])
    found = archive.source.topics(names.values())
    assert {name: info.partitions for name, info in found.items()} == {
        names[empty]: 3,
        names[aborted]: 2,
        names[wide]: 6,
    }
    assert archive.source.settings([names[empty]])[names[empty]]["retention.ms"] == ("86400001", True)
    committed = archive.source.groups()[f"{namespace}.readers"]
    assert {at: one for at, one in committed.items() if at.topic in found} == {
        TopicPartition(names[empty], 2): Committed(0, streams),
        TopicPartition(names[aborted], 1): Committed(0),
        TopicPartition(names[wide], 0): Committed(3, streams),
        TopicPartition(names[wide], 5): Committed(0),
    }


def test_a_broker_that_is_killed_on_the_way_and_comes_back_ends_with_everything_once_in_order(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    if not broker.owned:
        pytest.skip("HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not restart")
    topic = namespace
    archive.source.create_topic(topic, 2)
    publish(archive.source, plain(topic, 60_000, partitions=2))
    exhausted(catch_up(archive))
    asked = itertools.count()  # about once a message

    def kill_once() -> bool:
        if next(asked) == 25_000:
            broker.kill()
        return False

    def bring_it_back(seconds: float) -> None:
        if broker.pid is None:
            broker.restart()
        time.sleep(min(seconds, 1.0))

    own = Restoration(
        archive.catalog,
        archive.store,
        archive.source,
        Request(query=Query(topics=(topic,)), template="{topic}.again"),
    )
    control = Control(stop=kill_once, sleep=bring_it_back, patience_s=240)
    outcome = restore(own, control, tmp_path)
    assert (outcome.complete, outcome.differences) == (True, 0)
    assert outcome.report["messages"] == 60_000 == outcome.report["topics"][f"{topic}.again"]["compared"]


def test_a_restore_that_kafka_refuses_in_the_middle_leaves_no_gap_and_goes_on_once_it_is_allowed(
    archive: Archive, broker: ApacheKafka, namespace: str, tmp_path: Path
) -> None:
    cluster = Cluster(broker.bootstrap_servers)
    topic = cluster.new_topic(namespace, retention_ms=-1)
    alerts = [replace(alert, timestamp_ms=None) for alert in plain(topic, 250, size_bytes=100_000)]
    alerts[100] = replace(alerts[100], timestamp_ms=int(time.time() * 1000) - 30 * DAY_MS)
    publish(archive.source, alerts)
    exhausted(catch_up(archive))
    again, other = (cluster.new_topic(f"{namespace}.{name}", retention_ms=-1) for name in ("again", "other"))
    asked = itertools.count()

    def forbid_once() -> bool:
        if next(asked) == 2:  # of two messages of one portion
            for name in (
                again,
                other,
            ):  # a broker takes changes in their order: what holds of the other does of this one
                archive.source.change_settings(name, {"message.timestamp.before.max.ms": str(DAY_MS)})
            wait_for(lambda: cluster.publish_one(other, b"", timestamp=1), "old messages are refused")
        return False

    request = Request(query=Query(topics=(topic,)), template="{topic}.again")
    own = Restoration(archive.catalog, archive.store, archive.source, request)
    with pytest.raises(ConfigurationError, match="TIMESTAMP"):
        restore(own, Control(stop=forbid_once), tmp_path)
    assert len(standing(archive, again)) <= 100
    archive.source.change_settings(again, {"message.timestamp.before.max.ms": None})
    outcome = run(archive, request, tmp_path)
    assert (outcome.report["messages"], outcome.differences) == (250, 0)
    assert [content(message) for message in standing(archive, again)] == archived(archive, topic)
