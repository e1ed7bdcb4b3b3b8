"""The broker's own life, and the facts about Apache Kafka and its client that the Kafka reader is built on."""

from __future__ import annotations

import logging
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from confluent_kafka import (
    TIMESTAMP_LOG_APPEND_TIME,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._listoffsets import (
    OffsetSpec,
)  # where its types are; confluent_kafka.admin does not export it to mypy
from confluent_kafka.cimpl import NewTopic

from hop_archive.errors import ForbiddenError, MissingSettingError, UnavailableError
from hop_archive_tests.java import cached_name, find_java

from .broker import POM, ApacheKafka, KafkaInstallation, find_kafka, pinned_version
from .conftest import kafka_or_skip

DEADLINE_S = 120.0
KAFKA = f"kafka-{pinned_version()}"
FAR_FUTURE_MS = 2**53
EARLIEST: OffsetSpec = OffsetSpec.earliest()  # type: ignore[no-untyped-call]  # the client leaves it untyped
LATEST: OffsetSpec = OffsetSpec.latest()  # type: ignore[no-untyped-call]  # likewise
QUIET = logging.getLogger("hop_archive_tests.kafka")  # the client prints to stderr otherwise


class Offsets(NamedTuple):
    first: int
    stable: int
    high: int


class Reading(NamedTuple):
    """What a read-committed consumer saw up to the first error or end-of-partition event."""

    offsets: list[int]
    end: KafkaError
    end_offset: int
    position: int


class Cluster:
    """What the tests ask of a running broker, by name of topic; partition 0 always."""

    def __init__(self, bootstrap_servers: str) -> None:
        self.bootstrap_servers = bootstrap_servers
        self.admin = AdminClient(self._settings())

    def _settings(self, **more: Any) -> dict[str, Any]:
        return {"bootstrap.servers": self.bootstrap_servers, "logger": QUIET, **more}

    def producer(self, **settings: Any) -> Producer:
        return Producer(self._settings(**settings))

    def consumer(self, topic: str, offset: int = 0) -> Consumer:
        consumer = Consumer(
            self._settings(
                **{
                    "group.id": "unused",
                    "enable.auto.commit": False,
                    "enable.partition.eof": True,
                    "auto.offset.reset": "error",
                    "isolation.level": "read_committed",
                    "fetch.wait.max.ms": 50,  # the end-of-partition event waits for this long, 500 ms otherwise
                }
            )
        )
        consumer.assign([TopicPartition(topic, 0, offset)])
        return consumer

    def new_topic(self, name: str = "", **config: object) -> str:
        name = name or f"topic-{uuid.uuid4()}"
        settings = {key.replace("_", "."): str(value) for key, value in config.items()}
        until(lambda: self._created(name, settings), f"{name} can be created")
        until(lambda: self.topic_id(name), f"{name} has a topic id")
        return name

    def _created(self, name: str, settings: dict[str, str]) -> bool:
        try:
            self.admin.create_topics([NewTopic(name, 1, 1, config=settings)])[name].result(DEADLINE_S)
        except KafkaException as error:  # the deletion of its predecessor is under way
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
            return False
        return True

    def topic_id(self, topic: str) -> str:
        """The id, or '' while the broker knows no such topic; that lags a little behind `create_topics`."""
        try:
            description = self.admin.describe_topics(TopicCollection([topic]))[topic].result(DEADLINE_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            return ""
        return str(description.topic_id)

    def delete(self, topic: str) -> None:
        self.admin.delete_topics([topic])[topic].result(DEADLINE_S)

    def delete_records_before(self, topic: str, offset: int) -> None:
        place = TopicPartition(topic, 0, offset)
        self.admin.delete_records([place])[place].result(DEADLINE_S)

    def publish(self, topic: str, count: int, **settings: Any) -> None:
        producer = self.producer(**settings)
        for number in range(count):
            producer.produce(topic, value=f"value {number}", key=f"key {number}")
        assert producer.flush(DEADLINE_S) == 0

    def publish_one(self, topic: str, value: bytes | None, **record: Any) -> KafkaError | None:
        """Return why the broker refused the record, or None."""
        errors: list[KafkaError | None] = []
        producer = self.producer(**{"message.max.bytes": 30 * 2**20})
        producer.produce(
            topic, value=value, on_delivery=lambda error, _message: errors.append(error), **record
        )
        assert producer.flush(DEADLINE_S) == 0
        return errors[0]

    def open_transaction(self, topic: str, count: int) -> Producer:
        producer = self.producer(**{"transactional.id": str(uuid.uuid4())})
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for number in range(count):
            producer.produce(topic, value=f"value {number}", key="key")
        assert producer.flush(DEADLINE_S) == 0
        return producer

    def commit(self, topic: str, count: int) -> None:
        self.open_transaction(topic, count).commit_transaction(DEADLINE_S)

    def abort(self, topic: str, count: int) -> None:
        self.open_transaction(topic, count).abort_transaction(DEADLINE_S)

    def offsets(self, topic: str) -> Offsets:
        deadline = time.monotonic() + DEADLINE_S
        while True:
            self.admin.list_topics(timeout=DEADLINE_S)  # renews the leader epochs that list_offsets sends
            try:
                return Offsets(
                    self.list_offset(topic, EARLIEST, IsolationLevel.READ_COMMITTED),
                    self.list_offset(topic, LATEST, IsolationLevel.READ_COMMITTED),
                    self.list_offset(topic, LATEST, IsolationLevel.READ_UNCOMMITTED),
                )
            except KafkaException as error:
                # What metadata tell may be ahead of the log for a moment, once the broker has restarted.
                if error.args[0].code() != KafkaError.UNKNOWN_LEADER_EPOCH or time.monotonic() > deadline:
                    raise

    def list_offset(self, topic: str, spec: OffsetSpec, isolation: IsolationLevel) -> int:
        place = TopicPartition(topic, 0)
        listing = self.admin.list_offsets({place: spec}, isolation_level=isolation)
        return int(listing[place].result(DEADLINE_S).offset)

    def read(self, topic: str, offset: int = 0) -> Reading:
        consumer = self.consumer(topic, offset)
        try:
            return read_to_the_end(consumer)
        finally:
            consumer.close()

    def first(self, topic: str) -> Message:
        consumer = self.consumer(topic)
        try:
            message = consumer.poll(DEADLINE_S)
            while message is not None and (error := message.error()) is not None and error.retriable():
                message = consumer.poll(
                    DEADLINE_S
                )  # metadata of a new topic lag a little behind its creation
        finally:
            consumer.close()
        assert message is not None  # a message with no value is false
        assert not message.error()
        return message


def read_to_the_end(consumer: Consumer) -> Reading:
    offsets: list[int] = []
    while (message := consumer.poll(DEADLINE_S)) is not None:  # a message with no value is false
        if error := message.error():
            (place,) = consumer.position(consumer.assignment())
            return Reading(offsets, error, offset_of(message), place.offset)
        offsets.append(offset_of(message))
    raise AssertionError(
        f"neither an error nor the end of the partition within {DEADLINE_S} s, after {offsets}"
    )


def offset_of(message: Message) -> int:
    offset = message.offset()
    assert offset is not None
    return offset


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def cluster(broker: ApacheKafka) -> Cluster:
    return Cluster(broker.bootstrap_servers)


def maven_that(folder: Path, script: str) -> dict[str, str]:
    """An environment whose mvn is ``script`` and whose cache is empty."""
    command = folder / "bin" / "mvn"
    command.parent.mkdir()
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    return {"PATH": f"{command.parent}:{os.environ['PATH']}", "HOP_ARCHIVE_CACHE": str(folder / "cache")}


PUTS_A_JAR = 'for word; do case "$word" in -DoutputDirectory=*) to="${word#*=}";; esac; done; mkdir "$to"; touch "$to/kafka_2.13-9.9.9.jar"'


def test_a_kafka_home_is_used_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "libs").mkdir()
    (tmp_path / "libs" / "kafka_2.13-4.1.2.jar").touch()
    (tmp_path / "libs" / "kafka_2.13-4.1.2-sources.jar").touch()
    found = find_kafka({"KAFKA_HOME": str(tmp_path)})
    assert found == KafkaInstallation(f"{tmp_path}/libs/*", "4.1.2", f"KAFKA_HOME={tmp_path}")


def test_a_kafka_home_that_holds_no_kafka_is_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(MissingSettingError, match=f"KAFKA_HOME={tmp_path}: no Apache Kafka there"):
        find_kafka({"KAFKA_HOME": str(tmp_path)})


def test_kafka_is_fetched_once_and_then_found_without_maven(tmp_path: Path) -> None:
    environment = maven_that(tmp_path, PUTS_A_JAR)
    fetched = find_kafka(environment)
    assert fetched.classpath == f"{tmp_path}/cache/{cached_name(POM, KAFKA)}/*"
    assert find_kafka({**environment, "PATH": ""}) == fetched


def test_a_failed_fetch_says_what_maven_said_and_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    environment = maven_that(tmp_path, f"{PUTS_A_JAR}; echo no route to host; exit 1")
    with pytest.raises(UnavailableError, match="no route to host"):
        find_kafka(environment)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_fetch_that_another_process_finished_first_keeps_the_others_result(tmp_path: Path) -> None:
    theirs = tmp_path / "cache" / cached_name(POM, KAFKA)
    other_process = f"mkdir {theirs} && touch {theirs}/kafka_2.13-8.8.8.jar"
    assert find_kafka(maven_that(tmp_path, f"{PUTS_A_JAR}; {other_process}")).version == "8.8.8"


def test_a_missing_maven_or_java_is_one_message_that_says_what_to_install(tmp_path: Path) -> None:
    nothing = {"PATH": "", "HOP_ARCHIVE_CACHE": str(tmp_path)}
    with pytest.raises(MissingSettingError, match="Install Maven"):
        find_kafka(nothing)
    with pytest.raises(MissingSettingError, match="Install a Java runtime, version 17 or later"):
        find_java(nothing)


def test_a_cluster_that_was_running_already_is_neither_stopped_nor_killed_nor_set(tmp_path: Path) -> None:
    environment = {"HOP_ARCHIVE_TEST_KAFKA": "127.0.0.1:9"}
    given = ApacheKafka(tmp_path, environment=environment)
    assert (given.bootstrap_servers, given.owned, given.pid) == ("127.0.0.1:9", False, None)
    for refused in (
        given.stop,
        given.kill,
        given.restart,
        ApacheKafka(tmp_path, {"a": "b"}, environment).start,
    ):
        with pytest.raises(ForbiddenError, match="Unset HOP_ARCHIVE_TEST_KAFKA"):
            refused()


@pytest.mark.kafka
def test_a_broker_that_dies_while_starting_is_an_error_that_quotes_its_log(tmp_path: Path) -> None:
    kafka_or_skip()
    broker = ApacheKafka(
        tmp_path, {"authorizer.class.name": "no.such.Authorizer"}, environment=without_given()
    )
    with pytest.raises(UnavailableError, match=r"(?s)died with exit code 1.*no\.such\.Authorizer"):
        broker.start()
    assert broker.pid is None


@pytest.mark.kafka
def test_storage_that_cannot_be_formatted_is_an_error_that_quotes_why(tmp_path: Path) -> None:
    kafka_or_skip()
    broker = ApacheKafka(tmp_path, {"node.id": "first"}, environment=without_given())
    with pytest.raises(UnavailableError, match=r"(?s)Formatting the storage.*Invalid value first"):
        broker.start()
    assert broker.pid is None


def without_given() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != "HOP_ARCHIVE_TEST_KAFKA"}


