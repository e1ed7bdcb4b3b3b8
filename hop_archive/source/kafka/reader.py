"""Reading partitions of a Kafka cluster: committed messages only, each from the offset asked for."""

from __future__ import annotations

import operator
import time
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import confluent_kafka
from confluent_kafka import Consumer, KafkaError

from hop_archive.errors import (
    CorruptError,
    DataError,
    GenerationChangedError,
    HopArchiveError,
)
from hop_archive.model.message import Message, TimestampType, TopicPartition
from hop_archive.source.kafka.client import (
    AUTHENTICATION,
    LOGGER,
    MESSAGE_BYTES_MAX,
    UNKNOWN_TOPIC,
    ClientErrors,
    Connection,
    let_go,
    native,
)
from hop_archive.source.protocol import Reader, Source, changed, gone, unreadable

IDLE_CHECK_S = 3.0
"""How long a reader goes on hearing nothing before it asks whether the cluster and the topics are still there."""

# Waiting so long for company makes of a trickle one poll (and one check of topic ids) in 20 ms.
_LINGER_S = 0.02
# At a header name that is not UTF-8, confluent-kafka 2.16.1 returns a list with a hole *and* leaves an exception
# behind, which a direct call does not see: it would turn up later, anywhere. This way of calling looks for it.
_get_headers = operator.methodcaller("headers")
# By librdkafka's numbers (rd_kafka_timestamp_type_t).
_TIMESTAMP_TYPES = (TimestampType.NONE, TimestampType.CREATE, TimestampType.APPEND)

_END = KafkaError._PARTITION_EOF  # noqa: SLF001 (librdkafka's local codes begin with an underscore)
_OUT_OF_RANGE = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET})  # noqa: SLF001
_UNREADABLE = frozenset(
    {KafkaError._BAD_MSG, KafkaError._BAD_COMPRESSION, KafkaError.INVALID_MSG, KafkaError.MSG_SIZE_TOO_LARGE}  # noqa: SLF001
)


