"""Publishing to a Kafka cluster: in order, acknowledged by all in-sync replicas, nothing altered on the way."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Producer

from hop_archive.errors import HopArchiveError
from hop_archive.model.message import Outgoing, Receipt
from hop_archive.source.kafka.client import MESSAGE_BYTES_MAX, ClientErrors, Connection, kafka_error
from hop_archive.source.protocol import TopicInfo
from hop_archive.source.refusals import NOW, refuse_unsendable

DELIVERY_TIMEOUT_MS = 60_000
_ANY_PARTITION = -1
_SERVE_EVERY = 1000
_WAIT_S = 0.1


class Publisher:
    """Publishes over one producer that is made at first use and kept, for its id costs a request or two.

    Calls of several threads are served one after another.

    Args:
        connection: The cluster.
        topics: Looks topics up, as ``Source.topics`` does.
    """

    def __init__(
        self, connection: Connection, topics: Callable[[Collection[str]], Mapping[str, TopicInfo]]
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._lock = threading.Lock()
        self._client_errors = ClientErrors()
        self._producer: Producer | None = None

    def publish(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        """Publish and wait for all acknowledgements; ``messages`` may be a long generator.

        Whatever can't be sent as it is, is refused when its turn comes: what came before it may be published.

        Raises:
            MissingSettingError: A topic, or a partition of it, does not exist.
            DataError: Kafka could hold the message, but librdkafka can't send it: timestamp 0, for which it
                puts the time of sending, or a header name with a NUL or a lone surrogate.
            ConfigurationError: The topic does not take messages that large or that old.
            ForbiddenError: The credentials do not allow it.
            UnavailableError: Not all were acknowledged; which ones is not known.
        """
        with self._lock:
            if self._client_errors.login != self._connection.renewals:
                self._discard()
            if self._producer is None:
                self._producer = self._connection.client(Producer, "producer", self._client_errors, _SETTINGS)
            delivery = _Delivery(self._connection, self._topics, self._producer, self._client_errors)
            try:
                return delivery.run(messages)
            except BaseException:
                # Nothing that is still queued may be sent later, behind the caller's back.
                self._discard()
                raise

    def close(self) -> None:
        """Let go of the producer; closing twice is harmless."""
        with self._lock:
            self._discard()

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge()
            producer.close()
            self._client_errors.forget()


_SETTINGS: dict[str, str | int | bool] = {
    "enable.idempotence": True,  # keeps the order in each partition, and no message twice, over retries
    "acks": "all",
    "partitioner": "murmur2_random",  # the Java client's: a key goes where it went when that client sent it
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "queue.buffering.max.kbytes": MESSAGE_BYTES_MAX // 1024
    + 1024,  # below one message it would never take it
    "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
    "linger.ms": 5,
    "allow.auto.create.topics": False,
}


@dataclass(slots=True)
class _Delivery:
    """One call of publish."""

    connection: Connection
    topics: Callable[[Collection[str]], Mapping[str, TopicInfo]]
    producer: Producer
    client_errors: ClientErrors
    partitions: dict[str, int] = field(default_factory=dict)
    receipts: list[Receipt] = field(default_factory=list)
    failure: KafkaError | None = None

    def run(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        try:
            for index, message in enumerate(messages):
                self._check(message)
                self.receipts.append(_PENDING)
                self._send(message, partial(self._delivered, index))
                if index % _SERVE_EVERY == 0:
                    self.producer.poll(0)
                self._raise_failure()
            # Ends: each message is acknowledged, or fails for good after the delivery timeout.
            while self.producer.flush(_WAIT_S):
                self._raise_failure()
        except KafkaException as error:
            # Poll and flush raise what makes an idempotent producer fatal: no right to write, or being fenced.
            raise self._failed(kafka_error(error)) from error
        self._raise_failure()
        self.client_errors.forget()
        return self.receipts

    def _check(self, message: Outgoing) -> None:
        topic, number = message.topic, message.partition
        if topic not in self.partitions:
            info = self.topics([topic]).get(topic)
            if info is None:
                raise self.connection.missing(f"there is no topic {topic}")
            self.partitions[topic] = info.partitions
        if number is not None and not 0 <= number < self.partitions[topic]:
            raise self.connection.missing(
                f"topic {topic} has {self.partitions[topic]} partitions, and no {number}"
            )
        refuse_unsendable(self.connection.stanza, message)

    def _send(self, message: Outgoing, receipt: Callable[[KafkaError | None, Any], None]) -> None:
        while self.failure is None:
            try:
                self.producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    _ANY_PARTITION if message.partition is None else message.partition,
                    on_delivery=receipt,
                    headers=list(message.headers),
                    timestamp=message.timestamp_ms or NOW,
                )
            except BufferError:  # the local queue is full
                self.producer.poll(_WAIT_S)
            except KafkaException as error:
                raise self._failed(kafka_error(error)) from error
            else:
                return

    def _delivered(self, index: int, error: KafkaError | None, message: confluent_kafka.Message) -> None:
        if error is not None:
            self.failure = self.failure or error
            return
        topic, number, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert number is not None
        assert offset is not None
        self.receipts[index] = Receipt(topic, number, offset)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self._failed(self.failure)

    def _failed(self, error: KafkaError) -> HopArchiveError:
        return self.connection.failure("publishing", error, self.client_errors)


_PENDING = Receipt("", -1, -1)