@pytest.mark.kafka
def test_a_message_comes_back_from_a_topic_that_has_an_id(cluster: Cluster) -> None:
    topic = cluster.new_topic(retention_ms=-1)  # its message is of 1970
    headers = [("a", None), ("a", b""), ("", b"\x00\xff")]
    assert cluster.publish_one(topic, b"", key=None, headers=headers, timestamp=1) is None
    message = cluster.first(topic)
    assert (message.key(), message.value(), message.headers()) == (None, b"", headers)
    assert message.timestamp()[1] == 1
    assert cluster.topic_id(topic)


def hang(cluster: Cluster, topic: str) -> None:
    # Never ended: its producer goes, its transaction stays open until transaction.timeout.ms, a minute.
    cluster.open_transaction(topic, 2)
    cluster.publish(topic, 1)


@pytest.mark.kafka
@pytest.mark.parametrize(
    ("tail", "expected", "delivered"),
    [
        pytest.param(lambda _cluster, _topic: None, Offsets(0, 2, 2), [0, 1], id="nothing more"),
        pytest.param(
            lambda cluster, topic: cluster.commit(topic, 2), Offsets(0, 5, 5), [0, 1, 2, 3], id="commit"
        ),
        pytest.param(lambda cluster, topic: cluster.abort(topic, 3), Offsets(0, 6, 6), [0, 1], id="abort"),
        pytest.param(hang, Offsets(0, 2, 5), [0, 1], id="hanging"),
    ],
)
def test_the_end_of_partition_event_carries_the_last_stable_offset(
    cluster: Cluster, tail: Callable[[Cluster, str], None], expected: Offsets, delivered: list[int]
) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 2)
    tail(cluster, topic)
    # The marker is written a moment after commit_transaction has returned.
    until(lambda: cluster.offsets(topic) == expected, f"offsets are {expected}")
    reading = cluster.read(topic)
    assert reading.offsets == delivered
    assert reading.end.code() == KafkaError._PARTITION_EOF
    assert reading.end_offset == reading.position == expected.stable


