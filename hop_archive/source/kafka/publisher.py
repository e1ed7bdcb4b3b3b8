"""Publishing to a Kafka cluster: in order, acknowledged by all in-sync replicas, nothing altered on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from operator import itemgetter
from typing import Any, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Producer

from hop_archive.errors import HopArchiveError
from hop_archive.model.message import ForPartition, Outgoing, Receipt
from hop_archive.source.kafka.client import (
    MESSAGE_BYTES_MAX,
    ClientErrors,
    Connection,
    Deadline,
    kafka_error,
    let_go,
)
from hop_archive.source.protocol import TopicInfo
from hop_archive.source.refusals import NOW, refuse_unsendable

Result = TypeVar("Result")

DELIVERY_TIMEOUT_S = 60.0
"""Longest without any acknowledgement while some are waited for."""
_ANY_PARTITION = -1
_SERVE_EVERY = 1000
_name_of = itemgetter(0)
_WAIT_S = 0.1
_TELLING_S = 10.0
_PURGED = {KafkaError._PURGE_QUEUE, KafkaError._PURGE_INFLIGHT}  # noqa: SLF001 (librdkafka's local codes)


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
        self._begun: set[tuple[str, int]] = set()
        """The partitions that have something of this producer."""
        self._failure: KafkaError | None = None
        """Why a message was refused first in the call under way."""
        self._acknowledged = self._seen = 0
        """How many messages were, and how many of these by the last look."""
        self._patience = Deadline.after(DELIVERY_TIMEOUT_S)
        """When it is given up, unless something is acknowledged before."""

    def publish(self, messages: Iterable[Outgoing]) -> list[Receipt]:
        """Publish and wait for all acknowledgements; ``messages`` may be a long generator.

        Whatever can't be sent as it is, is refused when its turn comes: what came before it may be published. Errors are
        those of ``Source.publish``.
        """
        return self._with_producer(lambda producer: self._deliver(producer, messages))

    def append(
        self, topic: str, messages: Iterable[ForPartition], meanwhile: Callable[[], None]
    ) -> Mapping[int, Sequence[int]]:
        """As ``Source.append``."""
        return self._with_producer(lambda producer: self._append(producer, topic, messages, meanwhile))

    def _with_producer(self, work: Callable[[Producer], Result]) -> Result:
        with self._lock:
            if self._client_errors.login != self._connection.renewals:
                self._discard()
            if self._producer is None:
                self._producer = self._connection.client(Producer, "producer", self._client_errors, _SETTINGS)
            self._failure = None
            self._patience = Deadline.after(DELIVERY_TIMEOUT_S)
            try:
                return work(self._producer)
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
        self._begun.clear()
        if producer is not None:
            producer.purge()
            with suppress(KafkaException):  # that it was fatal was told
                let_go(producer.close)
            self._client_errors.forget()

    def _deliver(self, producer: Producer, messages: Iterable[Outgoing]) -> list[Receipt]:
        receipts: list[Receipt] = []
        partitions: dict[str, int] = {}
        with self._translating(producer):
            for index, message in enumerate(messages):
                self._check(message, partitions)
                receipts.append(_PENDING)
                self._send(producer, message, partial(self._delivered, receipts, index))
                if index % _SERVE_EVERY == 0:
                    self._serve(producer)
                self._raise_failure()
            self._await(producer)
        return receipts

    def _append(
        self,
        producer: Producer,
        topic: str,
        messages: Iterable[ForPartition],
        meanwhile: Callable[[], None],
    ) -> Mapping[int, Sequence[int]]:
        """Looks at what is new (partition, names of headers), where ``_deliver`` looks at each message."""
        offsets: dict[int, list[int]] = {}
        counts: dict[str, int] = {}
        sendable: set[str] = set()
        produce: Any = producer.produce  # its stubs want values of headers to be text, too
        served = time.monotonic()  # who sends slowly has to hear soon that he is refused

        def delivered(error: KafkaError | None, message: Any) -> None:
            if error is None:  # by partition they come in order: the producer is idempotent
                offsets[message.partition()].append(message.offset())
                self._acknowledged += 1
            else:
                self._note(error)

        with self._translating(producer):
            for index, message in enumerate(messages):
                if index % _SERVE_EVERY == 0 or time.monotonic() - served > _WAIT_S:
                    self._serve(producer)
                    served = time.monotonic()
                partition, key, value, headers, timestamp_ms = message
                is_known = partition in offsets and sendable.issuperset(map(_name_of, headers))
                if timestamp_ms == NOW or not is_known:
                    self._check(message.to(topic), counts)
                    offsets.setdefault(partition, [])
                    sendable.update(name for name, _ in headers)
                    if (topic, partition) not in self._begun:
                        # Of a producer that is new to it a partition takes batches from any number on (Kafka 4.4,
                        # ProducerAppendInfo): also such as stand behind one that it has refused.
                        self._send(producer, message.to(topic), delivered)
                        self._await(producer)
                        self._begun.add((topic, partition))
                        continue
                try:
                    produce(topic, value, key, partition, delivered, headers=headers, timestamp=timestamp_ms)
                except BufferError:  # the local queue is full
                    self._send(producer, message.to(topic), delivered)
                    self._raise_failure()
            meanwhile()
            self._await(producer)
        return offsets

    @contextmanager
    def _translating(self, producer: Producer) -> Iterator[None]:
        try:
            yield
        except KafkaException as error:
            # Produce, poll and flush raise what makes an idempotent producer fatal: no right to write, being fenced, or
            # a message that was refused. Why it was is told with the message, a moment after.
            told = Deadline.after(_TELLING_S)
            while self._failure is None and len(producer) and not told.passed:
                with suppress(KafkaException):
                    producer.poll(_WAIT_S)
            refusal = self._failure
            # Of what was never sent it is told that it was dropped, and not why.
            if refusal is None or refusal.code() in _PURGED:
                refusal = kafka_error(error)
            raise self._failed(refusal) from error

    def _serve(self, producer: Producer, wait_s: float = 0.0) -> None:
        """Take in acknowledgements, for which ``wait_s`` is waited where there are none yet.

        Raises:
            HopArchiveError: A message was refused, or nothing was acknowledged for too long. All that is still on its way is
                given up at once then: were it message by message, those behind the first might arrive.
        """
        producer.poll(wait_s)
        if self._acknowledged != self._seen or not len(producer):
            self._seen, self._patience = self._acknowledged, Deadline.after(DELIVERY_TIMEOUT_S)
        self._raise_failure()
        if self._patience.passed:
            raise self._failed(KafkaError(KafkaError._MSG_TIMED_OUT))  # noqa: SLF001 (librdkafka's local codes)

    def _await(self, producer: Producer) -> None:
        """Wait for all acknowledgements."""
        while producer.flush(_WAIT_S):
            self._serve(producer)
        self._raise_failure()
        self._client_errors.forget()

    def _check(self, message: Outgoing, partitions: dict[str, int]) -> None:
        """Refuse what is for nowhere, or can't be sent; ``partitions`` remembers how many each topic has."""
        topic, number = message.topic, message.partition
        if topic not in partitions:
            info = self._topics([topic]).get(topic)
            if info is None:
                raise self._connection.missing(f"there is no topic {topic}")
            partitions[topic] = info.partitions
        if number is not None and not 0 <= number < partitions[topic]:
            raise self._connection.missing(
                f"topic {topic} has {partitions[topic]} partitions, and no {number}"
            )
        refuse_unsendable(self._connection.stanza, message)

    def _send(
        self, producer: Producer, message: Outgoing, receipt: Callable[[KafkaError | None, Any], None]
    ) -> None:
        while self._failure is None:
            try:
                producer.produce(
                    message.topic,
                    message.value,
                    message.key,
                    _ANY_PARTITION if message.partition is None else message.partition,
                    on_delivery=receipt,
                    headers=list(message.headers),
                    timestamp=message.timestamp_ms or NOW,
                )
                return
            except BufferError:  # the local queue is full
                self._serve(producer, _WAIT_S)

    def _delivered(
        self, receipts: list[Receipt], index: int, error: KafkaError | None, message: confluent_kafka.Message
    ) -> None:
        if error is not None:
            self._note(error)
            return
        topic, number, offset = message.topic(), message.partition(), message.offset()
        assert topic is not None
        assert number is not None
        assert offset is not None
        receipts[index] = Receipt(topic, number, offset)
        self._acknowledged += 1

    def _note(self, error: KafkaError) -> None:
        """Remember why a message was refused: the first reason, unless that is another message of the same batch."""
        if self._failure is None or self._failure.code() == KafkaError._INVALID_DIFFERENT_RECORD:  # noqa: SLF001
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failed(self._failure)

    def _failed(self, error: KafkaError) -> HopArchiveError:
        return self._connection.failure("publishing", error, self._client_errors)


_SETTINGS: dict[str, str | int | bool] = {
    "enable.idempotence": True,  # keeps the order in each partition, and no message twice, over retries
    # What a partition refuses for good makes the producer fatal: without this, what is on its way behind it is sent again
    # under other numbers, and leaves a gap that a restore could not go on from.
    "enable.gapless.guarantee": True,
    "acks": "all",
    "partitioner": "murmur2_random",  # the Java client's: a key goes where it went when that client sent it
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "queue.buffering.max.kbytes": MESSAGE_BYTES_MAX // 1024
    + 1024,  # below one message it would never take it
    "delivery.timeout.ms": 0,  # never message by message: see ``_serve``
    "linger.ms": 5,
    "allow.auto.create.topics": False,
}
_PENDING = Receipt("", -1, -1)