class KafkaReader(Reader):
    """Reads partitions of a Kafka cluster. Made by `KafkaSource.reader`; for one thread.

    Whose messages are read is checked by topic id *after* they were fetched and before they are handed out:
    librdkafka goes over from a deleted topic to a new one of the same name without a word (2.16, found by
    trial), and would read on at the old offset. Where the broker has no topic ids, only a topic that is gone
    or has become shorter is noticed.

    While the cluster does not answer, ``poll`` takes as long as the source's timeout.
    """

    def __init__(
        self,
        source: Source,
        connection: Connection,
        starts: Mapping[TopicPartition, int],
        *,
        group_id: str,
        fetch_bytes: int,
    ) -> None:
        self._source = source
        self._connection = connection
        self._client_errors = ClientErrors()
        self._next: dict[TopicPartition, int] = {}
        self._assigned: set[TopicPartition] = set()
        self._topic_ids: dict[str, str | None] = {}
        self._held: list[confluent_kafka.Message] = []
        self._errors: deque[HopArchiveError] = deque()
        self._checked_at = time.monotonic()
        self._consumer = connection.client(
            Consumer, "consumer", self._client_errors, _settings(group_id, fetch_bytes)
        )
        try:
            self.add(starts)
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of connections; closing twice is harmless."""
        let_go(self._consumer.close)

    def add(self, starts: Mapping[TopicPartition, int]) -> None:
        found = self._source.topics({tp.topic for tp in starts})
        read = {tp.topic for tp in self._assigned}
        self.release(starts)
        untold = [tp for tp in starts if tp.topic in found.untold]
        there = {
            tp: start
            for tp, start in starts.items()
            if tp not in untold and tp.topic in found and tp.partition < found[tp.topic].partitions
        }
        for tp in there:
            if tp.topic not in read:
                self._topic_ids[tp.topic] = found[tp.topic].topic_id
        self._next.update(starts)
        self._assign(there)
        for tp in sorted(starts.keys() - there.keys()):
            self._errors.append(
                _of_place(found.untold[tp.topic], tp) if tp in untold else self._changed([tp])
            )

    def release(self, partitions: Collection[TopicPartition]) -> None:
        leaving = self._assigned.intersection(partitions)
        if leaving:
            self._consumer.incremental_unassign([native(tp) for tp in leaving])
            self._assigned -= leaving
            self._held = [event for event in self._held if _place(event) not in leaving]

    def poll(self, max_messages: int, timeout_s: float) -> Sequence[Message]:
        if not self._held and self._errors:
            raise self._errors.popleft()
        events = self._held
        if not events:
            # consume(n) waits until it has n or the time is over; so first for one, then briefly for more.
            events = self._consumer.consume(1, timeout_s)
            if events and max_messages > 1:
                events += self._consumer.consume(max_messages - 1, min(_LINGER_S, timeout_s))
        # Held until it is known whose they are, so that an outage in between loses none.
        self._held = events
        if not events and self._client_errors.refused:
            # The source's own connection may be older than a changed password, and go on answering.
            raise self._connection.failure("reading", None, self._client_errors)
        self._check_topic_ids(events)
        events, self._held = self._held[:max_messages], self._held[max_messages:]
        messages = self._convert(events)
        if not messages and self._errors:
            raise self._errors.popleft()
        self._source.delivered += len(messages)
        return messages

    def position(self, partition: TopicPartition) -> int:
        return self._next[partition]

    def _assign(self, starts: Mapping[TopicPartition, int]) -> None:
        if starts:
            self._consumer.incremental_assign([native(tp, start) for tp, start in starts.items()])
            self._assigned |= starts.keys()

    def _check_topic_ids(self, events: Iterable[confluent_kafka.Message]) -> None:
        """Release the topics that are no longer those that were added, if ``events`` or a long silence ask for it."""
        names = {topic for event in events if (topic := event.topic()) in self._topic_ids}
        is_silent = time.monotonic() - self._checked_at > IDLE_CHECK_S
        if not names and (self._client_errors.counts or is_silent):
            names = {tp.topic for tp in self._assigned}
        if names:
            found = self._source.topics(names)
            self._checked_at = time.monotonic()
            self._client_errors.forget(refusals=bool(events))
            for name in sorted(names):
                if name in found.untold:
                    self._abandon(name, found.untold[name])
                elif name not in found or found[name].topic_id != self._topic_ids[name]:
                    self._abandon(name)

    def _abandon(self, topic: str, why: HopArchiveError | None = None) -> None:
        """Release a topic: it was deleted or made anew, unless ``why`` says that this cannot be told any more."""
        read = sorted(tp for tp in self._assigned if tp.topic == topic)
        if not read:
            return
        self.release(read)
        self._errors += [self._changed(read)] if why is None else [_of_place(why, at) for at in read]

    def _convert(self, events: Sequence[confluent_kafka.Message]) -> list[Message]:
        """The messages among ``events``; positions advance."""
        messages: list[Message] = []
        index = 0
        while index < len(events):
            place, error = _place(events[index]), events[index].error()
            if place not in self._assigned:  # an error of the client as a whole, or a latecomer
                if error is not None and error.code() != _END:
                    self._client_errors.note(error)
            elif error is not None:
                self._handle(place, events[index], error)
            else:
                index = self._convert_run(place, events, index, messages)
                continue
            index += 1
        return messages

    def _convert_run(
        self,
        place: TopicPartition,
        events: Sequence[confluent_kafka.Message],
        index: int,
        messages: list[Message],
    ) -> int:
        """Append the messages that stand together in one partition, and return the index of what follows them.

        Reading spends its time in this loop, so what is the same for all messages of a run stays out of it.
        """
        topic, partition = place
        following = self._next[place]
        fault: DataError | None = None
        for index in range(index, len(events)):  # noqa: B020, PLR1704 (on from where the last run ended)
            event: Any = events[index]
            if event.partition() != partition or event.topic() != topic or event.error() is not None:
                break
            offset = event.offset()
            try:
                headers = _get_headers(event)
            except (SystemError, UnicodeDecodeError) as error:
                fault = unreadable(
                    self._source.name,
                    place,
                    offset,
                    f"a header name is not UTF-8: {error.__cause__ or error}",
                )
                break
            if offset < following:
                fault = DataError(
                    f"Source {self._source.name}: {place} was to be read from offset {following}, and {offset} came.",
                    remedy="That is a fault of the client or the broker: report it.",
                    **place._asdict(),
                    offset=following,
                )
                break
            following = offset + 1
            kind, timestamp_ms = event.timestamp()
            messages.append(
                tuple.__new__(  # as ``Message(...)`` does it, in 0.6 of the time
                    Message,
                    (
                        topic, partition, offset, timestamp_ms, _TIMESTAMP_TYPES[kind], event.key(), event.value(),
                        tuple(headers) if headers else (), event.leader_epoch(),
                    ),
                )
            )  # fmt: skip
        else:
            index += 1
        self._next[place] = following
        if fault is not None:
            self._drop(place, fault)
        return index

    def _handle(self, place: TopicPartition, event: confluent_kafka.Message, error: KafkaError) -> None:
        code, offset = error.code(), max(event.offset() or 0, self._next[place])
        if code == _END:
            self._next[place] = offset
        elif code in _OUT_OF_RANGE:
            self._look_for(place, offset)
        elif code in UNKNOWN_TOPIC:
            self._again(place, offset)  # the check before this found it there; librdkafka has given it up
        elif code in _UNREADABLE:
            damaged = CorruptError(
                f"Source {self._source.name}: the message at {place} offset {offset} can't be read as it is: "
                f"{error.name()}: {error.str()}.",
                remedy="Look at the broker's log; the next run tries again.",
                **place._asdict(),
                offset=offset,
            )
            self._drop(place, damaged)
        else:  # it may pass by itself, unless it is of those that never do
            failure = self._connection.failure(f"reading {place}", error, self._client_errors)
            if failure.retryable:
                self._client_errors.note(error)
            else:
                of_all = AUTHENTICATION & {code, *self._client_errors.counts}
                self._drop(place, failure if of_all else _of_place(failure, place))

    def _look_for(self, place: TopicPartition, offset: int) -> None:
        """Find out why an offset is out of range."""
        self._next[place] = offset
        try:
            marks = self._source.watermarks([place]).get(place)
        except HopArchiveError as error:
            if not error.retryable:
                self._drop(place, _of_place(error, place))
                return
            LOGGER.debug("Watermarks of %s are not to be had: %s", place, error)
            self._again(place, offset)
            return
        if marks is None or offset > marks.high:
            self._drop(place, self._changed([place]))
        elif offset < marks.low:
            self._drop(place, gone(self._source.name, place, offset, marks.low))
        else:
            # librdkafka says so where it has found that the log lost its end and grew again (KIP-320): what it holds
            # here now may be another message than the one that was asked for.
            cut = GenerationChangedError(
                f"Source {self._source.name}: {place} can't be read on from offset {offset}, which it holds: its log may "
                "have lost its end, and grown again.",
                remedy="Plan again: that compares what is archived with what Kafka holds now.",
                topic=place.topic,
                partitions=[place.partition],
                offsets=[offset],
            )
            self._drop(place, cut)

    def _again(self, place: TopicPartition, offset: int) -> None:
        self.release([place])
        self._assign({place: offset})

    def _drop(self, place: TopicPartition, error: HopArchiveError) -> None:
        self.release([place])
        self._errors.append(error)

    def _changed(self, places: Sequence[TopicPartition]) -> GenerationChangedError:
        return changed(self._source.name, {place: self._next[place] for place in places})


def _settings(group_id: str, fetch_bytes: int) -> dict[str, str | int | bool]:
    # What was fetched is there four times at worst, where tiny messages are followed by huge ones: in the
    # client's queue, in an answer on its way, and of what is polled once in the client and once in Python.
    fetch_bytes //= 4
    return {
        "group.id": group_id,  # librdkafka wants one; nothing joins it or commits here
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "enable.partition.eof": True,
        "isolation.level": "read_committed",
        "auto.offset.reset": "error",
        "allow.auto.create.topics": False,
        "check.crcs": True,
        "fetch.min.bytes": 1,
        "fetch.wait.max.ms": 100,
        "fetch.max.bytes": fetch_bytes,
        "max.partition.fetch.bytes": fetch_bytes,
        "message.max.bytes": min(fetch_bytes, 1_000_000),  # it must not exceed fetch.max.bytes
        "receive.message.max.bytes": max(MESSAGE_BYTES_MAX, fetch_bytes) + 1024 * 1024,
        "queued.max.messages.kbytes": max(1, fetch_bytes // 1024),
        "fetch.queue.backoff.ms": 10,  # 1,000 else: a full queue would stop fetching for a second
    }


def _of_place(error: HopArchiveError, place: TopicPartition) -> HopArchiveError:
    """The same error, which tells the partition that was released because of it."""
    return type(error)(error.args[0], remedy=error.remedy, **{**error.facts, **place._asdict()})


def _place(event: confluent_kafka.Message) -> TopicPartition:
    """The partition of an event; of none, for an error of the client as a whole."""
    topic, number = event.topic(), event.partition()
    return TopicPartition(topic or "", -1 if number is None else number)