@pytest.mark.kafka
def test_a_partition_of_nothing_but_aborted_messages_ends_at_its_stable_offset(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    cluster.abort(topic, 3)
    until(lambda: cluster.offsets(topic).stable == 4, "the abort marker is there")
    reading = cluster.read(topic)
    assert (reading.offsets, reading.end_offset, reading.position) == ([], 4, 4)


@pytest.mark.kafka
def test_a_compacted_partition_ends_at_its_stable_offset_whatever_is_gone(cluster: Cluster) -> None:
    topic = cluster.new_topic(
        cleanup_policy="compact", segment_ms=100, min_cleanable_dirty_ratio=0.0, max_compaction_lag_ms=100
    )
    for key in ("a", "b", "a"):
        assert cluster.publish_one(topic, b"", key=key) is None
    cluster.abort(topic, 2)
    time.sleep(
        0.2
    )  # segment.ms, not luck: the next message opens a segment, and only closed ones are compacted
    cluster.abort(topic, 1)
    until(lambda: cluster.read(topic).offsets == [1, 2], "compaction has removed offset 0")
    reading = cluster.read(topic)
    assert reading.end_offset == reading.position == cluster.offsets(topic).stable == 8


@pytest.mark.kafka
def test_an_offset_that_is_gone_is_an_auto_offset_reset_error_in_a_message(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 4)
    cluster.delete_records_before(topic, 3)
    assert cluster.offsets(topic) == Offsets(3, 4, 4)
    reading = cluster.read(topic, offset=1)
    assert reading.end.code() == KafkaError._AUTO_OFFSET_RESET
    assert (reading.offsets, reading.end_offset) == ([], 1)
    assert cluster.read(topic, offset=3).offsets == [3]


@pytest.mark.kafka
def test_retention_removes_old_messages_within_seconds(cluster: Cluster) -> None:
    topic = cluster.new_topic(retention_ms=100, segment_ms=100)
    cluster.publish(topic, 1)
    until(lambda: cluster.offsets(topic) == Offsets(1, 1, 1), "the message has expired")


@pytest.mark.kafka
def test_a_consumer_reads_on_silently_in_a_topic_made_anew_and_only_the_topic_id_tells(
    cluster: Cluster,
) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 2)
    first_id = cluster.topic_id(topic)
    consumer = cluster.consumer(topic)
    try:
        assert read_to_the_end(consumer).offsets == [0, 1]
        # Unpaused, it might see the new topic while that is still shorter: then the position is out of range.
        consumer.pause(consumer.assignment())
        cluster.delete(topic)
        cluster.new_topic(topic)
        cluster.publish(topic, 4)
        consumer.resume(consumer.assignment())
        seen = read_to_the_end(consumer)
    finally:
        consumer.close()
    assert cluster.topic_id(topic) != first_id
    assert seen.offsets == [2, 3]


@pytest.mark.kafka
def test_a_topic_can_have_the_broker_set_the_timestamp(cluster: Cluster) -> None:
    topic = cluster.new_topic(message_timestamp_type="LogAppendTime")
    assert cluster.publish_one(topic, b"", timestamp=5) is None
    kind, timestamp_ms = cluster.first(topic).timestamp()
    assert kind == TIMESTAMP_LOG_APPEND_TIME
    assert timestamp_ms > 5


@pytest.mark.kafka
@pytest.mark.parametrize("timestamp_ms", [-1, 1, FAR_FUTURE_MS])
def test_any_timestamp_but_zero_can_be_restored_where_the_topic_allows_it(
    cluster: Cluster, timestamp_ms: int
) -> None:
    topic = cluster.new_topic(message_timestamp_after_max_ms=2**63 - 1, retention_ms=-1)
    assert cluster.publish_one(topic, b"", timestamp=timestamp_ms) is None
    assert cluster.first(topic).timestamp()[1] == timestamp_ms


@pytest.mark.kafka
def test_the_client_takes_timestamp_zero_for_now(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    assert cluster.publish_one(topic, b"", timestamp=0) is None
    assert cluster.first(topic).timestamp()[1] > 0


@pytest.mark.kafka
def test_a_timestamp_over_an_hour_ahead_is_refused_by_default(cluster: Cluster) -> None:
    refusal = cluster.publish_one(cluster.new_topic(), b"", timestamp=FAR_FUTURE_MS)
    assert refusal
    assert refusal.code() == KafkaError.INVALID_TIMESTAMP


@pytest.mark.kafka
@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_batches_compressed_by_any_codec_are_read(cluster: Cluster, codec: str) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 100, **{"compression.type": codec, "linger.ms": 20})
    assert cluster.read(topic).offsets == list(range(100))


@pytest.mark.kafka
def test_a_message_of_20_mb_passes_and_one_above_the_brokers_limit_is_refused(cluster: Cluster) -> None:
    topic = cluster.new_topic()
    value = os.urandom(2**20) * 20
    assert cluster.publish_one(topic, value) is None
    assert cluster.first(topic).value() == value
    refusal = cluster.publish_one(topic, bytes(25 * 2**20))
    assert refusal
    assert refusal.code() == KafkaError.MSG_SIZE_TOO_LARGE


@pytest.mark.kafka
def test_a_restarted_broker_keeps_its_topics_and_an_old_admin_client_needs_new_metadata(
    own_broker: ApacheKafka, cluster: Cluster
) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 3)
    before = cluster.offsets(topic), cluster.topic_id(topic), own_broker.pid
    own_broker.restart()
    with pytest.raises(KafkaException):  # FENCED_LEADER_EPOCH, or _NOENT at the very first
        cluster.list_offset(topic, LATEST, IsolationLevel.READ_COMMITTED)
    assert (cluster.offsets(topic), cluster.topic_id(topic)) == before[:2]
    assert own_broker.pid != before[2]


@pytest.mark.kafka
def test_a_killed_broker_comes_back_with_what_it_had_acknowledged(
    own_broker: ApacheKafka, cluster: Cluster
) -> None:
    topic = cluster.new_topic()
    cluster.publish(topic, 3)
    own_broker.kill()
    own_broker.start()
    assert cluster.read(topic).offsets == [0, 1, 2]


@pytest.mark.kafka
def test_stopping_leaves_no_process_and_may_be_done_twice(own_broker: ApacheKafka) -> None:
    pid = own_broker.pid
    assert pid
    own_broker.stop()
    own_broker.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    own_broker.start()
    assert own_broker.start().pid not in (None, pid)
